"""Standard output that is full, closed, or read no further: what the command says, and how it ends."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mover.sandbox.daq import DaqWriter

Shell = Callable[[str], "subprocess.CompletedProcess[str]"]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """Runs a line of bash, in which `mover` is the command and knows a run."""
    (tmp_path / "daq").mkdir()
    config = tmp_path / "mover.toml"
    config.write_text(
        f'experiment = "MICE"\ncatalogue = "{tmp_path}/catalogue.sqlite"\n'
        f'[runs]\ndirectory = "{tmp_path}/daq"\n[bundle]\nlfn = "MICE/{{run:05d}}.tar"\n'
        f'[[endpoint]]\nname = "disk"\nsite = "here"\nkind = "disk"\nurl = "file://{tmp_path}/disk"\n'
        "[policy.raw]\ntapes = 0\ntape_sites = 0\ndisks = 1\n"
    )
    command = f'mover() {{ {sys.executable} -m mover --config {config} "$@"; }}; cd {tmp_path}; '

    def run(line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/bash", "-c", command + line], capture_output=True, text=True, timeout=120, check=False
        )

    DaqWriter(tmp_path / "daq").write_run(4742, parts=20, part_bytes=5000)
    assert run("mover run close 4742").returncode == 0
    return run


@pytest.mark.parametrize("command", ["catalogue export", "run show 4742", "status"])
def test_a_reader_that_has_enough_ends_it_quietly(shell: Shell, command: str) -> None:
    ended = shell(f"mover {command} | true; exit ${{PIPESTATUS[0]}}")
    assert ended.stderr == ""
    assert ended.returncode == 1


@pytest.mark.parametrize("command", ["catalogue export", "run show 4742", "status"])
def test_an_output_that_is_full_is_an_error_that_says_so(shell: Shell, command: str) -> None:
    ended = shell(f"mover {command} > /dev/full")
    assert ended.stderr.startswith("error: cannot write the output: no space left on device\nhint: ")
    assert "Traceback" not in ended.stderr
    assert ended.returncode == 12


@pytest.mark.parametrize("command", ["catalogue export", "run show 4742", "status", "--help"])
def test_an_output_that_is_closed_is_an_error_that_says_so(shell: Shell, command: str) -> None:
    ended = shell(f"mover {command} >&-")
    assert ended.stderr.startswith("error: cannot write the output: standard output is closed\nhint: ")
    assert "Traceback" not in ended.stderr
    assert ended.returncode == 12


@pytest.mark.parametrize("redirection", [">&- 2>&-", ">/dev/full 2>/dev/full", "<&- >&- 2>&-"])
def test_the_exit_code_says_it_where_nothing_else_can(shell: Shell, redirection: str) -> None:
    ended = shell(f"mover status {redirection}")
    assert (ended.returncode, ended.stdout, ended.stderr) == (12, "", "")
    assert shell(f"mover run show 4743 {redirection}").returncode == 5


def test_no_file_gets_the_number_of_a_closed_stream(shell: Shell, tmp_path: Path) -> None:
    program = "from mover.cli.streams import open_standard_streams as fill; fill(); file = open('n', 'w'); "
    shell(f'{sys.executable} -c "{program} file.write(str(file.fileno()))" <&- >&- 2>&-')
    assert (tmp_path / "n").read_text() == "3"


def test_what_the_terminal_cannot_show_is_shown_as_escapes(shell: Shell) -> None:
    made = shell("PYTHONIOENCODING=utf-8 mover catalogue backup $'b\\xff'")
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith("b\\udcff: ")


def test_the_command_is_called_by_its_name_however_it_was_started(shell: Shell) -> None:
    assert shell("mover nothing").stderr.startswith("Usage: mover ")
