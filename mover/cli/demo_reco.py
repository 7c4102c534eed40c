"""The second half of `mover demo`: the run is reconstructed and simulated, and the outputs proven and kept."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console

from mover.catalogue.database import Database
from mover.catalogue.jobs import JobRecord, jobs_of
from mover.catalogue.replicas import replicas_of_bundle
from mover.catalogue.runs import get_bundle
from mover.cli.tables import table
from mover.config import Config
from mover.errors import JobFailedError, NotSafeError, SandboxError
from mover.model import EndpointKind
from mover.ports import StorageEndpoint
from mover.sandbox.process import ServerProcess
from mover.sandbox.reconstruction import has_started, reco_agent
from mover.sandbox.site import ControlRoom
from mover.states import JobState
from mover.steps.standing import standing

_LOOK_SECONDS = 0.1
_LOG_LINES = 15
_START_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class DemoReco:
    """The reco agent at work, in a process of its own."""

    agent: ServerProcess
    config: Config
    say: Console

    def wait_until_kept(self, database: Database, run: int, *, deadline_seconds: float) -> None:
        """Return when every job of the run is proven, and its output is where the policy wants it.

        Raises:
            JobFailedError: a job needs a person.
            NotSafeError: it is not so when the deadline has passed.
            SandboxError: the agent has ended.
        """
        deadline = time.monotonic() + deadline_seconds
        said: dict[int, JobState] = {}
        while not self._is_kept(jobs := jobs_of(database, run), database):
            for job in jobs:
                if said.get(job.id) is not job.state:
                    self.say.print(f"{job.key}: {job.state}")
                    said[job.id] = job.state
                if job.state is JobState.QUARANTINED:
                    raise JobFailedError(job.problem or f"{job.key} needs a person", hint=job.hint or "see its logs")
            if not self.agent.running:
                tail = "\n".join(self.agent.logged().splitlines()[-_LOG_LINES:])
                raise SandboxError(f"the reco agent has ended; its log ends with:\n{tail}", hint="see the log's end")
            if time.monotonic() > deadline:
                waits = "; ".join(f"{job.key} is {job.state}" for job in jobs) or "no job is wanted"
                raise NotSafeError(
                    f"run {run} is not reconstructed after {deadline_seconds:.0f} s: {waits}",
                    hint="give it more time with --deadline, or look at the machine's load",
                )
            time.sleep(_LOOK_SECONDS)

    def _is_kept(self, jobs: list[JobRecord], database: Database) -> bool:
        reco = self.config.reco
        return reco is not None and len(jobs) == len(reco.kinds) and all(self._one(job, database) for job in jobs)

    def _one(self, job: JobRecord, database: Database) -> bool:
        policy = self.config.policy_of(job.key.kind)
        if job.state is not JobState.PROVEN or job.bundle_id is None or policy is None:
            return False
        return standing(database, self.config, get_bundle(database, job.bundle_id), policy).holds

    def show(self, out: Console, database: Database, run: int, endpoints: Mapping[str, StorageEndpoint]) -> None:
        """The table of what was made, and where it is by the storage's own word."""
        rows = []
        for job in jobs_of(database, run):
            bundle = get_bundle(database, job.bundle_id or 0)
            trees = json.loads(job.proof or "{}").get("trees", [])
            entries = "\n".join(f"{one['tree']}: {one['entries']}" for one in trees)
            names = [one.endpoint for one in replicas_of_bundle(database, bundle.id)]
            where = "\n".join(self._place(endpoints[name], bundle.lfn) for name in names)
            rows.append((str(run), job.key.kind, job.key.release, job.state, bundle.lfn, entries, where))
        out.print(table(("run", "kind", "release", "state", "output", "entries", "where"), rows))

    def _place(self, endpoint: StorageEndpoint, lfn: str) -> str:
        if endpoint.stat(lfn) is None:
            return f"{endpoint.name}: it is gone"
        tape = self.config.places[endpoint.name].kind is EndpointKind.TAPE
        return f"{endpoint.name}: on tape" if tape and endpoint.on_tape(lfn) else endpoint.name


@contextmanager
def reconstructing(room: ControlRoom, config: Config, say: Console) -> Iterator[DemoReco]:
    """The reco agent in the block. With it end the jobs that it runs here.

    Raises:
        SandboxError: it did not start.
    """
    agent = reco_agent(room.config_path)
    try:
        agent.start(has_started, seconds=_START_SECONDS)
        yield DemoReco(agent, config, say)
    finally:
        agent.stop()
