"""The command line where there is no agent and no configuration: help, examples, and errors in words."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from proxyagent.cli import cli

SECONDS = 20.0
PROGRAM = [sys.executable, "-P", "-m", "proxyagent"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *arguments], capture_output=True, check=False, timeout=SECONDS, text=True, stdin=subprocess.DEVNULL
    )


@pytest.mark.parametrize("command", cli.commands)
def test_help_needs_no_configuration(command: str) -> None:
    for option in ("-h", "--help"):
        shown = run("--config", "/nonexistent", command, option)
        assert shown.returncode == 0, shown.stderr
        assert f"Usage: proxyagent {command}" in shown.stdout


@pytest.mark.parametrize("command", [cli, *cli.commands.values()])
def test_the_examples_of_the_help_are_good(command: click.Command, tmp_path: Path) -> None:
    _, _, text = (command.help or "").partition("Example:")
    examples = [shlex.split(line) for line in text.splitlines() if line.strip()]
    assert examples
    for program, *arguments in examples:
        assert program == "proxyagent"
        context = cli.make_context(program, arguments)
        name, found, rest = cli.resolve_command(context, [*context._protected_args, *context.args])
        assert found is not None
        assert command in {cli, found}
        found.make_context(name, rest)


def test_the_version_and_every_option_are_explained() -> None:
    assert re.fullmatch(r"proxyagent, version \d+\.\d+\.\d+\n", run("--version").stdout)
    for command in (cli, *cli.commands.values()):
        assert all(option.help for option in command.params if isinstance(option, click.Option))


def test_what_stands_behind_the_commands_name_is_the_commands() -> None:
    context = cli.commands["exec"].make_context("exec", ["--lifetime", "60", "curl", "-h", "--profile", "x"])
    assert context.params["command"] == ("curl", "-h", "--profile", "x")
    assert context.params["profile"] is None


def test_without_a_configuration_or_a_command_it_says_what_to_do() -> None:
    missing = run("--config", "/nonexistent", "status")
    assert missing.returncode == 3
    assert missing.stderr.startswith("error: cannot read /nonexistent: ")
    assert "hint: give its path with --config" in missing.stderr
    nothing = run()
    assert nothing.returncode == 2
    assert nothing.stderr == "error: Missing command.\nhint: see `proxyagent --help`\n"


def test_what_nobody_expected_is_told_in_words(tmp_path: Path) -> None:
    config = tmp_path / "proxyagent.toml"
    # No program can be given such an argument; nothing of ours looks for it.
    config.write_text(
        '[agent]\nsocket = "/nonexistent"\n[dongle]\nmodule = "/a\\u0000b"\nuri = "pkcs11:"\n'
        '[[profile]]\nname = "p"\nuids = [0]\n'
    )
    short = run("--config", str(config), "init")
    assert short.returncode == 1
    assert short.stderr == (
        "error: unexpected ValueError: embedded null byte\n"
        "hint: please report it, with what `proxyagent --verbose` shows\n"
    )
    long = run("--config", str(config), "--verbose", "init")
    assert long.returncode == 1
    assert long.stderr.startswith("Traceback (most recent call last):\n")
    assert long.stderr.endswith(short.stderr)


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
