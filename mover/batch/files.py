"""Files that jobs leave, read without trust: a job may put links, pipes and endless files under any name."""

import os
import stat
from pathlib import Path

from mover.batch.job import check_file_name
from mover.errors import BatchUnavailableError


def read_tail(directory: Path, name: str, *, limit_bytes: int) -> bytes | None:
    """The last `limit_bytes` of the regular file `name` directly in `directory`; None if there is none.

    Raises:
        BatchError: the name leads elsewhere.
        BatchUnavailableError: the file is there and cannot be read.
    """
    check_file_name(name)
    # Neither a link nor a pipe is followed, opened or waited for.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    path = directory / name
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return None
        descriptor = os.open(path, flags)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            return None
        return os.pread(descriptor, limit_bytes, max(0, found.st_size - limit_bytes))
    except OSError as error:
        raise _unreadable(path, error) from error
    finally:
        os.close(descriptor)


def _unreadable(path: Path, error: OSError) -> BatchUnavailableError:
    return BatchUnavailableError(
        f"cannot read {path}: {os.strerror(error.errno or 0).lower()}",
        hint="see whether its directory is there, and may be read by us",
    )
