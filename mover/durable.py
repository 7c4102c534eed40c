"""A new file that is either complete, on the disk and under its name, or not there; and never in another's place."""

import ctypes
import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mover.errors import OutputError

_RENAME_NOREPLACE = 1  # linux/fs.h
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """An empty file beside `path`, to be filled in the block; at its end it is flushed to the disk and named `path`.

    A block that raises leaves nothing. A crash may leave a `.mover-….part`, which nobody needs.

    Raises:
        OutputError: `path` is taken, its directory cannot be written, or there is no space.
    """
    if os.path.lexists(path):
        raise _taken(path)
    partial = path.with_name(f".mover-{secrets.token_hex(8)}.part")
    try:
        os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666))
        try:
            yield partial
            _publish(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    except FileExistsError as error:
        raise _taken(path) from error
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {os.strerror(error.errno or 0).lower()}",
            hint="give a file in a directory that you may write to, on a disk with space",
        ) from error


def rename_noreplace(source: str, source_fd: int, target: str, target_fd: int) -> None:
    """renameat2(2) with RENAME_NOREPLACE; link(2) and unlink(2) where the file system does not have it.

    Raises:
        OSError: as renameat2(2); EEXIST if there is a target.
    """
    done: int = _libc.renameat2(source_fd, os.fsencode(source), target_fd, os.fsencode(target), _RENAME_NOREPLACE)
    if done == 0:
        return
    number = ctypes.get_errno()
    if number not in {errno.EINVAL, errno.ENOSYS}:
        raise OSError(number, os.strerror(number))
    os.link(source, target, src_dir_fd=source_fd, dst_dir_fd=target_fd, follow_symlinks=False)
    os.unlink(source, dir_fd=source_fd)


def _publish(partial: Path, path: Path) -> None:
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        rename_noreplace(partial.name, directory, path.name, directory)
        os.fsync(directory)
    finally:
        os.close(directory)


def _taken(path: Path) -> OutputError:
    return OutputError(f"{path} is there already", hint="nothing is overwritten: give another name")
