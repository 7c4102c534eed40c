"""The scratch area: what stands in it, and whether there is room for more. Nothing else may write there."""

import os
import shutil
from pathlib import Path

from mover.errors import OutputError

#: What a job may write, as a multiple of what it reads, before it is known what it does write.
_GROWTH = 3


def used_bytes(scratch: Path) -> int:
    """What the files in the scratch area take on the disk."""
    total = 0
    for folder, _, names in os.walk(scratch):
        for name in names:
            try:
                total += (Path(folder) / name).lstat().st_blocks * 512
            except FileNotFoundError:
                continue
    return total


def has_room(scratch: Path, limit_bytes: int, need_bytes: int) -> bool:
    """Whether a job that reads so many bytes may begin: within the limit, and on the disk.

    One job alone is always let in, if the disk has room, or it could never be done.
    """
    used = used_bytes(scratch)
    wanted = need_bytes * _GROWTH
    empty = not any((scratch / "jobs").iterdir())
    return shutil.disk_usage(scratch).free > wanted and (empty or used + wanted <= limit_bytes)


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
    """Keep the end of each log of an attempt whose directory goes, and forget those of the oldest attempts."""
    kept = logs / directory.name
    kept.mkdir(exist_ok=True)
    for path in [*sorted(directory.glob("*.log")), directory / "report.json"]:
        if path.is_symlink() or not path.is_file():
            continue
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - most_bytes))
            (kept / path.name).write_bytes(file.read(most_bytes))
    old = sorted(logs.iterdir(), key=lambda one: one.stat().st_mtime)
    for path in old[: max(0, len(old) - most_attempts)]:
        shutil.rmtree(path)
