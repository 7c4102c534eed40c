"""How many physics events the raw data of a run has: what its reconstruction is held against."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mover.bundle.bytestream import ByteStream
from mover.bundle.date import EVENT_TYPES, PHYSICS, DateFormatError, walk_stream
from mover.bundle.findings import Findings
from mover.bundle.untar import TarFormatError, members


@dataclass(frozen=True, slots=True)
class RawEvents:
    """The physics events of the parts up to where each can be read, and why it ends there if it does."""

    physics: int
    findings: tuple[str, ...]


def physics_events_planned(summary: object) -> int | None:
    """Their number by the summary in a bundle's plan (`BundlePlan.summary`); None if it says nothing of events."""
    events = summary.get("events") if isinstance(summary, dict) else None
    found = events.get(EVENT_TYPES[PHYSICS], 0) if isinstance(events, dict) else None
    # bool is an int too; a summary may have been read from a bundle that others stored.
    return found if type(found) is int and found >= 0 else None


def count_physics_events(chunks: Iterable[bytes], run: int, is_part: Callable[[str], bool]) -> RawEvents:
    """Count them in a raw bundle as it is streamed from where it is stored.

    What the chunks raise goes through.

    Args:
        is_part: whether the member of that name is a part of the run.
    """
    stream, findings, physics, parts = ByteStream(chunks), Findings(), 0, 0
    try:
        for header in members(stream):
            end = stream.offset + header.size_bytes
            if is_part(header.name):
                parts += 1
                try:
                    for event in walk_stream(stream, header.size_bytes, run):
                        physics += event.type == PHYSICS
                except DateFormatError as error:
                    findings.add(f"part {header.name}: {error}")
            for _ in stream.pieces(end - stream.offset):
                pass
    except TarFormatError as error:
        findings.add(str(error))
    if not parts:
        findings.add(f"has no part of run {run}")
    return RawEvents(physics, findings.texts())
