"""Whether the audit log is what the agent wrote."""

from dataclasses import dataclass
from pathlib import Path

from proxyagent.audit.files import file_name, list_files, read_head
from proxyagent.audit.record import PRUNED, START, Head, Record, is_digest
from proxyagent.audit.walk import FileWalk
from proxyagent.errors import AuditError

_HINT = "somebody removed a part of the log; keep what is left as evidence"


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What was found to be in order."""

    records: int
    """How many there are now."""
    removed: int
    """How many were removed before them, as the configuration has it."""
    files: int
    head: Head | None
    """The last record; None if there is none yet."""
    torn_bytes: int
    """How much of a line stands incomplete at the end: a power cut did it, or the agent is writing it now."""


def verify_audit(directory: Path, *, head: tuple[int, str] | None = None) -> AuditReport:
    """See that no line of the log was changed, removed, inserted or moved, and that its end is there.

    The oldest files may be gone, if a record that is still there says that the agent removed them up to that place.

    The end is known from the head file, and from `head`, a sequence number and digest that the journal has of a record.
    Somebody who can write the directory can forge both log and head file, but not what the journal has.

    Raises:
        AuditError: the log is not what was written; the message names file and line.
    """
    known = _known_heads(directory, head)
    files = list_files(directory)
    if not files and not known:
        raise AuditError(f"there is no audit log in {directory}", hint="give the directory of the agent's log")
    walk = None
    base = last = _base(files)
    attested = {START}
    for first, path in files:
        _check_begin(first, path, walk, last)
        walk = FileWalk(path, first, last)
        for record in walk:
            _compare(record, walk, known)
            last = record.head
            if record.event == PRUNED:
                attested.add(_pruned(record))
    _check_end(last, walk, known)
    _check_base(base, attested, known, files)
    torn = walk.damage.bytes if walk is not None and walk.damage is not None else 0
    head = last if last.sequence else None
    return AuditReport(last.sequence - base.sequence, base.sequence, len(files), head, torn)


def _base(files: list[tuple[int, Path]]) -> Head:
    """What the first record says that it follows."""
    if not files or files[0][0] == 1:
        return START
    first, path = files[0]
    record = next(iter(FileWalk(path, first, None)), None)
    return Head(first - 1, record.previous) if record is not None else START


def _pruned(record: Record) -> Head:
    through, previous = record.fields.get("through"), record.fields.get("previous")
    return Head(through, previous) if isinstance(through, int) and isinstance(previous, str) else START


def _check_base(base: Head, attested: set[Head], known: dict[int, set[str]], files: list[tuple[int, Path]]) -> None:
    if base not in attested:
        raise _missing(1, files[0][1])
    oldest = min((number for number in known if number), default=base.sequence)
    if oldest < base.sequence or not known.get(base.sequence, {base.digest}) <= {base.digest}:
        raise AuditError(
            f"record {oldest} cannot be compared: all up to {base.sequence} were removed, as the configuration has it",
            hint="give a later --head from the journal",
        )


def _known_heads(directory: Path, given: tuple[int, str] | None) -> dict[int, set[str]]:
    known: dict[int, set[str]] = {}
    if given is not None:
        if given[0] < 0 or not is_digest(given[1]):
            raise AuditError(f"{given[1]!r} is not the digest of a record", hint="give it as the journal has it")
        known[given[0]] = {given[1]}
    # The file is read before the records, for the agent may be adding some.
    durable = read_head(directory)
    if durable is not None:
        known.setdefault(durable.sequence, set()).add(durable.digest)
    elif given is None and list_files(directory):
        raise AuditError("the head file is missing, so the log's end may be as well", hint="give the journal's --head")
    return known


def _check_begin(first: int, path: Path, before: FileWalk | None, last: Head) -> None:
    if before is not None and before.damage is not None:
        raise before.damage.error
    if first != last.sequence + 1:
        raise _missing(last.sequence + 1, path)


def _missing(first: int, path: Path) -> AuditError:
    return AuditError(
        f"{path.name}: {file_name(first)} should stand in its place: records are missing before it", hint=_HINT
    )


def _compare(record: Record, walk: FileWalk, known: dict[int, set[str]]) -> None:
    if not known.get(record.sequence, set()) <= {record.digest}:
        raise AuditError(
            f"{walk.path.name} line {walk.line}: record {record.sequence} is not the one that the agent made known",
            hint="somebody wrote the log anew; keep it as evidence",
        )


def _check_end(last: Head, walk: FileWalk | None, known: dict[int, set[str]]) -> None:
    damage = walk.damage if walk is not None else None
    if walk is not None and damage is not None and (damage.whole or damage.line != walk.line):
        raise damage.error
    newest = max(known, default=0)
    if last.sequence < newest:
        where = f"{walk.path.name} line {walk.line}" if walk is not None else "all files"
        raise AuditError(
            f"{where}: the log ends with record {last.sequence}, but record {newest} was written: its end was cut off",
            hint=_HINT,
        )
    if not known.get(0, set()) <= {START.digest}:
        raise AuditError("the head file was changed", hint=_HINT)
