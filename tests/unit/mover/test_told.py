"""Ends of runs that are told by files in a directory: what is a run's name, and that nothing else is ever removed."""

import os
from pathlib import Path

import pytest

from mover.errors import RunDirectoryError
from mover.naming import LARGEST_RUN
from mover.steps.told import ToldRuns


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    directory = tmp_path / "ended"
    directory.mkdir()
    return directory


@pytest.fixture
def told(directory: Path, tmp_path: Path) -> ToldRuns:
    return ToldRuns(directory, tmp_path)


def test_runs_are_told_by_name_and_forgotten_when_recorded(told: ToldRuns, directory: Path) -> None:
    for name in ("4743", "04742", "4742", ".hidden", "readme"):
        (directory / name).touch()
    os.utime(directory / "4742", ns=(7, 7))
    runs = told.runs()
    assert list(runs) == [4742, 4743]
    assert runs[4742] == (directory / "04742").stat().st_mtime_ns
    told.forget(4742, runs[4742])
    assert sorted(path.name for path in directory.iterdir()) == [".hidden", "4743", "readme"]


def test_a_run_that_is_told_again_meanwhile_is_kept(told: ToldRuns, directory: Path) -> None:
    (directory / "4742").touch()
    runs = told.runs()
    os.utime(directory / "4742", ns=(runs[4742] + 1, runs[4742] + 1))
    told.forget(4742, runs[4742])
    assert list(told.runs()) == [4742]


def test_what_only_looks_like_a_run_is_renamed_and_never_removed(
    told: ToldRuns, directory: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (directory / "12x\n").write_text("mine")
    (directory / "13").mkdir()
    (directory / "14").symlink_to(tmp_path / "15")
    (directory / "15").write_bytes(b"x" * 5000)
    (directory / str(LARGEST_RUN + 1)).touch()
    (directory / ("9" * 200)).touch()
    (directory / "16").write_text("a line does no harm\n")
    assert list(told.runs()) == [16]
    assert len(list(directory.iterdir())) == 7
    assert len([path for path in directory.iterdir() if path.name.startswith(".refused-")]) == 6
    assert caplog.text.count("no empty file named after a run") == 6
    assert list(told.runs()) == [16]


def test_the_run_directory_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "04742.000").touch()
    with pytest.raises(RunDirectoryError, match="is where the runs themselves are"):
        ToldRuns(tmp_path / ".." / tmp_path.name, tmp_path)
    assert (tmp_path / "04742.000").exists()


def test_a_directory_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match=r"cannot use .*none: No such file") as caught:
        ToldRuns(tmp_path / "none", tmp_path)
    assert "docs/integration.md" in caught.value.hint
