"""When the local files of a safe run should go: after the retention time, or earlier if the disk is filling up."""

import os
from datetime import datetime, timedelta
from pathlib import Path

from mover.catalogue.runs import RunRecord
from mover.config import ReleaseConfig
from mover.errors import RunDirectoryError


def why_due(record: RunRecord, limits: ReleaseConfig, *, now: datetime, fill_percent: float) -> str | None:
    """Why the files of this safe run should go now; None if they should stay for a while.

    It is a reason to ask whether they may go, and never says that they may.
    """
    if fill_percent >= limits.hurry_at_percent:
        return f"the disk is {fill_percent:.0f} % full"
    if now >= kept_until(record, limits):
        return f"kept for {limits.retention_hours:g} h since it became safe"
    return None


def kept_until(record: RunRecord, limits: ReleaseConfig) -> datetime:
    """The end of the retention time of a safe run."""
    return record.since + timedelta(hours=limits.retention_hours)


def fill_percent(directory: Path) -> float:
    """How full the file system of `directory` is for ordinary users, in percent, as df(1) says.

    Raises:
        RunDirectoryError: it cannot be asked.
    """
    try:
        found = os.statvfs(directory)
    except OSError as error:
        raise RunDirectoryError(
            f"cannot examine {directory}: {error.strerror}", hint="check `runs.directory`, its mount and its rights"
        ) from error
    used = found.f_blocks - found.f_bfree
    return 100.0 * used / max(used + found.f_bavail, 1)
