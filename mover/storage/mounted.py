"""What `FileEndpoint` needs from the kernel: directories without symlinks, its errors."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mover.errors import (
    AccessDeniedError,
    EndpointFullError,
    EndpointUnavailableError,
    FileExistsAtEndpointError,
    FileMissingError,
    ForeignFileError,
    StorageError,
)

_ERRORS: dict[int, tuple[type[StorageError], str]] = {
    errno.ENOENT: (FileMissingError, "look at what the endpoint has"),
    errno.EEXIST: (FileExistsAtEndpointError, "nothing is overwritten: look whose it is"),
    errno.EACCES: (AccessDeniedError, "give the mover's user the right to write there"),
    errno.EPERM: (AccessDeniedError, "give the mover's user the right to write there"),
    errno.EROFS: (AccessDeniedError, "mount the disk for writing"),
    errno.ENOSPC: (EndpointFullError, "make space on the disk"),
    errno.EDQUOT: (EndpointFullError, "make space, or have the quota raised"),
    errno.ENOTDIR: (ForeignFileError, "a file stands where a directory is needed: find out whose it is"),
    errno.EISDIR: (ForeignFileError, "a directory stands where a file is needed: find out whose it is"),
    errno.ELOOP: (ForeignFileError, "a symlink stands there: find out whose it is"),
}


@contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Turn every OSError of the body, which works on `url` and on nothing else, into a StorageError."""
    try:
        yield
    except OSError as error:
        default = (EndpointUnavailableError, "check that the disk is mounted and healthy")
        kind, hint = _ERRORS.get(error.errno or 0, default)
        raise kind(f"{url}: {os.strerror(error.errno or 0).lower()}", hint=hint) from error


@contextmanager
def directory(base: Path, names: list[str], *, create: bool) -> Iterator[int]:
    """A descriptor of the directory `names` below `base`; no symlink is followed below the base.

    Raises:
        EndpointUnavailableError: `base` itself does not exist.
        OSError: as open(2) and mkdir(2).
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        current = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise EndpointUnavailableError(f"there is no {base}", hint="mount the disk, and make the directory") from error
    try:
        for name in names:
            if create and _make(name, current):
                os.fsync(current)
            below = os.open(name, flags, dir_fd=current)
            os.close(current)
            current = below
        yield current
    finally:
        os.close(current)


def _make(name: str, parent: int) -> bool:
    try:
        os.mkdir(name, dir_fd=parent)
    except FileExistsError:
        return False
    return True
