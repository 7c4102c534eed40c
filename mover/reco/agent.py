"""The reco agent: wants jobs for runs whose raw data has come, has workers do them, and moves their outputs.

It is a service of its own, with a credential of its own; the engine moves raw data, the agent what jobs make of it.
Everything that matters is in the catalogue and in the batch system, so the agent may die anywhere.
"""

import logging
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta

from mover.catalogue.campaigns import settle_campaigns
from mover.catalogue.database import Database
from mover.catalogue.jobs import JobRecord, find_job, free_dead_job_claims, jobs_to_end, jobs_under_way
from mover.catalogue.outputs import forget_ready_made, job_of_bundle, kept_outputs
from mover.catalogue.replicas import free_dead_claims
from mover.catalogue.services import record_service
from mover.config import Config
from mover.configwatch import ConfigWatch
from mover.errors import CatalogueError, ConfigError, MoverError
from mover.lane import Gate, Lane, OpenEndpoints, Surroundings
from mover.model import BundleKind
from mover.ports import BatchSystem, Clock
from mover.reco.alone import alone
from mover.reco.finder import Finder
from mover.reco.recaller import Recaller
from mover.reco.recalls import Recalls
from mover.reco.releases import Releases
from mover.reco.scratch import lay_out, remove
from mover.reco.sharedbatch import SharedBatch
from mover.reco.threads import AgentThread, RecoSurroundings
from mover.reco.tidy import tidy_up
from mover.reco.wants import want_new_jobs
from mover.reco.watch import Watch
from mover.reco.work import attempt_name
from mover.reco.worker import Worker
from mover.states import JobState
from mover.steps.standing import standing

log = logging.getLogger("mover")

_KINDS = frozenset({BundleKind.RECO, BundleKind.MC})
_SETTLED = {JobState.PROVEN, JobState.CANCELLED}


class RecoAgent:
    """Works a catalogue until it is asked to stop.

    Args:
        open_endpoints: makes an adapter for each configured endpoint, under the reco credential, for one thread.
        batch: used by one thread at a time; closed at the end.
        read_config: reads the configuration file anew, to see whether the policy is still what it was.
    """

    def __init__(
        self,
        config: Config,
        open_endpoints: OpenEndpoints,
        batch: BatchSystem,
        releases: Releases,
        clock: Clock,
        *,
        read_config: Callable[[], Config] | None = None,
    ) -> None:
        if config.reco is None:
            raise ConfigError("there is no [reco] in the configuration", hint="docs/reco.md says what goes there")
        self._config = config
        self._reco = config.reco
        self._clock = clock
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._trouble = ""
        self._releases = releases
        self._config_watch = ConfigWatch(
            config, read_config, daemon="reco agent", stopped="no output's local file is let go of"
        )
        lay_out(self._reco.scratch)
        self._batch = batch = SharedBatch(batch)
        self._watch = Watch(self._reco, batch, clock)
        around = RecoSurroundings(
            config, self._reco, open_endpoints, batch, releases, clock, self._stop, self._wake, Recalls()
        )
        lanes = Surroundings(config, open_endpoints, clock, self._stop, self._wake, lambda _: None, _KINDS)
        gates = [Gate(config, place) for place in config.endpoint]
        self.workers: list[AgentThread | Lane] = []
        self.workers += [Worker(f"worker {number + 1}", around) for number in range(self._reco.workers)]
        self.workers += [Recaller(around)]
        if self._reco.find_new_seconds is not None:
            self.workers += [Finder(around, timedelta(seconds=self._reco.find_new_seconds))]
        self.workers += [Lane(gate, lanes) for gate in gates]

    def run(self) -> None:
        """Work until `stop`. Every thread has ended when this returns.

        Raises:
            MoverError: another agent works here; or the catalogue cannot be opened or written: the agent has stopped.
        """
        with (
            closing(self._batch),
            closing(Database(self._config.catalogue, create=True)) as database,
            alone(self._config.catalogue, self._reco.scratch),
        ):
            self._run(database)
        for worker in self.workers:
            if worker.failure is not None:
                raise worker.failure

    def _run(self, database: Database) -> None:
        threads = [threading.Thread(target=worker.run, name=worker.name) for worker in self.workers]
        try:
            record_service(database, "reco agent", self._config.digest(), now=self._clock.now())
            for thread in threads:
                thread.start()
            while not self._stop.is_set():
                self.look_around(database)
                self._wake.wait(self._reco.poll_seconds)
                self._wake.clear()
        finally:
            self.stop()
            for thread in threads:
                if thread.ident is not None:
                    thread.join()

    def stop(self) -> None:
        """Ask every thread to stop at the next safe moment; from any thread, but not from a signal handler."""
        self._stop.set()
        self._wake.set()

    def look_around(self, database: Database) -> None:
        """Want jobs, ask the batch system, have it forget what is over, and let go of outputs that are safe.

        Raises:
            CatalogueError: the catalogue fails.
        """
        free_dead_claims(database)
        free_dead_job_claims(database)
        try:
            for key in want_new_jobs(database, self._reco, self._releases, now=self._clock.now()):
                log.info("%s: wanted", key)
            self._say("")
        except CatalogueError:
            raise
        except MoverError as error:
            self._say(f"no jobs are wanted: {error.message} ({error.hint})")
        self._watch.look(database)
        tidy_up(database, self._batch, now=self._clock.now())
        for campaign in settle_campaigns(database, now=self._clock.now()):
            log.info("campaign %d is %s", campaign.id, campaign.state)
        self._let_go(database)
        self._sweep(database)

    def _let_go(self, database: Database) -> None:
        """Forget the ready-made files of outputs that are proven and safe, or that a person has given up."""
        for bundle in kept_outputs(database):
            if bundle.ready_made is not None and not bundle.ready_made.exists():
                log.error("%s: the output that was kept is gone: %s", bundle.lfn, bundle.ready_made)
                forget_ready_made(database, bundle)
                continue
            job = job_of_bundle(database, bundle.id)
            policy = self._config.policy_of(bundle.kind)
            if job.state not in _SETTLED or policy is None:
                continue
            if job.state is JobState.CANCELLED or (
                standing(database, self._config, bundle, policy).holds and not self._config_watch.is_outdated()
            ):
                forget_ready_made(database, bundle)

    def _sweep(self, database: Database) -> None:
        """Remove the directories of attempts of which nothing is needed any more."""
        folders = list((self._reco.scratch / "jobs").iterdir())
        # Of one moment, and a later one than the list: a job that goes on meanwhile is seen before or after its step.
        with database.snapshot():
            needed = {one.ready_made.parent.name for one in kept_outputs(database) if one.ready_made}
            needed |= {_attempt(job) for job in (*jobs_under_way(database), *jobs_to_end(database))}
        for folder in folders:
            # What a wanted job may begin to use at any moment is emptied by whoever begins.
            if folder.name not in needed and not _is_next(database, folder.name):
                remove(folder)

    def _say(self, trouble: str) -> None:
        """Log the trouble once when it begins, and once when it ends."""
        if trouble != self._trouble:
            log.warning("%s", trouble or "jobs are wanted again")
            self._trouble = trouble


def _is_next(database: Database, name: str) -> bool:
    """Whether it is the name of the next attempt of a job that is wanted."""
    number = name.split("-")[2:3]
    job = find_job(database, int(number[0])) if number and number[0].isdecimal() else None
    return job is not None and job.state is JobState.WANTED and attempt_name(job) == name


def _attempt(job: JobRecord) -> str:
    """The attempt whose directory is in use."""
    return job.name or "" if job.lives or job.state is JobState.SUBMITTED else attempt_name(job)
