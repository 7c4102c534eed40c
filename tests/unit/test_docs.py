"""The documentation is true: generated parts are current, README's commands exist, its links lead somewhere."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from mover.cli.main import cli as mover_cli
from proxyagent import policy
from proxyagent.cli.main import cli as proxyagent_cli

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]


def test_generated_parts_are_current() -> None:
    done = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def _check(command: click.Command, arguments: list[str], name: str) -> None:
    """Parse the arguments as click would, down to the last command, without running it."""
    context = command.make_context(name, list(arguments))
    if isinstance(command, click.Group):
        _, found, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert found is not None
        _check(found, rest, name)


def check_command_line(line: str) -> None:
    """See that a command line is one of our programs'; `make` must have its targets."""
    program, *arguments = shlex.split(line)
    if program == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in arguments)
    else:
        _check({"mover": mover_cli, "proxyagent": proxyagent_cli}[program], arguments, program)


@pytest.mark.parametrize("line", COMMANDS)
def test_each_command_of_the_readme_exists(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("06008.000", "robot.pem", "4742.certificate"):
        (tmp_path / name).touch()
    check_command_line(line)


def test_the_messages_in_the_table_of_troubles_are_those_of_the_programs() -> None:
    sources = [path for folder in ("mover", "token") for path in (ROOT / folder).rglob("*.py")]
    said = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    table = README.split("## Recover from trouble")[1].split("\n## ")[0]
    messages = re.findall(r"^\| `(.+?)`", table, re.MULTILINE)
    assert len(messages) >= 5
    for message in messages:
        for fragment in re.split("…|: ", message):
            assert fragment.strip() in said, message


def test_the_readme_has_the_commands_that_a_newcomer_needs() -> None:
    assert {"make demo", "make test", "mover engine", "proxyagent renew"} <= set(COMMANDS)


@pytest.mark.parametrize("document", ["README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))])
def test_links_within_the_project_lead_somewhere(document: str) -> None:
    path = ROOT / document
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), f"{document}: {target}"


def test_the_agents_example_configuration_is_good() -> None:
    config = policy.load(ROOT / "examples" / "proxyagent.toml")
    assert [profile.name for profile in config.profiles_of(990, {990})] == ["mover"]


def test_the_tests_that_the_threat_model_names_exist() -> None:
    text = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:unit|integration)/[\w/]+\.py)`", text))
    assert len(named) > 10
    missing = [name for name in named if not (ROOT / "tests" / name).exists()]
    assert not missing


def test_the_tests_that_the_table_of_faults_names_exist() -> None:
    rows = re.findall(r"^\| (?!fault|-).*", (ROOT / "docs" / "faults.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) > 25
    for row in rows:
        named = re.findall(r"`((?:faults|unit|integration)/[\w/]+\.py)::(\w+)`", row)
        assert named, row
        for file, test in named:
            assert f"\ndef {test}(" in (ROOT / "tests" / file).read_text(encoding="utf-8"), f"{file}::{test}"
