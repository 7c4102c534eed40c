"""Physics events are counted in raw bundles as they are stored."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mover.bundle.date import DateSummary, walk
from mover.naming import RunNaming, Template
from mover.reco.events import count_physics_events, physics_events_planned
from mover.sandbox.daq import DaqWriter, event
from tests.real_data import real_file
from tests.unit.mover.reco.outputs import tar

NAMING = RunNaming(
    Template.parse("{run:05d}.{part:03d}", required={"run", "part"}), Template.parse("{run:05d}.end", required={"run"})
)


def _is_part(run: int, name: str) -> bool:
    return NAMING.part_number(run, name) is not None


def _count(stored: bytes, run: int = 4742, chunk_bytes: int = 1000) -> tuple[int, tuple[str, ...]]:
    chunks = (stored[at : at + chunk_bytes] for at in range(0, len(stored), chunk_bytes))
    found = count_physics_events(chunks, run, lambda name: _is_part(run, name))
    return found.physics, found.findings


def test_the_real_file_has_six() -> None:
    stored = tar(("06008.000", real_file("06008.000").read_bytes()), ("06008.md5", b"no DATE"))
    assert _count(stored, 6008, 100_000) == (6, ())


def test_a_stored_bundle_says_what_was_planned(tmp_path: Path) -> None:
    summary = DateSummary()
    files = DaqWriter(tmp_path).write_run(4742, parts=3, part_bytes=40_000)
    for file in files:
        with file.open("rb") as opened:
            for header in walk(opened.fileno(), file.stat().st_size, 4742):
                summary.add(header)
    planned = physics_events_planned(summary.as_json())
    assert planned
    stored = tar(*((file.name, file.read_bytes()) for file in files), ("manifest.json", b"{}"))
    for chunk_bytes in (7, 1 << 20):
        assert _count(stored, chunk_bytes=chunk_bytes) == (planned, ())


@pytest.mark.parametrize("summary", [None, {}, [], {"events": 3}, {"events": {"PHYSICS": "3"}}, {"events": None}])
def test_a_summary_without_events_says_nothing(summary: object) -> None:
    assert physics_events_planned(summary) is None


def test_a_run_without_physics_events_has_none() -> None:
    assert physics_events_planned({"events": {"START_OF_RUN": 2}}) == 0


def test_what_can_be_read_is_counted_and_the_rest_is_said() -> None:
    good = event(4742, 7, 1, 1, b"1234")
    stored = tar(("04742.000", good + good[:-1]), ("04742.001", good), ("04742.002", event(4743, 7, 1, 1)))
    physics, findings = _count(stored)
    assert physics == 2
    assert findings == (
        "part 04742.000: cut short: the event at byte 84 has 84 bytes, but the file ends after 83 of them",
        "part 04742.002: event at byte 0 is of run 4743, not of run 4742",
    )


def test_a_bundle_without_parts_says_so() -> None:
    assert _count(tar(("other", b""))) == (0, ("has no part of run 4742",))
    assert _count(b"")[1] == ("ends after 0 bytes, without an end of archive", "has no part of run 4742")


@given(st.integers(0, 2000), st.binary(min_size=1, max_size=40))
def test_foreign_bytes_raise_nothing(at: int, change: bytes) -> None:
    good = event(4742, 7, 1, 1, b"1234")
    stored = tar(("04742.000", good * 3), ("04742.001", good))
    foreign = stored[: at % len(stored)] + change + stored[at % len(stored) + len(change) :]
    physics, findings = _count(foreign)
    assert 0 <= physics <= 4
    assert all(one.isprintable() for one in findings)
