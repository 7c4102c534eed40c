"""The scratch area: what stands in it, and whether there is room for more. Nothing else may write there."""

import logging
import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path

from mover.errors import OutputError

log = logging.getLogger("mover")

_MOST_LOGS = 20
_MOST_LEVELS = 20

#: What a job may write, as a multiple of what it reads, before it is known what it does write.
_GROWTH = 3


def used_bytes(scratch: Path) -> int:
    """What the files in the scratch area take on the disk."""
    total = 0
    for folder, _, names in os.walk(scratch):
        for name in names:
            # It may be gone by now; and a job may have locked its own directory.
            with suppress(OSError):
                total += (Path(folder) / name).lstat().st_blocks * 512
    return total


def has_room(scratch: Path, limit_bytes: int, need_bytes: int, *, alone: bool) -> bool:
    """Whether a job that reads so many bytes may begin: within the limit, and on the disk.

    A job that is alone, with no other under way, is let in whatever the limit, if the disk has room, or it could never
    be done.
    """
    used = used_bytes(scratch)
    wanted = need_bytes * _GROWTH
    return shutil.disk_usage(scratch).free > wanted and (alone or used + wanted <= limit_bytes)


def lay_out(scratch: Path) -> None:
    """Make the folders.

    Raises:
        OutputError: that cannot be done.
    """
    try:
        for name in ("jobs", "logs", "proofs"):
            (scratch / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot use the scratch area {scratch}: {error.strerror}",
            hint="check `scratch` in `[reco]`, the folder's owner and the disk",
        ) from error


def keep_logs(directory: Path, logs: Path, *, most_bytes: int, most_attempts: int) -> None:
    """Keep the end of each log of an attempt whose directory goes, and forget those of the oldest attempts.

    What cannot be kept is said, and is no reason not to go on: a job may have left anything under a log's name.
    """
    kept = logs / directory.name
    try:
        kept.mkdir(exist_ok=True)
        found = [*sorted(directory.glob("*.log"))[:_MOST_LOGS], *directory.glob("report.json")]
    except OSError as error:
        log.warning("the logs of %s cannot be kept: %s", directory.name, error)
        return
    for path in found:
        try:
            _keep_end(path, kept / path.name, most_bytes)
        except OSError as error:
            log.warning("the log %s cannot be kept: %s", path, error)
    # Other threads do the same at the same time.
    with suppress(OSError):
        old = sorted(logs.iterdir(), key=lambda one: one.lstat().st_mtime)
        for path in old[: max(0, len(old) - most_attempts)]:
            shutil.rmtree(path, ignore_errors=True)


def remove(directory: Path) -> None:
    """Remove a job's directory, whatever the job has done to the leave to do so; what stays all the same is said."""

    def unlock(_function: object, path: str, _error: object) -> None:
        for one in (Path(path).parent, Path(path)):
            with suppress(OSError):
                if one.is_dir() and not one.is_symlink() and one.is_relative_to(directory):
                    one.chmod(0o700)

    for _ in range(_MOST_LEVELS):
        shutil.rmtree(directory, onerror=unlock)
        if not directory.exists():
            return
    log.warning("%s cannot be removed: look at what is in it", directory)


def drop_all_but(file: Path) -> None:
    """Remove what is beside a job's output: above all the raw data that was staged for it."""
    for path in file.parent.iterdir():
        if path.name == file.name:
            continue
        if path.is_dir() and not path.is_symlink():
            remove(path)
        else:
            with suppress(OSError):
                path.unlink()


def _keep_end(path: Path, target: Path, most_bytes: int) -> None:
    if not stat.S_ISREG(path.lstat().st_mode):
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        file.seek(max(0, os.fstat(descriptor).st_size - most_bytes))
        target.write_bytes(file.read(most_bytes))
