"""A batch system in memory, with faults on request: it runs no process, its tests say what becomes of a job."""

import itertools
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal

from mover.batch.files import read_tail
from mover.batch.job import check_job, prepare_directory
from mover.errors import BatchUnavailableError, JobRefusedError
from mover.ports import BatchCapabilities, JobPhase, JobSpec, JobStatus

#: The calls that `MemoryBatch.fail_next` can make fail.
Call = Literal["submit", "find", "look", "read", "cancel", "forget"]

#: Says what became of a job since it was last asked, and makes the job's files; None: nothing new.
Script = Callable[[JobSpec], JobStatus | None]

WAITING = JobStatus(JobPhase.WAITING, "in memory")
RUNNING = JobStatus(JobPhase.RUNNING, "in memory")


def exited(exit_code: int) -> JobStatus:
    """The status of a job that ran to its end."""
    return JobStatus(JobPhase.EXITED, f"exit code {exit_code}", exit_code)


@dataclass(slots=True)
class _Job:
    spec: JobSpec
    status: JobStatus


class MemoryBatch:
    """Jobs in a dictionary. Each instance is a batch system of its own."""

    def __init__(self, *, script: Script | None = None, stages: bool = False) -> None:
        """A batch system without jobs. `script` is asked about each job that has not ended, at each `look`."""
        self._script = script
        self._capabilities = BatchCapabilities(stages=stages)
        self._jobs: dict[str, _Job] = {}
        self._numbers = itertools.count(1)
        self._faults: list[tuple[Call | None, BaseException]] = []
        self._lost_answers = 0
        #: Whether it can be reached at all. Tests set it.
        self.available = True

    @property
    def name(self) -> str:
        """That it is none."""
        return "memory"

    @property
    def capabilities(self) -> BatchCapabilities:
        """As was asked for."""
        return self._capabilities

    @property
    def jobs(self) -> dict[str, JobSpec]:
        """What has been submitted and is still known, by id."""
        return {job_id: job.spec for job_id, job in self._jobs.items()}

    @property
    def statuses(self) -> dict[str, JobStatus]:
        """What has become of them, by id; the script is not asked."""
        return {job_id: job.status for job_id, job in self._jobs.items()}

    def tell(self, job_id: str, status: JobStatus) -> None:
        """Let this be what becomes of the job."""
        self._jobs[job_id].status = status

    def vanish(self, job_id: str) -> None:
        """Know nothing of the job any more."""
        del self._jobs[job_id]

    def fail_next(self, error: BaseException, call: Call | None = None) -> None:
        """Make the next call (of that kind) raise `error`, and do nothing."""
        self._faults.append((call, error))

    def lose_next_answer(self) -> None:
        """Take the next job that is submitted, but say that there was no answer."""
        self._lost_answers += 1

    def submit(self, job: JobSpec) -> str:
        """Keep the job, waiting."""
        self._begin("submit")
        check_job(job)
        if not self._capabilities.stages:
            prepare_directory(job)
        if self._find(job.name) is not None:
            raise JobRefusedError(f"there is a job {job.name} already", hint="every attempt has a name of its own")
        job_id = str(next(self._numbers))
        self._jobs[job_id] = _Job(job, WAITING)
        if self._lost_answers:
            self._lost_answers -= 1
            raise _no_answer()
        return job_id

    def find(self, name: str) -> str | None:
        """The id of the job of that name."""
        self._begin("find")
        return self._find(name)

    def look(self, ids: Collection[str]) -> dict[str, JobStatus]:
        """What the script and the tests said."""
        self._begin("look")
        found = {}
        for job_id in ids:
            job = self._jobs.get(job_id)
            if job is not None:
                if self._script is not None and not job.status.ended:
                    job.status = self._script(job.spec) or job.status
                found[job_id] = job.status
        return found

    def read(self, job_id: str, name: str, *, limit_bytes: int) -> bytes | None:
        """The end of a file in the job's directory."""
        self._begin("read")
        job = self._jobs.get(job_id)
        return read_tail(job.spec.directory, name, limit_bytes=limit_bytes) if job else None

    def cancel(self, job_id: str) -> None:
        """Let the job be cancelled, if it has not ended."""
        self._begin("cancel")
        job = self._jobs.get(job_id)
        if job is not None and not job.status.ended:
            job.status = JobStatus(JobPhase.CANCELLED, "cancelled")

    def forget(self, job_id: str) -> None:
        """Know nothing of the job any more, if it has ended."""
        self._begin("forget")
        job = self._jobs.get(job_id)
        if job is not None and job.status.ended:
            del self._jobs[job_id]

    def close(self) -> None:
        """Nothing to let go of."""

    def _begin(self, call: Call) -> None:
        for fault in self._faults:
            if fault[0] in {None, call}:
                self._faults.remove(fault)
                raise fault[1]
        if not self.available:
            raise _no_answer()

    def _find(self, name: str) -> str | None:
        return next((job_id for job_id, job in self._jobs.items() if job.spec.name == name), None)


def _no_answer() -> BatchUnavailableError:
    return BatchUnavailableError("the batch system in memory does not answer", hint="its test made it so")
