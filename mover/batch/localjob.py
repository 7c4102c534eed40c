"""What is known of a job of the local batch system: a directory of facts, each a file that is written once.

`job.json` says what is to be run; `started` that its command may have run; `cancel` that somebody wants it to end;
`result.json` how it ended. `lock` is held by its supervisor for as long as that lives, by flock(2): the kernel lets go
of it however the supervisor ends, and never gives it to another process, as it does with a pid.
"""

import fcntl
import json
import os
import secrets
import time
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from mover.durable import new_file
from mover.errors import BatchError
from mover.ports import JobPhase, JobSpec, JobStatus

WAITING = JobStatus(JobPhase.WAITING, "waiting for a free slot")
RUNNING = JobStatus(JobPhase.RUNNING, "running")

#: The variable in a job's environment by which its processes are known.
MARK = "MOVER_LOCAL_JOB"


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be run. `mark` is the job's own, whatever other jobs are called; `submitted` is the order in line."""

    directory: str
    arguments: tuple[str, ...]
    wall_seconds: int
    cores: int
    mark: str
    submitted: int


class LocalJob:
    """One job, by its directory of facts."""

    def __init__(self, state: Path) -> None:
        """The facts are in `state`, whose name is the job's."""
        self.state = state

    @classmethod
    def create(cls, job: JobSpec, *, state: Path, aside: Path) -> "LocalJob":
        """Record a new job durably, whole or not at all; `aside` is a directory for what is not whole yet.

        Raises:
            FileExistsError: there is a job of that name.
            OSError, OutputError: it cannot be written.
        """
        made = aside / secrets.token_hex(8)
        made.mkdir()
        order = Order(
            directory=str(job.directory),
            arguments=job.arguments,
            wall_seconds=job.wall_seconds,
            cores=job.cores,
            mark=secrets.token_hex(16),
            submitted=time.time_ns(),
        )
        (made / "lock").touch()
        os.mkfifo(made / "control", 0o600)
        with new_file(made / "job.json") as file:
            file.write_text(json.dumps(asdict(order)))
        # A directory that has something in it is never replaced.
        if state.exists():
            raise FileExistsError(state)
        made.rename(state)
        _sync_directory(state.parent)
        return cls(state)

    @cached_property
    def order(self) -> Order:
        """What is to be run.

        Raises:
            BatchError: it is damaged.
        """
        try:
            facts = json.loads((self.state / "job.json").read_bytes())
            return Order(**{**facts, "arguments": tuple(facts["arguments"])})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise _damaged(self.state / "job.json", error) from error

    @property
    def started(self) -> bool:
        """Whether its command may have run."""
        return (self.state / "started").exists()

    @property
    def cancelled(self) -> bool:
        """Whether somebody wants it to end."""
        return (self.state / "cancel").exists()

    @property
    def result(self) -> JobStatus | None:
        """How it ended, if it has.

        Raises:
            BatchError: it is damaged.
        """
        path = self.state / "result.json"
        try:
            facts = json.loads(path.read_bytes())
            return JobStatus(JobPhase(facts["phase"]), facts["words"], facts["exit_code"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise _damaged(path, error) from error

    def record_started(self) -> None:
        """Record, before it does, that its command runs."""
        with new_file(self.state / "started"):
            pass

    def record_cancelled(self) -> None:
        """Record that somebody wants it to end, and wake its supervisor."""
        (self.state / "cancel").touch()
        try:
            control = os.open(self.state / "control", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return  # its supervisor has not come to read it yet, and will look for `cancel`; or is gone
        try:
            os.write(control, b"\0")
        except BlockingIOError:
            pass  # full of what will wake it
        finally:
            os.close(control)

    def record_result(self, status: JobStatus) -> None:
        """Record how it ended.

        Raises:
            OutputError: it cannot be written.
        """
        with new_file(self.state / "result.json") as file:
            file.write_text(json.dumps(asdict(status)))

    def take_lock(self) -> int | None:
        """The descriptor of its lock, now held by it and its duplicates; None if a supervisor has it."""
        lock = os.open(self.state / "lock", os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        return lock


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _damaged(path: Path, error: Exception) -> BatchError:
    return BatchError(
        f"{path} cannot be read: {error}", hint="see to the disk; remove the job's directory if it is lost"
    )
