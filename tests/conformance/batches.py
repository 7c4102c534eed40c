"""The batch systems that the conformance suite is run against, by name.

Another one is a name in `BATCHES` and a subclass of `BatchSubject` in `make_subject`.
"""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from mover.batch.job import LOG
from mover.batch.local import LocalBatch
from mover.batch.memory import RUNNING, MemoryBatch, exited
from mover.batch.slurm import SlurmBatch
from mover.errors import BatchUnavailableError
from mover.ports import BatchSystem, JobInput, JobOutput, JobPhase, JobSpec, JobStatus
from mover.sandbox.slurm import PARTITION, SlurmCluster
from tests.conformance.arc_site import ArcSite
from tests.conformance.subjects import eventually

#: All of them; the fixture `batches` takes each in turn.
BATCHES = ("memory", "local", "slurm", "arc")

#: How many jobs each of them runs at once.
SLOTS = 2

#: What the jobs run: what it does is its first argument.
PROGRAM = """#!/bin/sh
echo ran >> ran.txt
what=$1
shift
case $what in
descriptors) ls -l /proc/$$/fd ;;
exit) exit "$1" ;;
kill) kill -s "$1" $$ ;;
hold) sleep 600 & setsid sleep 600 & echo held; wait ;;
show)
    printf '%s\\0' "$@" > arguments.txt
    tr '\\0' '\\n' < /proc/self/environ > environment.txt
    echo said; echo warned >&2 ;;
esac
"""
_FILES = ("ran.txt", "arguments.txt", "environment.txt")


class BatchSubject(ABC):
    """One batch system, what can be done to it behind its back, and a place for the directories of jobs."""

    #: Whether it runs processes, with an environment and descriptors.
    runs = True
    #: The wall time that a job is given which exceeds it.
    short_seconds = 1
    #: How many jobs are many.
    many = 50

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.batch = self.open()

    @abstractmethod
    def open(self) -> BatchSystem:
        """Another adapter for the same batch system, as that of a later engine. In memory, there is only the one."""

    @abstractmethod
    def submit_without_answer(self, job: JobSpec) -> None:
        """Submit the job from an engine that never learns that it was taken."""

    @abstractmethod
    def outage(self) -> contextlib.AbstractContextManager[None]:
        """A time in which the batch system cannot be asked; jobs go on."""

    @abstractmethod
    def lose_worker(self, job_id: str) -> contextlib.AbstractContextManager[None]:
        """Break what the job runs on; it is mended at the end."""

    def hurry(self, job_id: str) -> None:
        """Have the job's time end soon, where the batch system counts in minutes."""
        assert job_id

    def close(self) -> None:
        """End what jobs are left, and the adapter."""
        self.batch.close()

    def job(self, *arguments: str, wall_seconds: int = 600) -> JobSpec:
        """A job that runs `PROGRAM` with these arguments, in a directory of its own."""
        name = f"{arguments[0]}-{uuid4().hex}"
        directory = self.directory / f"{name} $HOME 'a|b"
        directory.mkdir()
        program = directory / "job.sh"
        program.write_text(PROGRAM)
        return JobSpec(
            name=name,
            directory=directory,
            arguments=("job.sh", *arguments),
            inputs=(JobInput("job.sh", program, executable=True),),
            outputs=tuple(JobOutput(file) for file in _FILES),
            wall_seconds=wall_seconds,
            memory_mib=64,
        )

    def status(self, job_id: str) -> JobStatus | None:
        """What it says of the job, if it knows it."""
        return self.batch.look([job_id]).get(job_id)

    def wait(self, job_id: str, wanted: Callable[[JobStatus], bool], *, seconds: float = 240.0) -> JobStatus:
        """The job's status once it is wanted; the test fails if it never is."""
        deadline = time.monotonic() + seconds
        while not ((status := self.status(job_id)) and wanted(status)):
            assert status is None or not status.ended, status
            assert time.monotonic() < deadline, status
            time.sleep(0.05)
        return status

    def run(self, *arguments: str, wall_seconds: int = 600) -> tuple[str, JobStatus]:
        """Run such a job to its end; its id and how it ended."""
        job_id = self.batch.submit(self.job(*arguments, wall_seconds=wall_seconds))
        return job_id, self.wait(job_id, lambda status: status.ended)

    def hold(self) -> str:
        """A job that runs, and has said so, until somebody ends it."""
        job_id = self.batch.submit(self.job("hold"))

        def held(status: JobStatus) -> bool:
            said = self.batch.read(job_id, LOG, limit_bytes=1 << 10)
            return status.phase is JobPhase.RUNNING and said == b"held\n"

        self.wait(job_id, held)
        return job_id

    def text(self, job_id: str, name: str) -> str:
        """A file of the job's."""
        data = self.batch.read(job_id, name, limit_bytes=1 << 20)
        assert data is not None, name
        return data.decode()


