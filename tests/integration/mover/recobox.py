"""A control room whose runs are reconstructed: processes `mover engine` and `mover reco agent`, each with its robot."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mover.catalogue.jobs import JobRecord, jobs_of
from mover.sandbox.process import ServerProcess
from mover.sandbox.reconstruction import has_started, reco_agent
from mover.sandbox.software import ReferenceSoftware
from mover.states import JobState
from tests.integration.mover.box import Box, wait_for

RELEASE = "reference-1.0"
START_SECONDS = 120.0
SETTLED = {JobState.PROVEN, JobState.QUARANTINED}


@dataclass(frozen=True, slots=True)
class RecoBox(Box):
    """A control room with the reference application."""

    software: ReferenceSoftware
    #: Where jobs run, if not in the scratch area: in a folder of the batch system's own id of each.
    sessions: Path | None = None

    @contextmanager
    def reco_agent(self) -> Iterator[ServerProcess]:
        """The agent in the block; with it end the jobs that it runs here."""
        agent = reco_agent(self.room.config_path)
        agent.start(has_started, seconds=START_SECONDS)
        try:
            yield agent
        finally:
            agent.stop()

    @property
    def reco_log(self) -> str:
        """What the last agent has logged."""
        return (self.room.directory / "log/reco-agent.log").read_text(encoding="utf-8")

    def take(self, *runs: int) -> None:
        """Take small runs."""
        for run in runs:
            self.room.daq.write_run(run, parts=1, part_bytes=30_000)
            self.room.daq.end_run(run)

    def have_disk_filled_from_here(self) -> None:
        """Have raw data streamed to the disk from the local files: a third-party copy by root:// takes seconds."""
        config, disk = self.room.config_path, 'name = "brunel-disk"\n'
        config.write_text(config.read_text().replace(disk, f'{disk}source = "local"\n', 1))

    def jobs(self, run: int) -> list[JobRecord]:
        """The run's jobs, if the catalogue has any yet."""
        with self.catalogue() as database:
            return jobs_of(database, run)

    def wait_until(self, run: int, *states: JobState, jobs: int = 1) -> list[JobRecord]:
        """Wait until the run has that many jobs, and all of them are in one of the states."""
        wait_for(
            lambda: len(found := self.jobs(run)) == jobs and all(one.state in states for one in found),
            lambda: f"{self.jobs(run)}; {self.reco_log}",
            seconds=300,
        )
        return self.jobs(run)

    def work_directory(self, job: JobRecord) -> Path:
        """Where the job's latest attempt runs."""
        if self.sessions is not None:
            return self.sessions / str(job.batch_id)
        return self.room.scratch / "jobs" / str(job.name)

    def processes_of(self, job: JobRecord) -> list[tuple[int, str]]:
        """Those that work in the job's directory: pid, and command line."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                cwd = str((process / "cwd").readlink())
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if Path(cwd).is_relative_to(self.work_directory(job)):
                found.append((int(process.name), command))
        return found

    def wait_until_told(self, run: int, fault: str) -> None:
        """Wait until the experiment's own command for the run's first job has come to the fault that it was told."""

        def is_told() -> bool:
            logs = [self.work_directory(job) / "payload.log" for job in self.jobs(run)[:1]]
            return any(log.exists() and f"told to {fault}" in log.read_text() for log in logs)

        wait_for(is_told, lambda: f"{self.jobs(run)}; {self.reco_log}")

    def kill(self, run: int, what: str) -> None:
        """kill -9 the process of the run's first job whose command line has `what`."""
        (pid,) = (pid for pid, command in self.processes_of(self.jobs(run)[0]) if what in command)
        os.kill(pid, signal.SIGKILL)
