"""Looking at a run's files: hostile names and kinds are refused, what is incomplete is said."""

import os
import re
import socket
from pathlib import Path

import pytest

from mover.bundle.plan import plan_bundle
from mover.bundle.scan import ScannedRun, scan
from mover.config import RunsConfig
from mover.errors import RunDirectoryError, RunIncompleteError, UnsafeNameError
from mover.sandbox.daq import DaqWriter, event

RUN = 4742


def _scan(directory: Path) -> ScannedRun:
    return scan(directory, RunsConfig(directory=directory).naming(), RUN, date_format=True)


@pytest.fixture
def daq(tmp_path: Path) -> Path:
    """A directory with a complete run of three parts, its marker, and other things that are not of the run."""
    writer = DaqWriter(tmp_path)
    writer.write_run(RUN, parts=3, part_bytes=20_000)
    writer.end_run(RUN)
    writer.write_run(RUN + 1, parts=1, part_bytes=5_000)
    (tmp_path / "lost+found").mkdir()
    return tmp_path


def test_a_complete_run_has_no_findings(daq: Path) -> None:
    scanned = _scan(daq)
    assert [part.name for part in scanned.parts] == ["04742.000", "04742.001", "04742.002"]
    assert scanned.findings == ()
    assert scanned.summary is not None
    assert scanned.summary.as_json()["events_total"] == scanned.summary.events.total() > 9


def _missing_part(daq: Path) -> None:
    (daq / "04742.001").unlink()


def _cut_short(daq: Path) -> None:
    os.truncate(daq / "04742.001", 10_000)


def _wrong_run(daq: Path) -> None:
    (daq / "04742.001").write_bytes(event(RUN + 1, 7, 0, 0))


def _no_start(daq: Path) -> None:
    (daq / "04742.000").write_bytes(event(RUN, 7, 0, 0))


def _no_end(daq: Path) -> None:
    (daq / "04742.002").write_bytes(event(RUN, 7, 0, 0))


def _one_end_only(daq: Path) -> None:
    (daq / "04742.002").write_bytes(event(RUN, 2, 1, 0))


def _empty(daq: Path) -> None:
    (daq / "04742.001").write_bytes(b"")


def _still_writing(daq: Path) -> None:
    (daq / "04742.003.tmp").touch()


def _absurd_part_number(daq: Path) -> None:
    (daq / "04742.999999999999").write_bytes(event(RUN, 7, 0, 0))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_missing_part, "part 04742.001 is missing"),
        (_cut_short, "part 04742.001: cut short"),
        (_wrong_run, "part 04742.001: event at byte 0 is of run 4743"),
        (_no_start, "no START_OF_RUN"),
        (_no_end, "no END_OF_RUN"),
        (_one_end_only, "2 START_OF_RUN events, but 1 END_OF_RUN"),
        (_empty, "part 04742.001 is empty"),
        (_still_writing, "04742.003.tmp is neither a part nor the marker"),
        (_absurd_part_number, "parts 04742.003 to 04742.999999999998 are missing"),
    ],
)
def test_an_incomplete_run_is_refused_with_the_reason_unless_forced(daq: Path, spoil: object, said: str) -> None:
    assert callable(spoil)
    spoil(daq)
    scanned = _scan(daq)
    with pytest.raises(RunIncompleteError, match=re.escape(said)):
        plan_bundle(scanned, experiment="MICE", lfn="a.tar", digests=("sha256",), force=False)
    forced = plan_bundle(scanned, experiment="MICE", lfn="a.tar", digests=("sha256",), force=True)
    assert any(said in finding for finding in forced.findings)


def test_a_run_without_parts_cannot_be_forced(tmp_path: Path) -> None:
    with pytest.raises(RunIncompleteError, match="has no part"):
        _scan(tmp_path)


def _symlink(daq: Path) -> None:
    (daq / "04742.003").symlink_to("/etc/passwd")


def _fifo(daq: Path) -> None:
    os.mkfifo(daq / "04742.003")


def _folder(daq: Path) -> None:
    (daq / "04742.003").mkdir()


def _socket(daq: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(daq / "04742.003"))


@pytest.mark.parametrize(
    ("spoil", "said"), [(_symlink, "symlink"), (_fifo, "FIFO"), (_folder, "folder"), (_socket, "socket")]
)
def test_only_plain_files_are_packaged(daq: Path, spoil: object, said: str) -> None:
    assert callable(spoil)
    spoil(daq)
    with pytest.raises(UnsafeNameError, match=f"04742.003 is a.* {said}"):
        _scan(daq)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a device")
def test_a_device_is_refused(daq: Path) -> None:
    os.mknod(daq / "04742.003", 0o020600, os.makedev(1, 3))
    with pytest.raises(UnsafeNameError, match="device"):
        _scan(daq)


@pytest.mark.parametrize("name", ["04742.00\n3", "04742.003\x1b[2J", "04742. 003", "04742.003\udcff"])
def test_names_with_control_bytes_are_refused(daq: Path, name: str) -> None:
    (daq / name).touch()
    with pytest.raises(UnsafeNameError):
        _scan(daq)


def test_dots_in_a_name_do_not_leave_the_directory(daq: Path) -> None:
    (daq / "04742...").touch()
    scanned = _scan(daq)
    assert scanned.findings == ("04742... is neither a part nor the marker (is the DAQ still writing?)",)


def test_a_directory_that_is_not_there_is_no_fault_of_the_run(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="cannot open the run directory"):
        _scan(tmp_path / "none")
