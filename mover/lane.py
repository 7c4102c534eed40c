"""A lane works the replicas of one endpoint, one after the other: claim → step → commit.

An endpoint has a lane for each of its parallel streams; one that is sick holds up only its own.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial

from mover.breaker import Admission, Breaker
from mover.catalogue.database import Database
from mover.catalogue.endpoints import record_sick, record_well
from mover.catalogue.owner import this_process
from mover.catalogue.replicas import (
    Claim,
    ClaimOrder,
    claim_next,
    get_replica,
    record_event,
    record_failure,
    release_claim,
    renew_claim,
)
from mover.catalogue.runs import BundleRecord, get_bundle
from mover.config import Config, EndpointConfig
from mover.errors import (
    CatalogueError,
    EndpointUnavailableError,
    LeaseLostError,
    MoverError,
    NotOnlineError,
    StateError,
    StoppedError,
    StorageError,
    UnexpectedError,
    VerificationError,
)
from mover.model import BundleKind, EndpointKind
from mover.pace import Pace
from mover.ports import Clock, StorageEndpoint
from mover.states import ReplicaEvent, ReplicaState
from mover.steps.archive import archive
from mover.steps.lease import needed_lease
from mover.steps.transfer import transfer
from mover.steps.verify import verify
from mover.steps.work import Work

log = logging.getLogger("mover")

#: One turn in so many goes to what is due longest, whatever else there is.
_TURNS = 4

Endpoints = Mapping[str, StorageEndpoint]
OpenEndpoints = Callable[[], Endpoints]


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
    """What all lanes of an engine share.

    `open_endpoints` makes adapters, for one thread, of all configured endpoints: a replica may be made from another.
    `wake` tells the engine that something was proven or failed. Bundles of other `kinds` are left alone.
    """

    config: Config
    open_endpoints: OpenEndpoints
    clock: Clock
    stop: threading.Event
    wake: threading.Event
    observe: Callable[[Progress], None]
    kinds: frozenset[BundleKind] = frozenset(BundleKind)


class Gate:
    """What the lanes of one endpoint share."""

    def __init__(self, config: Config, place: EndpointConfig) -> None:
        self.place = place
        self.breaker = Breaker(config.engine)
        self.pace = Pace(place.limit_bytes_per_second)
        #: Held from a change of the breaker until the catalogue is told, so that what is told last is what is true.
        self.telling = threading.Lock()


class Lane:
    """Works one endpoint until `stop` is set. `failure` is why it ended before that."""

    def __init__(self, gate: Gate, around: Surroundings) -> None:
        place = gate.place
        self.name = place.name
        self.failure: BaseException | None = None
        self._gate = gate
        self._place = place
        self._around = around
        self._turn = 0
        states = [ReplicaState.WANTED, ReplicaState.COPIED]
        self._states = [*states, ReplicaState.VERIFIED] if place.kind is EndpointKind.TAPE else states

    def run(self) -> None:
        """Work until the engine stops. A catalogue that fails stops the engine."""
        idle_seconds = min(self._around.config.runs.poll_seconds, self._place.archive_poll_seconds)
        try:
            with ExitStack() as stack:
                database = stack.enter_context(closing(Database(self._around.config.catalogue)))
                endpoints = self._around.open_endpoints()
                for endpoint in endpoints.values():
                    stack.callback(endpoint.close)
                while not self._around.stop.is_set():
                    if not self.work_once(database, endpoints):
                        self._around.stop.wait(idle_seconds)
        except BaseException as error:  # the engine raises it again when all lanes have ended
            self.failure = error
        finally:
            self._around.stop.set()
            self._around.wake.set()

    def work_once(self, database: Database, endpoints: Endpoints) -> bool:
        """Claim one piece of work that is due, and do it; False if none is, or the endpoint is left alone.

        Raises:
            CatalogueError: the catalogue fails.
        """
        admitted = self._gate.breaker.admit(self._around.clock.now())
        if admitted is None:
            return False
        told = False
        try:
            claim = self._claim(database, admitted)
            if claim is None:
                return False
            try:
                told = self._try_step(database, claim, endpoints, admitted)
            except (LeaseLostError, StoppedError) as error:
                log.info("%s: %s", claim, error.message)
            finally:
                release_claim(database, claim)
                self._around.wake.set()
        finally:
            if not told:
                self._gate.breaker.unused(admitted)
        return True

    def _claim(self, database: Database, admitted: Admission) -> Claim | None:
        engine = self._around.config.engine
        self._turn = (self._turn + 1) % _TURNS
        order = ClaimOrder.LONGEST_DUE if self._turn == 0 else ClaimOrder(engine.order)
        if admitted is Admission.PROBE:
            # So that one file that the endpoint cannot serve does not stand for all of it.
            order = ClaimOrder.PROBE
        return claim_next(
            database,
            self.name,
            self._states,
            owner=this_process(),
            lease=timedelta(seconds=engine.lease_seconds),
            now=self._around.clock.now(),
            farthest=timedelta(seconds=2 * max(engine.longest_retry_seconds, self._place.archive_poll_seconds)),
            order=order,
            kinds=self._around.kinds,
        )

    def _try_step(self, database: Database, claim: Claim, endpoints: Endpoints, admitted: Admission) -> bool:
        """Whether the breaker was told how it went: not every failure says something of the endpoint."""
        try:
            self._step(database, claim, endpoints)
        except StateError as error:
            self._schedule(database, claim, error)
            return False
        except (CatalogueError, StoppedError):
            raise
        except EndpointUnavailableError as error:
            self._schedule(database, claim, error)
            self._failed(database, error, admitted)
            return True
        except MoverError as error:
            self._schedule(database, claim, error)
            if not isinstance(error, StorageError | VerificationError):
                return False
        except Exception as error:
            log.exception("%s", claim)
            self._schedule(database, claim, UnexpectedError(error))
            return False
        self._succeeded(database)
        return True

    def _failed(self, database: Database, error: MoverError, admitted: Admission) -> None:
        breaker, now = self._gate.breaker, self._around.clock.now()
        with self._gate.telling:
            if breaker.failed(now, admitted) and breaker.probe_at is not None:
                failures, probe_at = breaker.failures, breaker.probe_at
                record_sick(database, self.name, error, failures=failures, probe_at=probe_at, now=now)
                pause = (probe_at - now).total_seconds()
                log.warning("%s: failed %d times in a row, and is left alone for %.0f s", self.name, failures, pause)

    def _succeeded(self, database: Database) -> None:
        with self._gate.telling:
            if self._gate.breaker.succeeded():
                record_well(database, self.name)
                log.warning("%s: answers again", self.name)

    def _step(self, database: Database, claim: Claim, endpoints: Endpoints) -> None:
        replica = get_replica(database, claim.replica_id)
        bundle = get_bundle(database, replica.bundle_id)
        claim = self._with_patience(database, claim, bundle)
        begun = Progress(claim.run, self.name, replica.state, 0, bundle.size_bytes)
        work = Work(
            database=database,
            claim=claim,
            replica=replica,
            bundle=bundle,
            config=self._around.config,
            endpoints=endpoints,
            clock=self._around.clock,
            alive=_Alive(database, claim, self._around, begun),
            pace=partial(self._gate.pace.spend, stop=self._around.stop),
        )
        if replica.state is ReplicaState.WANTED:
            transfer(work)
        elif replica.state is ReplicaState.COPIED:
            verify(work)
        else:
            archive(work)
        after = get_replica(database, claim.replica_id).state
        if after is not replica.state:
            log.info("%s: %s", claim, after)
        self._around.observe(replace(begun, state=after, bytes_done=bundle.size_bytes))

    def _with_patience(self, database: Database, claim: Claim, bundle: BundleRecord) -> Claim:
        """The claim, with a lease that outlasts the longest call of any step: a checksum of a large bundle."""
        needed = needed_lease(self._place, bundle.size_bytes)
        if claim.lease >= needed:
            return claim
        claim = replace(claim, lease=needed)
        renew_claim(database, claim, now=self._around.clock.now())
        return claim

    def _schedule(self, database: Database, claim: Claim, error: MoverError) -> None:
        """The one place that decides whether and when to try again."""
        engine, now = self._around.config.engine, self._around.clock.now()
        replica = get_replica(database, claim.replica_id)
        hopeless = isinstance(error, VerificationError) and replica.rejections >= engine.rejections_before_quarantine
        if error.permanent or hopeless:
            record_event(database, claim, ReplicaEvent.GAVE_UP, now=now, problem=error)
            log.error("%s: quarantined: %s (%s)", claim, error.message, error.hint)
            return
        delay = min(engine.first_retry_seconds * 2 ** min(replica.failures, 20), engine.longest_retry_seconds)
        if isinstance(error, NotOnlineError):
            delay = self._place.archive_poll_seconds
        elif isinstance(error, EndpointUnavailableError):
            # The breaker knows how long to leave the endpoint alone; once it answers, all of it should be due soon.
            delay = min(delay, engine.longest_probe_seconds)
        record_failure(database, claim, error, next_attempt_at=now + timedelta(seconds=delay))
        log.warning("%s: %s (%s); again in %.0f s", claim, error.message, error.hint, delay)


class _Alive:
    """Called for every chunk: stops when asked to, renews the lease, shows progress."""

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
        # When a third of it is gone: an early renewal costs a commit, a late one the claim.
        if now - self._renewed > self._claim.lease / 3:
            renew_claim(self._database, self._claim, now=now)
            self._renewed = now
        self._around.observe(replace(self._begun, bytes_done=bytes_done))
