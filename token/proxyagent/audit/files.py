"""The audit log's files: their names, and the durable head."""

import json
import os
import re
import stat
from pathlib import Path
from typing import BinaryIO

from proxyagent.audit.record import Head, is_digest
from proxyagent.errors import AuditError

_FILE = re.compile(r"audit-([0-9]{12,18})\.jsonl")
_HEAD_NAME = "audit-head.json"
_MAX_HEAD_BYTES = 256
KEEP_HINT = "move the whole directory away as evidence; the agent begins a new log when it starts"


def file_name(first: int) -> str:
    """The name of the file that begins with record `first`."""
    return f"audit-{first:012d}.jsonl"


def list_files(directory: Path) -> list[tuple[int, Path]]:
    """The files with the number of the first record of each, in order.

    Raises:
        AuditError: the directory cannot be read.
    """
    try:
        matches = [match for name in os.listdir(directory) if (match := _FILE.fullmatch(name))]  # noqa: PTH208
    except OSError as error:
        raise AuditError(f"cannot read {directory}: {error.strerror}", hint="give the log's directory") from error
    return sorted((int(match[1]), directory / match[0]) for match in matches)


def open_regular(path: Path) -> BinaryIO:
    """An ordinary file, opened for reading; nothing else, as a FIFO would keep us waiting.

    Raises:
        AuditError: it cannot be read, or is something else.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise AuditError(f"cannot read {path.name}: {error.strerror}", hint=KEEP_HINT) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise AuditError(f"{path.name} is not a file", hint=KEEP_HINT)
    return os.fdopen(descriptor, "rb")


def read_head(directory: Path) -> Head | None:
    """The last record that is known to be on the disk; None if there is no head file.

    Raises:
        AuditError: it cannot be read or is damaged; a power cut does not do that.
    """
    path = directory / _HEAD_NAME
    if not os.path.lexists(path):
        return None
    with open_regular(path) as file:
        content = file.read(_MAX_HEAD_BYTES)
    try:
        sequence, digest = json.loads(content)
    except (ValueError, TypeError, RecursionError):
        sequence = digest = None
    if not isinstance(sequence, int) or sequence < 0 or not is_digest(digest):
        raise AuditError(f"{_HEAD_NAME} was changed", hint=KEEP_HINT)
    return Head(sequence, str(digest))


def write_head(directory: int, head: Head) -> None:
    """Make the head durable in the open directory.

    Raises:
        OSError
    """
    temporary = f"{_HEAD_NAME}.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(temporary, flags, 0o600, dir_fd=directory), "wb") as file:
        file.write(json.dumps(head).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, _HEAD_NAME, src_dir_fd=directory, dst_dir_fd=directory)
    os.fsync(directory)
