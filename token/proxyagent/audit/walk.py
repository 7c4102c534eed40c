"""Reading one file of the audit log, record by record."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from proxyagent.audit.files import KEEP_HINT, open_regular
from proxyagent.audit.record import BROKEN, MAX_LINE_BYTES, TORN, Head, Record, decode
from proxyagent.errors import AuditError


class Damage:
    """Bytes that are no records in their place, up to the file's end or to a record that accounts for them."""

    def __init__(self, path: Path, line: int, reason: str) -> None:
        self.line = line
        self.bytes = 0
        self.whole = True
        self._where = f"{path.name} line {line}"
        self._reason = reason
        self._digest = hashlib.sha256()

    def add(self, data: bytes) -> None:
        """Count these bytes in."""
        self.bytes += len(data)
        self.whole = data.endswith(b"\n")  # whether the last line is complete
        self._digest.update(data)

    @property
    def sha256(self) -> str:
        """The digest of all of it."""
        return self._digest.hexdigest()

    @property
    def error(self) -> AuditError:
        """What to say if nothing explains it."""
        return AuditError(
            f"{self._where}: {self._reason}",
            hint="if the power failed, start the agent, which notes what was torn; otherwise somebody changed the log",
        )


class FileWalk:
    """Reads one file; iterating gives its records, each of which was seen to follow the one before.

    What does not is skipped, and left in `damage` unless a record behind it says that a power cut did it.
    """

    def __init__(self, path: Path, first: int, previous: Head | None) -> None:
        """With None as `previous`, what the first record says of its predecessor is believed."""
        self.path = path
        self.line = 0
        self.head = previous
        self.damage: Damage | None = None
        self._first = first

    def __iter__(self) -> Iterator[Record]:
        """Raises AuditError if the file cannot be read."""
        with open_regular(self.path) as file:
            # What is added meanwhile might be the rest of a line of which we saw the beginning.
            left_bytes = os.fstat(file.fileno()).st_size
            begins = True
            try:
                while data := file.readline(min(MAX_LINE_BYTES, left_bytes)):
                    left_bytes -= len(data)
                    self.line += begins
                    record = self._judge(data, begins=begins)
                    if record is not None:
                        yield record
                    begins = data.endswith(b"\n")
            except OSError as error:
                raise AuditError(f"cannot read {self.path.name}: {error.strerror}", hint=KEEP_HINT) from error

    def _judge(self, data: bytes, *, begins: bool) -> Record | None:
        try:
            if not begins:
                raise ValueError("the line is too long")
            record = decode(data)
            self._check_place(record)
        except ValueError as error:
            if self.damage is None:
                self.damage = Damage(self.path, self.line, str(error))
            self.damage.add(data)
            return None
        self.damage = None
        self.head = record.head
        return record

    def _check_place(self, record: Record) -> None:
        previous = self.head or Head(self._first - 1, record.previous)
        if record.event == BROKEN and record.previous != previous.digest:
            raise ValueError(f"the agent began anew here: {str(record.fields.get('reason'))[:256]!r}")
        if record.sequence != previous.sequence + 1:
            raise ValueError(
                f"record {record.sequence} stands where record {previous.sequence + 1} belongs: "
                "lines were removed, inserted or moved"
            )
        if record.previous != previous.digest:
            raise ValueError("the record does not follow from the one before, which was changed")
        damage = self.damage
        if damage is not None and (
            record.event != TORN
            or record.fields.get("bytes") != damage.bytes
            or record.fields.get("sha256") != damage.sha256
        ):
            raise ValueError("the record stands behind a damage that it does not explain")
