"""Appending to the audit log: continuing the chain whatever the last end was, and making it durable."""

import fcntl
import itertools
import logging
import os
import stat
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

from proxyagent.audit.files import file_name, list_files, read_head, write_head
from proxyagent.audit.record import BROKEN, PRUNED, START, TORN, Head, Value, encode
from proxyagent.audit.walk import Damage, FileWalk
from proxyagent.errors import AuditError

_log = logging.getLogger(__name__)
_NEW_NAME = "audit.new"
_MAX_REASON_CHARACTERS = 512
_LOOK_HINT = "run `proxyagent audit verify`"
_SPACE_HINT = "free some space on the disk of the agent's state directory, or mend that disk"


class ChainWriter:
    """The files and the end of the chain. Its user sees to it that no two threads write at once.

    A log that cannot be continued, since it was changed or its end is missing, stays as it is, and a new chain begins
    in another file with a record that says why. `verify_audit` stops there until somebody moves the log away.
    """

    def __init__(self, directory: Path, now: Callable[[], datetime]) -> None:
        """Take the directory for us alone, and make it if need be.

        Raises:
            AuditError: it cannot be used, others can write it, or another agent does.
        """
        self.head = START
        self.broken: str | None = None
        """Why the chain began anew, if it did."""
        self.is_open = False
        self._path = directory
        self._now = now
        self._file = -1
        self._size_bytes = 0
        self._closed_because = "the audit log is closed"
        self._sync_error: str | None = None
        self._directory = _take_directory(directory)

    @property
    def size_bytes(self) -> int:
        """The size of the file that is written."""
        return self._size_bytes

    def open(self) -> None:
        """Continue the chain from the last good record.

        Raises:
            AuditError: nothing can be written now.
        """
        self._close_file()
        try:
            try:
                self._continue()
            except AuditError as error:
                self._begin_anew(error.message)
        except OSError as error:
            self._close_file()
            raise self._failed(error) from error
        self.is_open = True

    def append(self, event: str, fields: Mapping[str, Value]) -> None:
        """Write one record; it survives the end of this process, and a power cut after `sync`.

        Raises:
            AuditError: it was not written.
        """
        if not self.is_open:
            raise AuditError(self._closed_because, hint=_SPACE_HINT)
        line, head = encode(self.head, self._now(), event, fields)
        try:
            self._write(line)
        except OSError as error:
            raise self._failed(error) from error
        self.head = head

    def sync(self, head: Head) -> None:
        """Bring all up to the record `head` to the disk, and then that fact. May be called while others append.

        Raises:
            AuditError: it may not be on the disk.
        """
        if self._sync_error is None:
            try:
                os.fdatasync(self._file)
            except OSError as error:
                # The kernel forgets what it could not write, and says so once: no later success would mean anything.
                self._sync_error = str(error.strerror)
        if self._sync_error is not None:
            raise AuditError(
                f"the disk did not take the audit log: {self._sync_error}", hint="mend it and restart the agent"
            )
        try:
            write_head(self._directory, head)
        except OSError as error:
            raise AuditError(f"cannot write the audit log's head: {error.strerror}", hint=_SPACE_HINT) from error

    def rotate(self) -> Head:
        """Go on in a new file, and return what is durable now: a file's end is on the disk before the next begins.

        Raises:
            AuditError: the old file stays in use.
        """
        self.sync(self.head)
        try:
            self._create(self.head.sequence + 1)
        except OSError as error:
            raise AuditError(f"cannot begin a new audit file: {error.strerror}", hint=_SPACE_HINT) from error
        return self.head

    def prune(self, max_bytes: int) -> Head:
        """Remove the oldest files while all together are longer than this, and return what is durable now.

        Each removal is on record, durably, before it is done, so that `verify_audit` can tell it from anybody else's.
        Nothing goes while the log is broken: it is evidence then.

        Raises:
            AuditError: a file could not be removed, or its removal not be recorded.
        """
        try:
            files = [(first, path, path.stat().st_size) for first, path in list_files(self._path)]
            total_bytes = sum(size for _, _, size in files)
            for (_, oldest, size), (first, path, _) in itertools.pairwise(files):
                if total_bytes <= max_bytes or self.broken is not None:
                    break
                record = next(iter(FileWalk(path, first, None)), None)
                digest = record.previous if record is not None else self.head.digest
                self.append(PRUNED, {"through": first - 1, "previous": digest})
                self.sync(self.head)
                oldest.unlink()
                os.fsync(self._directory)
                total_bytes -= size
        except OSError as error:
            raise AuditError(f"cannot remove old audit files: {error.strerror}", hint=_SPACE_HINT) from error
        return self.head

    def close(self) -> None:
        """Give the directory back."""
        self._close_file()
        self._closed_because = "the audit log is closed"
        os.close(self._directory)

    def _failed(self, error: OSError) -> AuditError:
        self._closed_because = f"cannot write the audit log: {error.strerror}"  # unless it still is open
        return AuditError(self._closed_because, hint=_SPACE_HINT)

    def _continue(self) -> None:
        durable = read_head(self._path)
        files = list_files(self._path)
        if not files and (durable is None or durable == START):
            self.head = START
            write_head(self._directory, START)  # from now on a missing head file means something
            self._create(1)
            return
        if not files or durable is None:
            what = "all files are missing" if durable else "the head file is missing"
            raise AuditError(f"{what}, and records may be as well", hint=_LOOK_HINT)
        first, path = files[-1]
        if durable.sequence < first - 1:
            raise AuditError(f"the head file is older than {path.name}", hint=_LOOK_HINT)
        self.broken = _why_anew(path, first)
        anchored = durable.sequence == first - 1 and self.broken is None
        walk = FileWalk(path, first, durable if anchored else None)
        _read_end(walk, durable)
        self.head = walk.head or durable
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._size_bytes = os.fstat(self._file).st_size
        if walk.damage is not None:
            self._close_off(walk.damage)

    def _close_off(self, damage: Damage) -> None:
        _log.warning("a power cut tore %d bytes of the audit log that were not on the disk yet", damage.bytes)
        lost_bytes = damage.bytes
        # A record that lacks no more than its line feed must not become one after its number was given again.
        ending = b"" if damage.whole else b"~\n"
        damage.add(ending)
        fields: dict[str, Value] = {"bytes": damage.bytes, "sha256": damage.sha256, "torn_bytes": lost_bytes}
        line, head = encode(self.head, self._now(), TORN, fields)
        self._write(ending + line)
        self.head = head

    def _begin_anew(self, reason: str) -> None:
        self._close_file()
        fields: dict[str, Value] = {"reason": reason[:_MAX_REASON_CHARACTERS]}
        known = 0
        try:
            durable = read_head(self._path)
        except AuditError:
            durable = None  # that is the reason
        if durable is not None:
            known = durable.sequence
            fields |= {"head_sequence": durable.sequence, "head_digest": durable.digest}
        # No number is given twice: as many records as the last file may have had are left out.
        for _, path in list_files(self._path)[-1:]:
            known = max(known, self._last_number(path))
        line, head = encode(Head(known, START.digest), self._now(), BROKEN, fields)
        self._create(known + 1, line)
        self.head = head
        self.broken = reason
        _log.error("the audit log was changed: %s; it goes on in %s", reason, file_name(known + 1))

    def _last_number(self, path: Path) -> int:
        first = int(path.stem.rpartition("-")[2])
        walk = FileWalk(path, first, None)
        try:
            for _ in walk:
                pass
        except AuditError:
            return first  # unreadable: that is the reason
        return max(first, walk.head.sequence if walk.head else 0)

    def _create(self, first: int, content: bytes = b"") -> None:
        """Begin a file, which appears with this content or not at all."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(_NEW_NAME, flags, 0o600, dir_fd=self._directory)
        try:
            _write_all(file, content)
            os.fsync(file)
            os.link(_NEW_NAME, file_name(first), src_dir_fd=self._directory, dst_dir_fd=self._directory)
            os.unlink(_NEW_NAME, dir_fd=self._directory)
            os.fsync(self._directory)
        except OSError:
            os.close(file)
            raise
        self._close_file()
        self._file = file
        self._size_bytes = len(content)
        self.is_open = True

    def _write(self, data: bytes) -> None:
        try:
            _write_all(self._file, data)
        except OSError:
            self._take_back()
            raise
        self._size_bytes += len(data)

    def _take_back(self) -> None:
        # A full disk takes a part of a line. Nobody was told of it, so it may go.
        try:
            os.ftruncate(self._file, self._size_bytes)
        except OSError as error:
            _log.warning("cannot take half an audit record back: %s", error.strerror)
            self.is_open = False  # to be opened again, which closes off what is torn

    def _close_file(self) -> None:
        self.is_open = False
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _write_all(file: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]


def _why_anew(path: Path, first: int) -> str | None:
    """Why a new chain begins in this file, if one does."""
    record = next(iter(FileWalk(path, first, None)), None)
    return str(record.fields.get("reason")) if record is not None and record.event == BROKEN else None


def _read_end(walk: FileWalk, durable: Head) -> None:
    """See that the last file holds what is known to be on the disk."""
    for record in walk:
        if record.sequence == durable.sequence and record.digest != durable.digest:
            raise AuditError(f"record {record.sequence} is not the one that was made known", hint=_LOOK_HINT)
    if walk.head is None or walk.head.sequence < durable.sequence:
        last = walk.head.sequence if walk.head else 0
        raise AuditError(
            f"the end is missing: record {durable.sequence} was written, {last} is the last", hint=_LOOK_HINT
        )


def _take_directory(path: Path) -> int:
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise AuditError(
            f"cannot use {path} for the audit log: {error.strerror}", hint="make the agent's state directory"
        ) from error
    try:
        found = os.fstat(directory)
        if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise AuditError(
                f"others than the agent's user can write {path}, and so the audit log",
                hint=f"run `chown` and `chmod 0700` on {path} for the agent's user",
            )
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(directory)
        raise AuditError(
            f"another agent writes the audit log in {path}",
            hint="stop it, or give this one a state directory of its own",
        ) from None
    except BaseException:
        os.close(directory)
        raise
    return directory
