"""The run's files change after they were bundled, their disk is full, the clock is put back."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mover.config import load_config
from mover.engine import Engine
from mover.wiring import endpoint_factory
from tests.faults.evidence import assert_nothing_lost, assert_safe_everywhere
from tests.faults.local_disks import fill, small_disk
from tests.faults.rooms import RUN, Room, disk_room
from tests.integration.mover.box import SECONDS, wait_for


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    """A room with two disks."""
    room = disk_room(tmp_path / "room")
    yield room
    room.station.kill_engines()


@contextmanager
def _right_disk_absent(room: Room) -> Iterator[None]:
    right = room.station.room.directory / "right"
    right.rename(right.with_name("unmounted"))
    try:
        yield
    finally:
        right.with_name("unmounted").rename(right)


def _flip_a_byte(path: Path) -> None:
    """Change a byte and keep the time of the last change."""
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_part_that_changes_between_two_readings_is_not_stored(room: Room, tmp_path: Path) -> None:
    room.write_run()
    part = room.run_directory / f"{RUN:05d}.000"
    with room.station.engine():
        with _right_disk_absent(room):
            wait_for(lambda: "left: verified" in room.station.mover("status").stdout, lambda: room.station.log)
            _flip_a_byte(part)
        room.wait_for_log(r"ERROR run 4742 at right: quarantined: part 04742.000 has other bytes")
        wait_for(lambda: room.station.stored()["right"] == {}, lambda: room.station.log)
        assert room.station.mover("release", str(RUN), "--now").returncode == 9
        # A person restores the part.
        _flip_a_byte(part)
        assert room.station.mover("run", "retry", str(RUN)).returncode == 0
        room.wait_until_safe()
    assert_safe_everywhere(room, tmp_path / "unpacked")


def test_part_that_changes_after_the_run_is_safe_is_not_removed(room: Room, tmp_path: Path) -> None:
    room.write_run()
    with room.station.engine():
        room.wait_until_safe()
    part = room.run_directory / f"{RUN:05d}.001"
    before = part.stat()
    with part.open("ab") as file:
        file.write(b"more")
    refused = room.station.mover("release", str(RUN), "--now")
    assert refused.returncode == 4
    assert part.name in refused.stderr
    assert len(list(room.run_directory.iterdir())) == 3
    os.truncate(part, before.st_size)
    os.utime(part, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert_nothing_lost(room)
    assert room.station.mover("release", str(RUN), "--now").returncode == 0
    assert_safe_everywhere(room, tmp_path / "unpacked")


def test_full_disk_under_the_run_directory_is_emptied(room: Room, tmp_path: Path) -> None:
    with small_disk(room.run_directory, megabytes=8) as disk:
        room.write_run()
        filler = fill(disk)
        with room.station.engine():
            room.wait_until_safe()
        assert room.station.mover("release", str(RUN), "--now").returncode == 0
        assert list(disk.iterdir()) == [filler]
    assert_safe_everywhere(room, tmp_path / "unpacked")


class SteppedClock:
    """A double of the machine's clock that somebody may put back."""

    def __init__(self) -> None:
        self.step = timedelta(0)

    def now(self) -> datetime:
        """The time, and the step."""
        return datetime.now(UTC) + self.step


@pytest.mark.parametrize("hours", [-1, 1])
def test_clock_that_is_put_back_or_forward_delays_nothing(room: Room, hours: int, tmp_path: Path) -> None:
    clock, config = SteppedClock(), load_config(room.station.room.config_path)
    engine = Engine(config, endpoint_factory(config), clock)
    worker = threading.Thread(target=engine.run, name="engine")
    worker.start()
    try:
        with _right_disk_absent(room):
            room.write_run()
            wait_for(lambda: "right: " in room.station.mover("status").stdout, lambda: "no failure")
            clock.step = timedelta(hours=hours)
        wait_for(lambda: "safe" in room.station.mover("status").stdout, lambda: room.station.mover("status").stdout)
        room.wait_until_safe()
    finally:
        engine.stop()
        worker.join(timeout=SECONDS)
    assert not worker.is_alive()
    assert_safe_everywhere(room, tmp_path / "unpacked")