class MemorySubject(BatchSubject):
    """The double: what `PROGRAM` does is played to it."""

    runs = False

    def __init__(self, directory: Path) -> None:
        self._memory = MemoryBatch(script=self._play)
        self._started: set[str] = set()
        super().__init__(directory)

    def open(self) -> BatchSystem:
        return self._memory

    def submit_without_answer(self, job: JobSpec) -> None:
        self._memory.lose_next_answer()
        with contextlib.suppress(Exception):
            self._memory.submit(job)

    @contextmanager
    def outage(self) -> Iterator[None]:
        self._memory.available = False
        yield
        self._memory.available = True

    @contextmanager
    def lose_worker(self, job_id: str) -> Iterator[None]:
        self._memory.tell(job_id, JobStatus(JobPhase.FAILED, "the node is down"))
        yield

    def _play(self, job: JobSpec) -> JobStatus | None:
        if job.name not in self._started:
            if sum(status == RUNNING for status in self._memory.statuses.values()) == SLOTS:
                return None
            self._started.add(job.name)
            (job.directory / "ran.txt").write_text("ran\n")
            (job.directory / "batch.log").write_text("")
            return RUNNING
        _, what, *arguments = job.arguments
        if what == "hold":
            (job.directory / "batch.log").write_text("held\n")
            return JobStatus(JobPhase.TIMED_OUT, "played") if job.wall_seconds == self.short_seconds else None
        if what == "kill":
            return JobStatus(JobPhase.CANCELLED, f"killed by SIG{arguments[0]}")
        if what == "show":
            (job.directory / "arguments.txt").write_text("".join(f"{each}\0" for each in arguments))
            (job.directory / "batch.log").write_text("said\nwarned\n")
        return exited(int(arguments[0]) if what == "exit" else 0)


class LocalSubject(BatchSubject):
    """Processes on this machine."""

    def open(self) -> BatchSystem:
        return LocalBatch(self.state, slots=SLOTS, grace_seconds=1.0)

    def submit_without_answer(self, job: JobSpec) -> None:
        code = (
            "import os, pickle, sys; from pathlib import Path; from mover.batch.local import LocalBatch;"
            f"batch = LocalBatch(Path(sys.argv[1]), slots={SLOTS}, grace_seconds=1.0);"
            "batch.submit(pickle.load(sys.stdin.buffer)); os.kill(os.getpid(), 9)"
        )
        argv = [sys.executable, "-c", code, str(self.state)]
        done = subprocess.run(argv, input=pickle.dumps(job), check=False, timeout=120)
        assert done.returncode == -signal.SIGKILL

    @contextmanager
    def outage(self) -> Iterator[None]:
        self.state.rename(self.state.with_name("away"))
        self.state.touch()
        yield
        self.state.unlink()
        self.state.with_name("away").rename(self.state)

    @contextmanager
    def lose_worker(self, job_id: str) -> Iterator[None]:
        os.kill(self.supervisor(job_id), signal.SIGKILL)
        yield

    def supervisor(self, job_id: str) -> int:
        """The process that looks after a job that runs."""
        mark = str(self.state / "jobs" / job_id).encode()
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if mark in path.read_bytes().split(b"\0"):
                    return int(path.parent.name)
        raise AssertionError(f"{job_id} has no supervisor")

    def close(self) -> None:
        jobs = [state.name for state in (self.state / "jobs").iterdir()]
        for job_id in jobs:
            self.batch.cancel(job_id)
        for job_id in jobs:
            self.wait(job_id, lambda status: status.ended)
        super().close()

    @property
    def state(self) -> Path:
        """Where it keeps what it knows."""
        return self.directory / "state"


class SlurmSubject(BatchSubject):
    """The cluster of the test process. Nobody else has jobs in it."""

    # Half a second each.
    many = 16

    def __init__(self, directory: Path, cluster: SlurmCluster) -> None:
        self._cluster = cluster
        super().__init__(directory)

    def open(self, programs: Path | None = None) -> BatchSystem:
        return SlurmBatch(PARTITION, config=self._cluster.config, programs=programs)

    def submit_without_answer(self, job: JobSpec) -> None:
        programs = self.directory / "programs"
        programs.mkdir()
        (programs / "sbatch").write_text('#!/bin/sh\n/usr/bin/sbatch "$@" > /dev/null\nexit 1\n')
        (programs / "sbatch").chmod(0o755)
        with pytest.raises(BatchUnavailableError):
            self.open(programs).submit(job)

    def hurry(self, job_id: str) -> None:
        self.wait(job_id, lambda status: status.phase is JobPhase.RUNNING)
        self._cluster.command("scontrol", "update", f"jobid={job_id.partition(':')[0]}", "EndTime=now")

    @contextmanager
    def outage(self) -> Iterator[None]:
        self._cluster.controller.stop()
        yield
        self._cluster.start_controller()

    @contextmanager
    def lose_worker(self, job_id: str) -> Iterator[None]:
        assert self.status(job_id)
        self._cluster.lose_node()
        yield
        self._cluster.start_node()

    def close(self) -> None:
        self._cluster.command("scancel", "--me")
        left = ("squeue", "--noheader", "--me")
        assert eventually(lambda: not self._cluster.command(*left), seconds=120)
        super().close()


class ArcSubject(BatchSubject):
    """The compute element of the test process. Others' jobs may be known there, but none runs."""

    # Two seconds each.
    many = 8
    short_seconds = 2

    def __init__(self, directory: Path, site: ArcSite) -> None:
        self._site = site
        super().__init__(directory)

    def open(self) -> BatchSystem:
        return self._site.open()

    def submit_without_answer(self, job: JobSpec) -> None:
        self.open().submit(job)  # by an engine that died when it had sent all that there is to send

    @contextmanager
    def outage(self) -> Iterator[None]:
        self._site.ce.stop_interface()
        yield
        self._site.ce.start_interface()

    @contextmanager
    def lose_worker(self, job_id: str) -> Iterator[None]:
        for process in self._site.processes(job_id):
            os.kill(process, signal.SIGKILL)
        yield

    def close(self) -> None:
        self._site.end_jobs()
        super().close()


def make_subject(kind: str, directory: Path, fixture: Callable[[str], Any]) -> BatchSubject:
    """The batch system of that name, without jobs; `fixture` gives the servers of the test process, by name."""
    if kind == "slurm":
        return SlurmSubject(directory, fixture("slurm"))
    if kind == "arc":
        return ArcSubject(directory, fixture("arc"))
    return {"memory": MemorySubject, "local": LocalSubject}[kind](directory)
