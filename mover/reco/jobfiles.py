"""The small files that a job leaves in its working directory: read where it is shared, or asked of the batch system."""

import errno
import logging
import os
import stat
from pathlib import Path

from mover.catalogue.jobs import JobRecord
from mover.errors import BatchError, BatchUnavailableError
from mover.ports import BatchSystem
from mover.reco.jobdescription import LOG_NAME, REPORT_NAME

log = logging.getLogger("mover")

# What the command said, what the batch system kept, and the report.
_TELLING = (LOG_NAME, "batch.log", REPORT_NAME)
_DISK_TROUBLE = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOMEM, errno.EMFILE, errno.ENFILE}


def read_job_file(batch: BatchSystem, job: JobRecord, directory: Path, name: str, *, limit_bytes: int) -> bytes | None:
    """The last `limit_bytes` of a job's file; None if there is none.

    Where the directory is shared, it tells more than the batch system, which forgets jobs.

    Raises:
        BatchUnavailableError: it cannot be told.
    """
    if batch.capabilities.stages:
        return batch.read(job.batch_id, name, limit_bytes=limit_bytes) if job.batch_id else None
    path = directory / name
    try:
        # A job may have put anything there, and taken away the leave to read it: then it left nothing.
        if not stat.S_ISREG(path.lstat().st_mode):
            return None
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _DISK_TROUBLE:
            raise _unreadable(path, error) from error
        return None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None
        return os.pread(descriptor, limit_bytes, max(0, status.st_size - limit_bytes))
    except OSError as error:
        raise _unreadable(path, error) from error
    finally:
        os.close(descriptor)


def fetch_logs(batch: BatchSystem, job: JobRecord, directory: Path, *, limit_bytes: int) -> None:
    """Write the ends of the files that tell why a job failed into `directory`, which is not where it ran.

    What cannot be had is said, and is no reason not to go on.
    """
    for name in _TELLING:
        try:
            content = batch.read(job.batch_id, name, limit_bytes=limit_bytes) if job.batch_id else None
            if content is not None:
                (directory / name).write_bytes(content)
        except (BatchError, OSError) as error:
            log.warning("%s of %s cannot be had: %s", name, job.name, error)


def _unreadable(path: Path, error: OSError) -> BatchUnavailableError:
    return BatchUnavailableError(f"cannot read {path}: {error.strerror}", hint="look at the scratch area and its disk")
