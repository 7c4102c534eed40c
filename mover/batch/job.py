"""What every batch system asks of a job before it takes it, and gives to it when it runs."""

import re
from pathlib import Path

from mover.errors import BatchError, JobRefusedError, UnsafeNameError
from mover.model import check_name
from mover.ports import JobSpec

LOG = "batch.log"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")


def check_job(job: JobSpec) -> JobSpec:
    """Return `job` if its names and limits are such as `JobSpec` asks for.

    Raises:
        JobRefusedError: they are not.
    """
    if not is_job_name(job.name):
        raise JobRefusedError(f"unsafe name of a job {job.name!r}", hint="use up to 80 letters, digits and _ . - only")
    inputs = {each.name for each in job.inputs}
    for name in inputs | {each.name for each in job.outputs}:
        _check_file_name(job, name)
    if not job.arguments or job.arguments[0] not in inputs:
        raise _refused(job, "the command is none of its inputs")
    if any("\0" in argument for argument in job.arguments):
        raise _refused(job, "an argument has a null byte")
    if min(job.wall_seconds, job.memory_mib, job.cores) < 1:
        raise _refused(job, "time, memory and cores must be at least 1")
    return job


def is_job_name(name: str) -> bool:
    """Whether a job may be called that: no name leads to another place, or looks like an option."""
    return _NAME.fullmatch(name) is not None


def prepare_directory(job: JobSpec) -> Path:
    """The directory of a job whose batch system does not stage, with its inputs in it and its command executable.

    Raises:
        JobRefusedError: the directory or an input is not there, or is to be fetched from elsewhere.
    """
    directory = job.directory
    if not directory.is_absolute() or not directory.is_dir():
        raise _refused(job, f"there is no directory {directory}")
    for each in job.inputs:
        path = directory / each.name
        if each.source != path or not path.is_file():
            raise _refused(job, f"its input {each.name} is not in its directory")
        if each.executable or each.name == job.arguments[0]:
            path.chmod(path.stat().st_mode | 0o100)
    return directory


def job_environment(directory: Path) -> dict[str, str]:
    """The whole environment that a job starts with: nothing of ours goes along."""
    home = str(directory)
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": home, "TMPDIR": home}


def check_file_name(name: str) -> str:
    """Return `name` if it may be that of a file in a job's directory; such a name leads nowhere else.

    Raises:
        BatchError: it may not.
    """
    try:
        return check_name(name)
    except UnsafeNameError as error:
        raise BatchError(f"a job has no file {name!r}: {error.message}", hint=error.hint) from error


def _check_file_name(job: JobSpec, name: str) -> None:
    try:
        check_name(name)
    except UnsafeNameError as error:
        raise _refused(job, error.message) from error


def _refused(job: JobSpec, why: str) -> JobRefusedError:
    return JobRefusedError(f"job {job.name} cannot be run: {why}", hint="this is a mistake in how the job was made")
