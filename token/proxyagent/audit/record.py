"""One line of the audit log: canonical JSON, ending in its own digest and containing that of the line before."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

Value = str | int | bool | None

#: The agent's own events; no others begin with "log-".
TORN = "log-torn"  # what a power cut left of unsynced lines ends here: its length and digest
BROKEN = "log-broken"  # the chain could not be continued and begins anew
LOST = "log-lost"  # so many records could not be written
PRUNED = "log-pruned"  # all up to this record, of this digest, were removed, as the configuration has it
LIMITED = "log-limited"  # so many records of one kind and user were only counted

VERSION = 1
MAX_LINE_BYTES = 64 * 1024
_MAX_FIELDS = 16
_MAX_TEXT_CHARACTERS = 256
_MAX_INT = 2**63
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_LINE = re.compile(rb'(\{.*),"digest":"([0-9a-f]{64})"\}\n', re.DOTALL)
_DIGEST = re.compile(r"[0-9a-f]{64}")
_KEYS = {"event", "fields", "previous", "sequence", "time", "version"}


class Head(NamedTuple):
    """A record's place in the chain: as the last one known it stands for all before it."""

    sequence: int
    digest: str


START = Head(0, "0" * 64)
"""What the first record follows."""


@dataclass(frozen=True, slots=True)
class Record:
    """A record as it was read."""

    sequence: int
    time: str
    event: str
    fields: Mapping[str, Value]
    previous: str
    digest: str

    @property
    def head(self) -> Head:
        """Its place in the chain."""
        return Head(self.sequence, self.digest)


def is_digest(text: object) -> bool:
    """Whether this is a SHA-256 digest in lower-case hexadecimal."""
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None


def check_entry(event: str, fields: Mapping[str, Value]) -> dict[str, Value]:
    """The fields as they can be recorded: long texts, which may be foreign, are cut.

    Raises:
        ValueError, TypeError: the event or a field is none that can be: a mistake of the caller's.
    """
    if not _NAME.fullmatch(event) or len(fields) > _MAX_FIELDS or not all(map(_NAME.fullmatch, fields)):
        raise ValueError(f"not an audit event: {event!r} with {len(fields)} fields")
    return {name: _bounded(name, value) for name, value in fields.items()}


def encode(previous: Head, time: datetime, event: str, fields: Mapping[str, Value]) -> tuple[bytes, Head]:
    """The line that follows `previous`, and its place in the chain."""
    body = _canonical(
        {
            "version": VERSION,
            "sequence": previous.sequence + 1,
            "time": time.astimezone(UTC).isoformat(timespec="microseconds"),
            "event": event,
            "fields": fields,
            "previous": previous.digest,
        }
    )
    digest = hashlib.sha256(body).hexdigest()
    return body[:-1] + f',"digest":"{digest}"}}\n'.encode(), Head(previous.sequence + 1, digest)


def decode(line: bytes) -> Record:
    """The record in a line, which ends in a line feed.

    Raises:
        ValueError: it is not as it was written; the text says why.
    """
    if not line.endswith(b"\n"):
        raise ValueError("the line is incomplete or too long")
    match = _LINE.fullmatch(line)
    if match is None:
        raise ValueError("this is no record")
    body, digest = match[1] + b"}", match[2].decode()
    if hashlib.sha256(body).hexdigest() != digest:
        raise ValueError("the record was changed")
    try:
        values: dict[str, object] = json.loads(body)
        if values["version"] != VERSION:
            raise ValueError("the record is of another version of the agent")
        # Whoever forges a record can compute its digest. It must still be one that we could have written.
        if _canonical(values) != body or values.keys() != _KEYS:
            raise ValueError("the record is not one of the agent's")
    except (TypeError, KeyError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError("the record is not one of the agent's") from error
    return _typed(values, digest)


def _typed(values: dict[str, object], digest: str) -> Record:
    sequence, time, event = values["sequence"], values["time"], values["event"]
    fields, previous = values["fields"], values["previous"]
    if (
        not isinstance(sequence, int)
        or isinstance(sequence, bool)
        or not 0 < sequence < _MAX_INT
        or not isinstance(time, str)
        or not isinstance(event, str)
        or not isinstance(fields, dict)
        or not isinstance(previous, str)
        or not is_digest(previous)
    ):
        raise ValueError("the record is not one of the agent's")
    return Record(sequence, time, event, fields, previous, digest)


def _canonical(values: object) -> bytes:
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def _bounded(name: str, value: Value) -> Value:
    if isinstance(value, str):
        return value if len(value) <= _MAX_TEXT_CHARACTERS else value[: _MAX_TEXT_CHARACTERS - 1] + "…"
    if value is None or (isinstance(value, int) and abs(value) < _MAX_INT):
        return value
    raise TypeError(f"the audit log takes no {type(value).__name__} as {name!r}")
