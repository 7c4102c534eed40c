"""The catalogue locked, read-only, damaged, deleted, or on a full disk: the mover stops; the local files stay."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.evidence import assert_nothing_lost, assert_safe_everywhere
from tests.faults.local_disks import fill, set_read_only, small_disk
from tests.faults.rooms import RUN, Room, disk_room
from tests.integration.mover.box import SECONDS, wait_for

_CATALOGUE_ERROR = 5

_HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    """A room with two disks."""
    room = disk_room(tmp_path / "room")
    yield room
    room.station.kill_engines()


@contextmanager
def _locked(catalogue: Path) -> Iterator[None]:
    """Another process is in a transaction for the whole block."""
    command = [sys.executable, "-c", _HOLD, str(catalogue)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        yield
        assert holder.stdin is not None
        holder.stdin.close()
        assert holder.wait(timeout=30) == 0


def _make_catalogue(room: Room) -> None:
    with room.station.catalogue():
        pass


def _assert_engine_gives_up(room: Room, said: str) -> None:
    """The engine ends by itself with the catalogue's exit code, and says why."""
    assert room.station.engines[-1].wait(timeout=SECONDS) == _CATALOGUE_ERROR, room.station.log
    assert said in room.station.log
    assert "hint: " in room.station.log
    assert "Traceback" not in room.station.log


def test_catalogue_that_is_locked_for_a_while_is_waited_for(room: Room, tmp_path: Path) -> None:
    _make_catalogue(room)
    room.write_run()
    with _locked(room.station.room.catalogue_path):
        engine = room.station.start_engine()
        wait_for(lambda: "engine started" in room.station.log, lambda: room.station.log)
        time.sleep(3)  # the lock is what is tested: any time well below the half minute that is waited for
        assert engine.poll() is None, room.station.log
        assert room.station.stored() == {"left": {}, "right": {}}
    room.wait_until_safe()
    assert_safe_everywhere(room, tmp_path / "unpacked")


def test_catalogue_that_is_locked_for_long_ends_the_engine(room: Room, tmp_path: Path) -> None:
    _make_catalogue(room)
    room.write_run()
    with _locked(room.station.room.catalogue_path):
        room.station.start_engine()
        _assert_engine_gives_up(room, "database is locked")
        assert_nothing_lost(room)
    room.station.start_engine()
    room.wait_until_safe()
    assert_safe_everywhere(room, tmp_path / "unpacked")


def _with_catalogue_on(room: Room, disk: Path) -> None:
    """Have the room's catalogue on that disk, under the name that the room knows too."""
    kept = disk / room.station.room.catalogue_path.name
    room.configure(f'catalogue = "{room.station.room.catalogue_path}"', f'catalogue = "{kept}"')
    room.station.room.catalogue_path.symlink_to(kept)


def test_catalogue_on_a_full_disk(room: Room, tmp_path: Path) -> None:
    room.write_run(end=False)
    with small_disk(tmp_path / "small", megabytes=1) as disk:
        _with_catalogue_on(room, disk)
        room.station.start_engine()
        wait_for(lambda: "engine started" in room.station.log, lambda: room.station.log)
        filler = fill(disk)
        room.station.room.daq.end_run(RUN)
        _assert_engine_gives_up(room, "full")
        assert_nothing_lost(room)
        filler.unlink()
        room.station.start_engine()
        room.wait_until_safe()
        assert_safe_everywhere(room, tmp_path / "unpacked")
        room.station.kill_engines()


def test_catalogue_that_is_read_only(room: Room, tmp_path: Path) -> None:
    room.write_run()
    with small_disk(tmp_path / "small", megabytes=4) as disk:
        _with_catalogue_on(room, disk)
        _make_catalogue(room)
        set_read_only(disk, read_only=True)
        room.station.start_engine()
        assert room.station.engines[-1].wait(timeout=SECONDS) == _CATALOGUE_ERROR, room.station.log
        assert_nothing_lost(room)
        set_read_only(disk, read_only=False)
        room.station.start_engine()
        room.wait_until_safe()
        assert_safe_everywhere(room, tmp_path / "unpacked")
        room.station.kill_engines()


def test_catalogue_with_damaged_pages_is_not_believed(room: Room, tmp_path: Path) -> None:
    room.write_run()
    catalogue, backup = room.station.room.catalogue_path, tmp_path / "backup.sqlite"
    with room.station.engine():
        room.wait_until_safe()
    assert room.station.mover("catalogue", "backup", str(backup)).returncode == 0
    whole = catalogue.read_bytes()
    catalogue.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    room.station.start_engine()
    _assert_engine_gives_up(room, "malformed")
    refused = room.station.mover("release", str(RUN), "--now")
    assert refused.returncode == _CATALOGUE_ERROR, refused.stderr
    assert_nothing_lost(room)
    # A person puts the backup in its place.
    for damaged in catalogue.parent.glob(f"{catalogue.name}*"):
        damaged.unlink()
    catalogue.write_bytes(backup.read_bytes())
    assert room.station.mover("release", str(RUN), "--now").returncode == 0
    assert_safe_everywhere(room, tmp_path / "unpacked")


def test_catalogue_that_is_deleted_is_made_again_from_what_is_stored(room: Room, tmp_path: Path) -> None:
    room.write_run()
    engine = room.station.start_engine()
    room.wait_until_safe()
    catalogue = room.station.room.catalogue_path
    for file in catalogue.parent.glob(f"{catalogue.name}*"):
        file.unlink()
    assert engine.wait(timeout=SECONDS) == _CATALOGUE_ERROR
    assert "was removed or replaced" in room.station.log
    refused = room.station.mover("release", str(RUN), "--now")
    assert refused.returncode == _CATALOGUE_ERROR, refused.stderr
    assert_nothing_lost(room)
    with room.station.engine():
        room.wait_until_safe()
    assert "found there and right" in room.station.mover("run", "show", str(RUN)).stdout
    assert_safe_everywhere(room, tmp_path / "unpacked")
