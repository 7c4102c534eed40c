"""The DATE walker: what is whole passes, everything else is named, and no bytes can make it crash or hang."""

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mover.bundle.date import DateFormatError, DateSummary, EventHeader, walk
from mover.sandbox.daq import DaqWriter, event


def _walk(data: bytes, run: int = 4742) -> list[EventHeader]:
    descriptor = os.memfd_create("date")
    try:
        os.write(descriptor, data)
        return list(walk(descriptor, len(data), run))
    finally:
        os.close(descriptor)


EVENTS = event(4742, 1, 1, 100) + event(4742, 7, 0, 102, b"x" * 400) + event(4742, 2, 1, 101)


def test_events_are_counted_and_timestamps_are_the_extremes() -> None:
    summary = DateSummary()
    for header in _walk(EVENTS):
        summary.add(header)
    assert summary.as_json() == {
        "events": {"START_OF_RUN": 1, "END_OF_RUN": 1, "PHYSICS": 1},
        "events_total": 3,
        "first_timestamp": 100,
        "last_timestamp": 102,
    }


@given(st.integers(1, len(EVENTS) - 1))
def test_a_file_cut_anywhere_but_between_events_is_cut_short(length: int) -> None:
    boundaries = {80, 80 + 480}
    if length in boundaries:
        assert _walk(EVENTS[:length])
    else:
        with pytest.raises(DateFormatError, match="cut short"):
            _walk(EVENTS[:length])


@given(st.binary(max_size=2000))
def test_foreign_bytes_end_in_an_error_or_in_events_that_fill_them(data: bytes) -> None:
    try:
        headers = _walk(data)
    except DateFormatError:
        return
    assert sum(header.size_bytes for header in headers) == len(data)


@given(st.integers(0, 5), st.binary(min_size=4, max_size=4))
def test_a_header_with_any_word_changed_never_loops_forever(word: int, value: bytes) -> None:
    data = bytearray(EVENTS)
    data[4 * word : 4 * word + 4] = value
    with contextlib.suppress(DateFormatError):
        assert len(_walk(bytes(data))) <= len(data) // 80


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (event(4743, 1, 1, 0), "of run 4743, not of run 4742"),
        (b"\0" * 80, "magic is 0x00000000"),
        (EVENTS[:4] + bytes.fromhex("da1e5afe") + EVENTS[8:], "byte order"),
        (b"\0\0\0\0" + EVENTS[4:], "impossible"),
    ],
)
def test_what_is_wrong_is_named(data: bytes, said: str) -> None:
    with pytest.raises(DateFormatError, match=said):
        _walk(data)


def test_the_generator_writes_runs_that_walk(tmp_path: Path) -> None:
    kinds: list[int] = []
    for path in DaqWriter(tmp_path).write_run(17, parts=3, part_bytes=50_000):
        with path.open("rb") as file:
            kinds += [header.type for header in walk(file.fileno(), path.stat().st_size, 17)]
    assert kinds[:2] == [1, 1]
    assert kinds[-2:] == [2, 2]
    assert kinds.count(7) >= 3
