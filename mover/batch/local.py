"""The embedded batch system: a bounded pool of processes on this machine, which outlive the engine.

There is no daemon and no thread: every call looks after the queue. Each job has a supervisor, a process of its own
that holds the job's lock. What is enforced: how many cores jobs claim together, wall time, the size of the log, and an
end of all their processes. If a supervisor is killed, the kernel ends the job's command, and the next call all that has
the job's mark in its environment. Memory is not limited (ROOT maps far more than it uses, and nothing else can be
without privileges): jobs are the first that the kernel ends when it runs out. They run as the user that we are, which
keeps them apart from nothing that is ours: give what runs them a user of its own.
"""

import fcntl
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from mover.batch.files import read_tail
from mover.batch.job import check_job, is_job_name, prepare_directory
from mover.batch.localjob import MARK, RUNNING, WAITING, LocalJob
from mover.batch.processes import end, marked
from mover.errors import BatchUnavailableError, JobRefusedError, OutputError
from mover.ports import BatchCapabilities, JobPhase, JobSpec, JobStatus

_LOCK_SECONDS = 30.0
_POLL_SECONDS = 0.01
_START_SECONDS = 60.0
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
_CANCELLED = JobStatus(JobPhase.CANCELLED, "cancelled while it waited")
_VANISHED = JobStatus(
    JobPhase.FAILED, "vanished: its supervisor was killed or failed (see its supervisor.log), or the machine went down"
)


