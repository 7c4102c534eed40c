"""Standard output that is full, or read no further: what the command says, and how it ends."""

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
