"""The command line where there is no agent and no configuration: help, examples, and errors in words."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from proxyagent.cli.main import cli

SECONDS = 20.0


def all_commands(group: click.Group, prefix: str = "") -> dict[str, click.Command]:
    """Every command below a group, by what has to be typed."""
    found: dict[str, click.Command] = {}
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        found |= all_commands(command, f"{name} ") if isinstance(command, click.Group) else {prefix + name: command}
    return found


COMMANDS = all_commands(cli)
PROGRAM = [sys.executable, "-P", "-m", "proxyagent"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *arguments], capture_output=True, check=False, timeout=SECONDS, text=True, stdin=subprocess.DEVNULL
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_help_needs_no_configuration(command: str) -> None:
    for option in ("-h", "--help"):
        shown = run("--config", "/nonexistent", *command.split(), option)
        assert shown.returncode == 0, shown.stderr
        assert f"Usage: proxyagent {command}" in shown.stdout


def parsed(command: click.Command, name: str | None, arguments: list[str]) -> list[click.Command]:
    """The commands that a command line goes through, each with arguments that it takes."""
    context = command.make_context(name, arguments)
    if not isinstance(command, click.Group):
        return [command]
    name, found, rest = command.resolve_command(context, [*context._protected_args, *context.args])
    assert found is not None
    return [command, *parsed(found, name, rest)]


@pytest.mark.parametrize("command", [cli, *COMMANDS.values()])
def test_the_examples_of_the_help_are_good(command: click.Command, tmp_path: Path) -> None:
    _, _, text = (command.help or "").partition("Example:")
    examples = [shlex.split(line) for line in text.splitlines() if line.strip()]
    assert examples
    for program, *arguments in examples:
        assert program == "proxyagent"
        assert command in parsed(cli, program, arguments)


def test_the_version_and_every_option_are_explained() -> None:
    assert re.fullmatch(r"proxyagent, version \d+\.\d+\.\d+\n", run("--version").stdout)
    for command in (cli, *COMMANDS.values()):
        assert all(option.help for option in command.params if isinstance(option, click.Option))


def test_what_stands_behind_the_commands_name_is_the_commands() -> None:
    context = COMMANDS["exec"].make_context("exec", ["--lifetime", "60", "curl", "-h", "--profile", "x"])
    assert context.params["arguments"] == ("curl", "-h", "--profile", "x")
    assert context.params["profile"] is None


def test_without_a_configuration_or_a_command_it_says_what_to_do() -> None:
    missing = run("--config", "/nonexistent", "status")
    assert missing.returncode == 3
    assert missing.stderr.startswith("error: cannot read /nonexistent: ")
    assert "hint: give its path with --config" in missing.stderr
    nothing = run()
    assert nothing.returncode == 2
    assert nothing.stderr == "error: Missing command.\nhint: see `proxyagent --help`\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_what_cannot_be_written_is_told_in_words() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*PROGRAM, "--help"], stdout=full, stderr=subprocess.PIPE, check=False, timeout=SECONDS, text=True
        )
    assert done.returncode == 1
    assert "error: cannot write the output: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("descriptor", [0, 1, 2])
def test_no_socket_takes_the_place_of_a_closed_stream(descriptor: int) -> None:
    script = (
        "import os, socket, sys\nfrom proxyagent.hardening import open_standard_streams\nopen_standard_streams()\n"
        "sys.exit(0 if socket.socket().fileno() > 2 else 1)"
    )
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {descriptor}<&-', "sh", sys.executable, "-P", "-c", script],
        check=False,
        timeout=SECONDS,
    )
    assert done.returncode == 0
