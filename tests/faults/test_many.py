"""Many runs at once, many files in a run, and odd names in the run directory."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mover.sandbox.daq import DaqWriter
from mover.states import RunState
from tests.faults.evidence import assert_record_is_whole, assert_safe_everywhere, assert_stored_once
from tests.faults.rooms import RUN, Room, disk_room
from tests.integration.mover.box import Box

_ODD_RUN = 4743


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    """A room with two disks."""
    room = disk_room(tmp_path / "room")
    yield room
    room.station.kill_engines()


def test_fifty_runs_at_once(box: Box, tmp_path: Path) -> None:
    room = Room(box)
    for name in ("ral-tape", "imperial-tape", "brunel-disk"):
        room.configure(f'name = "{name}"', f'name = "{name}"\nstreams = 3')
    runs = range(RUN, RUN + 50)
    for run in runs:
        room.write_run(run, parts=1, part_bytes=10_000, end=False)
    for run in runs:
        box.room.daq.end_run(run)
    with box.engine():
        room.wait_until_safe(*runs)
    bundles = {f"MICE/Step1/{run // 100 * 100:05d}/{run:05d}.tar": run for run in runs}
    assert_stored_once(room, tmp_path / "unpacked", bundles)
    for run in runs:
        assert_record_is_whole(room, run)


def test_two_thousand_small_files(box: Box, tmp_path: Path) -> None:
    room = Room(box)
    room.write_run(parts=2000, part_bytes=10_000)
    with box.engine():
        room.wait_until_safe()
    assert_safe_everywhere(room, tmp_path / "unpacked")
    assert box.mover("release", str(RUN), "--now").returncode == 0
    assert list(room.run_directory.iterdir()) == []


#: Names, and whether they could be meant as a file of the odd run: then that run waits for a person.
_ODD_NAMES = {
    "04743.000 (copy)": True,
    "04743.000\N{GREEK SMALL LETTER ALPHA}": True,
    "04743." + "9" * 200: True,
    "04743.001\nrm -rf": True,
    "notes of the shift.txt": False,
    "\N{SNOWMAN}" * 60: False,
    "x" * 200 + ".000": False,
}


@pytest.mark.parametrize(("name", "refused"), _ODD_NAMES.items(), ids=[ascii(name)[:24] for name in _ODD_NAMES])
def test_odd_names_harm_no_other_run(room: Room, name: str, refused: bool, tmp_path: Path) -> None:
    room.write_run(end=False)
    (room.run_directory / name).write_bytes(b"odd")
    others = DaqWriter(room.run_directory)
    others.write_run(_ODD_RUN, parts=1, part_bytes=10_000)
    others.end_run(_ODD_RUN)
    room.station.room.daq.end_run(RUN)
    with room.station.engine():
        room.wait_until_safe()
        if refused:
            room.wait_for_log(rf"run {_ODD_RUN}: needs a person: unsafe file name")
            assert room.station.state(_ODD_RUN) is RunState.QUARANTINED
            (room.run_directory / name).unlink()
            closed = room.station.mover("run", "close", str(_ODD_RUN))
            assert closed.returncode == 0, closed.stderr
        room.wait_until_safe(_ODD_RUN)
    bundles = {f"MICE/Step1/04700/{run:05d}.tar": run for run in (RUN, _ODD_RUN)}
    assert_stored_once(room, tmp_path / "unpacked", bundles)
