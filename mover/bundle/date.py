"""DATE, the raw format of ALICE's and MICE's DAQ: walk a file's event headers and say what is in it.

Of a file only headers are read (80 bytes an event), so that the data itself is read once, when it is streamed.
"""

import os
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from mover.bundle.bytestream import ByteStream

MAGIC = 0xDA1E5AFE
MAGIC_SWAPPED = 0xFE5A1EDA
HEADER_BYTES = 80

START_OF_RUN, END_OF_RUN, PHYSICS = 1, 2, 7
EVENT_TYPES = {
    START_OF_RUN: "START_OF_RUN",
    END_OF_RUN: "END_OF_RUN",
    3: "START_OF_RUN_FILES",
    4: "END_OF_RUN_FILES",
    5: "START_OF_BURST",
    6: "END_OF_BURST",
    PHYSICS: "PHYSICS",
    8: "CALIBRATION",
    9: "EVENT_FORMAT_ERROR",
    10: "START_OF_DATA",
    11: "END_OF_DATA",
    12: "SYSTEM_SOFTWARE_TRIGGER",
    13: "DETECTOR_SOFTWARE_TRIGGER",
}

UNKNOWN_TYPE = 0

# 32-bit little-endian words 0-5 (size, magic, header size, version, type, run) and 18 (seconds since 1970).
_HEADER = struct.Struct("<6I48xI4x")


class DateFormatError(Exception):
    """The file is not a whole number of DATE events; the text says where and why."""


@dataclass(frozen=True, slots=True)
class EventHeader:
    """The fields of an event header that the mover looks at. `timestamp` is in seconds since 1970 (UTC)."""

    size_bytes: int
    type: int
    run: int
    timestamp: int


@dataclass(slots=True)
class DateSummary:
    """What the events of a run amount to: number by type, first and last timestamp."""

    events: Counter[int] = field(default_factory=Counter)
    first_timestamp: int | None = None
    last_timestamp: int | None = None

    def add(self, header: EventHeader) -> None:
        """Count one event; types that DATE does not have count together, so that no file can make this large."""
        self.events[header.type if header.type in EVENT_TYPES else UNKNOWN_TYPE] += 1
        stamp = header.timestamp
        self.first_timestamp = stamp if self.first_timestamp is None else min(self.first_timestamp, stamp)
        self.last_timestamp = stamp if self.last_timestamp is None else max(self.last_timestamp, stamp)

    def as_json(self) -> dict[str, object]:
        """For the manifest: events by type name, their total, first and last timestamp."""
        named = {EVENT_TYPES.get(kind, "UNKNOWN"): count for kind, count in sorted(self.events.items())}
        return {
            "events": named,
            "events_total": self.events.total(),
            "first_timestamp": self.first_timestamp,
            "last_timestamp": self.last_timestamp,
        }


def walk(descriptor: int, size_bytes: int, run: int) -> Iterator[EventHeader]:
    """Yield the header of each event of an open file, which must close exactly at `size_bytes` and be of `run`.

    Raises:
        DateFormatError: it does not, or a header is not one.
    """
    offset = 0
    while offset < size_bytes:
        header = _checked(os.pread(descriptor, HEADER_BYTES, offset), offset, size_bytes, run)
        yield header
        offset += header.size_bytes


def walk_stream(stream: ByteStream, size_bytes: int, run: int) -> Iterator[EventHeader]:
    """As `walk`, of the next `size_bytes` of a stream; all of them are taken unless it raises.

    Raises:
        DateFormatError: as `walk`, or the stream ends too early.
    """
    offset = 0
    while offset < size_bytes:
        raw = stream.take(min(HEADER_BYTES, size_bytes - offset))
        header = _checked(raw, offset, size_bytes, run)
        left = header.size_bytes - len(raw)
        for piece in stream.pieces(left):
            left -= len(piece)
        if left:
            raise DateFormatError(f"cut short: nothing follows in the event at byte {offset}")
        yield header
        offset += header.size_bytes


def _checked(raw: bytes, offset: int, size_bytes: int, run: int) -> EventHeader:
    header = _parse(raw, offset)
    if header.run != run:
        raise DateFormatError(f"event at byte {offset} is of run {header.run}, not of run {run}")
    if offset + header.size_bytes > size_bytes:
        raise DateFormatError(
            f"cut short: the event at byte {offset} has {header.size_bytes} bytes, "
            f"but the file ends after {size_bytes - offset} of them"
        )
    return header


def _parse(raw: bytes, offset: int) -> EventHeader:
    if len(raw) < HEADER_BYTES:
        raise DateFormatError(f"cut short: {len(raw)} bytes at byte {offset} are less than an event header")
    size, magic, header_bytes, _version, kind, run, timestamp = _HEADER.unpack(raw)
    if magic == MAGIC_SWAPPED:
        raise DateFormatError(f"event at byte {offset} is of the other byte order (big-endian)")
    if magic != MAGIC:
        raise DateFormatError(f"no event at byte {offset}: its magic is {magic:#010x}, not {MAGIC:#010x}")
    if header_bytes < HEADER_BYTES or size < header_bytes:
        raise DateFormatError(f"event at byte {offset} says size {size} and header size {header_bytes}: impossible")
    return EventHeader(size, kind, run, timestamp)
