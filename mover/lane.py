"""A lane works the replicas of one endpoint, one after the other: claim → step → commit.

One sick endpoint holds up only its own lane.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta

from mover.catalogue.database import Database
from mover.catalogue.owner import this_process
from mover.catalogue.replicas import (
    Claim,
    claim_next,
    get_replica,
    record_event,
    record_failure,
    release_claim,
    renew_claim,
)
from mover.catalogue.runs import get_bundle
from mover.config import Config, EndpointConfig
from mover.errors import (
    CatalogueError,
    LeaseLostError,
    MoverError,
    StateError,
    StoppedError,
    UnexpectedError,
    VerificationError,
)
from mover.model import EndpointKind
from mover.ports import Clock, StorageEndpoint
from mover.states import ReplicaEvent, ReplicaState
from mover.steps.archive import archive
from mover.steps.transfer import transfer
from mover.steps.verify import verify
from mover.steps.work import Work

log = logging.getLogger("mover")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a lane has come with a replica, for people: nothing depends on it."""

    run: int
    endpoint: str
    state: ReplicaState
    bytes_done: int
    bytes_total: int


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all lanes of an engine share. `wake` tells the engine that something was proven or failed."""

    config: Config
    clock: Clock
    stop: threading.Event
    wake: threading.Event
    observe: Callable[[Progress], None]


class Lane:
    """Works one endpoint until `stop` is set. `failure` is why it ended before that."""

    def __init__(self, place: EndpointConfig, endpoint: StorageEndpoint, around: Surroundings) -> None:
        self.name = place.name
        self.failure: BaseException | None = None
        self._place = place
        self._endpoint = endpoint
        self._around = around
        states = [ReplicaState.WANTED, ReplicaState.COPIED]
        self._states = [*states, ReplicaState.VERIFIED] if place.kind is EndpointKind.TAPE else states

    def run(self) -> None:
        """Work until the engine stops. A catalogue that fails stops the engine."""
        idle_seconds = min(self._around.config.runs.poll_seconds, self._place.archive_poll_seconds)
        try:
            database = Database(self._around.config.catalogue)
            try:
                while not self._around.stop.is_set():
                    if not self._work_next(database):
                        self._around.stop.wait(idle_seconds)
            finally:
                database.close()
        except BaseException as error:  # the engine raises it again when all lanes have ended
            self.failure = error
        finally:
            self._around.stop.set()
            self._around.wake.set()

    def _work_next(self, database: Database) -> bool:
        engine = self._around.config.engine
        lease = timedelta(seconds=engine.lease_seconds)
        farthest = timedelta(seconds=2 * max(engine.longest_retry_seconds, self._place.archive_poll_seconds))
        now = self._around.clock.now()
        claim = claim_next(
            database, self.name, self._states, owner=this_process(), lease=lease, now=now, farthest=farthest
        )
        if claim is None:
            return False
        try:
            self._try_step(database, claim)
        except (LeaseLostError, StoppedError) as error:
            log.info("run %d at %s: %s", claim.run, self.name, error.message)
        finally:
            release_claim(database, claim)
            self._around.wake.set()
        return True

    def _try_step(self, database: Database, claim: Claim) -> None:
        try:
            self._step(database, claim)
        except StateError as error:
            self._schedule(database, claim, error)
        except (CatalogueError, StoppedError):
            raise
        except MoverError as error:
            self._schedule(database, claim, error)
        except Exception as error:
            log.exception("run %d at %s", claim.run, self.name)
            self._schedule(database, claim, UnexpectedError(error))

    def _step(self, database: Database, claim: Claim) -> None:
        replica = get_replica(database, claim.replica_id)
        bundle = get_bundle(database, replica.bundle_id)
        begun = Progress(claim.run, self.name, replica.state, 0, bundle.size_bytes)
        work = Work(
            database=database,
            claim=claim,
            replica=replica,
            bundle=bundle,
            endpoint=self._endpoint,
            run_directory=self._around.config.runs.directory,
            clock=self._around.clock,
            alive=_Alive(database, claim, self._around, begun),
        )
        if replica.state is ReplicaState.WANTED:
            transfer(work)
        elif replica.state is ReplicaState.COPIED:
            verify(work)
        else:
            archive(work, poll=timedelta(seconds=self._place.archive_poll_seconds))
        after = get_replica(database, claim.replica_id).state
        if after is not replica.state:
            log.info("run %d at %s: %s", claim.run, self.name, after)
        self._around.observe(replace(begun, state=after, bytes_done=bundle.size_bytes))

    def _schedule(self, database: Database, claim: Claim, error: MoverError) -> None:
        """The one place that decides whether and when to try again."""
        engine, now = self._around.config.engine, self._around.clock.now()
        replica = get_replica(database, claim.replica_id)
        hopeless = isinstance(error, VerificationError) and replica.rejections >= engine.rejections_before_quarantine
        if error.permanent or hopeless:
            record_event(database, claim, ReplicaEvent.GAVE_UP, now=now, problem=error)
            log.error("run %d at %s: quarantined: %s (%s)", claim.run, self.name, error.message, error.hint)
            return
        delay = min(engine.first_retry_seconds * 2 ** min(replica.failures, 20), engine.longest_retry_seconds)
        record_failure(database, claim, error, next_attempt_at=now + timedelta(seconds=delay))
        log.warning("run %d at %s: %s (%s); again in %.0f s", claim.run, self.name, error.message, error.hint, delay)


class _Alive:
    """Called for every chunk: stops when asked to, renews the lease when a third of it is gone, shows progress."""

    def __init__(self, database: Database, claim: Claim, around: Surroundings, begun: Progress) -> None:
        self._claim = claim
        self._database = database
        self._around = around
        self._begun = begun
        self._renewed = around.clock.now()

    def __call__(self, bytes_done: int) -> None:
        if self._around.stop.is_set():
            raise StoppedError("interrupted, to be taken up again", hint="start the engine again")
        now = self._around.clock.now()
        if now - self._renewed > self._claim.lease / 3:
            renew_claim(self._database, self._claim, now=now)
            self._renewed = now
        self._around.observe(replace(self._begun, bytes_done=bytes_done))