class LocalBatch:
    """Jobs on this machine. A job's id is its name.

    Everything that is known of them is in `directory`, on a local file system; several engines may share it.
    """

    def __init__(
        self,
        directory: Path,
        *,
        slots: int,
        most_waiting: int = 1000,
        grace_seconds: float = 10.0,
        log_bytes: int = 64 << 20,
    ) -> None:
        """Jobs known in `directory`, which is made if it is not there.

        They run on `slots` cores at most; `most_waiting` wait for one. A job that is to end has `grace_seconds` to do
        so. Of its log, the first `log_bytes` are kept, and the end.

        Raises:
            BatchUnavailableError: the directory cannot be made.
        """
        self._directory = directory.resolve()
        self._jobs = self._directory / "jobs"
        self._aside = self._directory / "aside"
        self._slots = slots
        self._most_waiting = most_waiting
        self._grace_seconds = grace_seconds
        self._log_bytes = log_bytes
        with _translated(self._directory):
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._jobs.mkdir(exist_ok=True)
        with self._locked():
            # What a submission or a removal did not come to its end with.
            shutil.rmtree(self._aside, ignore_errors=True)
            self._aside.mkdir(exist_ok=True)

    @property
    def name(self) -> str:
        """That they run here."""
        return "local"

    @property
    def capabilities(self) -> BatchCapabilities:
        """No staging: the files are here."""
        return BatchCapabilities(stages=False)

    def submit(self, job: JobSpec) -> str:
        """Put the job in line, durably; it starts at once if there is a free slot."""
        check_job(job)
        if job.cores > self._slots:
            raise JobRefusedError(
                f"job {job.name} needs {job.cores} cores, and there are {self._slots} slots",
                hint="give the local batch system more slots, or the job fewer cores",
            )
        prepare_directory(job)
        with self._locked():
            state = self._jobs / job.name
            if state.exists():
                raise JobRefusedError(f"there is a job {job.name} already", hint="every attempt has a name of its own")
            waiting = sum(not each.started for each in self._not_ended())
            if waiting >= self._most_waiting:
                raise BatchUnavailableError(f"{waiting} jobs are waiting already", hint="it is tried again later")
            LocalJob.create(job, state=state, aside=self._aside)
            self._look_after()
        return job.name

    def find(self, name: str) -> str | None:
        """The name itself, if there is such a job."""
        with self._locked():
            self._look_after()
            return name if self._known(name) else None

    def look(self, ids: Collection[str]) -> dict[str, JobStatus]:
        """What became of these jobs; a job that vanished is `FAILED`, since nobody runs it again."""
        with self._locked():
            self._look_after()
            return {job.state.name: self._status(job) for job_id in ids if (job := self._known(job_id))}

    def read(self, job_id: str, name: str, *, limit_bytes: int) -> bytes | None:
        """The end of a file in the job's directory."""
        with self._locked():
            self._look_after()
            job = self._known(job_id)
        return read_tail(Path(job.order.directory), name, limit_bytes=limit_bytes) if job else None

    def cancel(self, job_id: str) -> None:
        """Let the job's supervisor end it, which may take the grace; a job that waits never runs."""
        with self._locked():
            job = self._known(job_id)
            if job is not None and job.result is None:
                job.record_cancelled()
                if (lock := job.take_lock()) is not None:
                    with _held(lock):
                        if not job.started and job.result is None:
                            job.record_result(_CANCELLED)
            self._look_after()

    def forget(self, job_id: str) -> None:
        """Remove what is known of a job that has ended."""
        with self._locked():
            self._look_after()
            job = self._known(job_id)
            if job is not None and job.result is not None:
                # In one step: a job of which half is known might seem to be one that waits.
                gone = self._aside / secrets.token_hex(8)
                job.state.rename(gone)
                shutil.rmtree(gone)

    def close(self) -> None:
        """Nothing to let go of; the jobs go on."""

    def _known(self, job_id: str) -> LocalJob | None:
        known = is_job_name(job_id) and (self._jobs / job_id).exists()
        return LocalJob(self._jobs / job_id) if known else None

    def _not_ended(self) -> list[LocalJob]:
        """The jobs that wait, run or vanished, in the order in which they came."""
        jobs = [LocalJob(state) for state in self._jobs.iterdir() if not (state / "result.json").exists()]
        return sorted(jobs, key=lambda job: (job.order.submitted, job.state.name))

    def _look_after(self) -> None:
        """Note what vanished, and start what has its turn."""
        jobs = self._not_ended()
        states = {job: self._status(job) for job in jobs}
        free = self._slots - sum(job.order.cores for job in jobs if states[job] == RUNNING)
        for job in jobs:
            if states[job] == WAITING:
                free -= job.order.cores
                # Nobody overtakes: a job that needs many slots would never find them free.
                if free < 0:
                    return
                self._start(job)

    def _status(self, job: LocalJob) -> JobStatus:
        """Where the job is now; that it vanished is recorded."""
        if (result := job.result) is not None:
            return result
        lock = job.take_lock()
        if lock is None:
            return RUNNING
        with _held(lock):
            # It may have ended between the two looks.
            if (result := job.result) is not None:
                return result
            if not job.started:
                return WAITING
            end(lambda: marked(MARK, job.order.mark), grace_seconds=0.0)
            job.record_result(_VANISHED)
            return _VANISHED

    def _start(self, job: LocalJob) -> None:
        """Give the job a supervisor. Only that one says that it has started, so that a crash here costs nothing."""
        lock = job.take_lock()
        if lock is None:
            return
        argv = [sys.executable, "-I", "-B", "-m", "mover.batch.supervisor", str(job.state), str(lock)]
        argv += [str(self._grace_seconds), str(self._log_bytes)]
        with _held(lock), (job.state / "supervisor.log").open("ab") as log:
            done = subprocess.run(
                argv,
                check=False,
                cwd="/",
                env=_ENVIRONMENT,
                pass_fds=(lock,),
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                timeout=_START_SECONDS,
            )
        if done.returncode != 0:
            raise BatchUnavailableError(
                f"the supervisor of job {job.state.name} did not start", hint=f"see {job.state / 'supervisor.log'}"
            )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone with the directory, in bounded time; errors of the operating system are translated."""
        with _translated(self._directory):
            descriptor = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with _held(descriptor):
                deadline = time.monotonic() + _LOCK_SECONDS
                while not _lock(descriptor):
                    if time.monotonic() > deadline:
                        raise BatchUnavailableError(
                            f"another engine is busy in {self._directory}", hint="it is tried again later"
                        )
                    time.sleep(_POLL_SECONDS)
                yield


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _held(descriptor: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _translated(directory: Path) -> Iterator[None]:
    """Errors of the operating system, as what the port says.

    Raises:
        BatchUnavailableError: there was one.
    """
    try:
        yield
    except (OSError, subprocess.SubprocessError, OutputError) as error:
        raise BatchUnavailableError(
            f"the local batch system in {directory} is in trouble: {error}",
            hint="see whether it may be written to, has space, and whether processes can be started",
        ) from error
