"""kill -9 at every boundary of every step: whatever was lost of the work, nothing is lost of the run."""

import itertools
import re
import signal
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.faults.evidence import assert_nothing_lost, assert_safe_everywhere
from tests.faults.rooms import Room, room_with_tape_double
from tests.integration.mover.box import Box

_AT_ONCE = 3
_ENDPOINT = re.compile(r"[\w-]*(?:tape|disk)\b")


def _boundaries(room: Room, scratch: Path) -> list[str]:
    """The boundaries of a run's whole way, found by going it once; none of what makes a room of its own is in them."""
    room.write_run()
    journal = scratch / "reference.journal"
    done = room.mortal_engine(journal)
    assert done.returncode == 0, done.stderr
    assert_safe_everywhere(room, scratch / "reference")
    return list(dict.fromkeys(journal.read_text(encoding="utf-8").splitlines()))


def _one_of_each_kind(boundaries: Iterable[str]) -> list[str]:
    """One boundary of each kind, at the endpoints by turns; what is before one thing is after another."""
    kinds: dict[str, list[str]] = {}
    for boundary in boundaries:
        if " before " not in boundary and boundary.endswith(" #1"):
            kinds.setdefault(_ENDPOINT.sub("", boundary), []).append(boundary)
    return [same[number % len(same)] for number, (_, same) in enumerate(sorted(kinds.items()))]


def _die_and_go_on(room: Room, scratch: Path, boundary: str) -> bool:
    """Kill the engine at the boundary, start another, and look at what came of it; whether the boundary was reached."""
    room.write_run()
    scratch.mkdir()
    died = room.mortal_engine(scratch / "first.journal", die=boundary)
    assert died.returncode in {0, -signal.SIGKILL}, f"{boundary}: {died.stderr}"
    assert_nothing_lost(room)
    second = room.mortal_engine(scratch / "second.journal")
    assert second.returncode == 0, f"{boundary}: {second.stderr}"
    assert_safe_everywhere(room, scratch / "unpacked")
    assert list(room.run_directory.iterdir()) == [], boundary
    return died.returncode == -signal.SIGKILL


def _die_at_each(boundaries: list[str], new_room: Callable[[], Room], scratch: Path) -> None:
    # The rooms are made here, one after the other: what makes them is not for several threads.
    tries = [(new_room(), scratch / str(number), re.escape(one)) for number, one in enumerate(boundaries)]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        reached = list(pool.map(lambda one: _die_and_go_on(*one), tries))
    missed = [boundary for boundary, hit in zip(boundaries, reached, strict=True) if not hit]
    for number, boundary in enumerate(missed):
        # Which lane is the first to do it is chance, and so is how often a tape is asked.
        anywhere = r"[\w-]*".join(re.escape(piece) for piece in _ENDPOINT.split(boundary))
        hit = _die_and_go_on(new_room(), scratch / f"missed-{number}", anywhere)
        assert hit or not boundary.endswith(" #1"), boundary
    print(f"died at {len(boundaries)} boundaries, {len(missed)} of them in a second try: {missed}")


def test_killed_at_each_kind_of_boundary_on_real_servers(box: Box, new_box: Callable[[], Box], tmp_path: Path) -> None:
    boundaries = _one_of_each_kind(_boundaries(Room(box), tmp_path))
    assert len(boundaries) > 15, boundaries
    _die_at_each(boundaries, lambda: Room(new_box()), tmp_path)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_killed_at_every_boundary_on_real_servers(box: Box, new_box: Callable[[], Box], tmp_path: Path) -> None:
    _die_at_each(_boundaries(Room(box), tmp_path), lambda: Room(new_box()), tmp_path)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_killed_at_every_boundary_on_disks(tmp_path: Path) -> None:
    boundaries = _boundaries(room_with_tape_double(tmp_path / "room-0"), tmp_path)
    assert len(boundaries) > 50, boundaries
    numbers = itertools.count(1)
    _die_at_each(boundaries, lambda: room_with_tape_double(tmp_path / f"room-{next(numbers)}"), tmp_path)
