"""Which way a bundle's bytes take to an endpoint: from the local files, or from a replica that is proven already."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from mover.catalogue.database import Database
from mover.catalogue.endpoints import sick_endpoints
from mover.catalogue.replicas import ReplicaRecord, replicas_of_bundle
from mover.catalogue.runs import BundleRecord, get_run
from mover.config import Config, EndpointConfig
from mover.errors import NoSourceError
from mover.ports import Clock, StorageEndpoint
from mover.states import ReplicaState, RunState
from mover.steps.work import Work

#: How often a way is tried before the next one is.
_TRIES = 2
_PROVEN = {ReplicaState.VERIFIED, ReplicaState.ARCHIVED}
_COMING = {ReplicaState.WANTED, ReplicaState.COPIED}


@dataclass(frozen=True, slots=True)
class Local:
    """The bundle is made from the run's files, or is a file that is kept here, and is streamed."""


@dataclass(frozen=True, slots=True)
class ThirdParty:
    """The storage copies from the replica at `source` itself."""

    source: str


@dataclass(frozen=True, slots=True)
class Relay:
    """The replica at `source` is streamed through this machine."""

    source: str


@dataclass(frozen=True, slots=True)
class Wait:
    """There is nothing to do yet."""

    why: str


Route = Local | ThirdParty | Relay | Wait


@dataclass(frozen=True, slots=True)
class Wanted:
    """A replica that nobody has claimed, to see which way it would take: as much of `Work` as the choice needs."""

    database: Database
    config: Config
    endpoints: Mapping[str, StorageEndpoint]
    bundle: BundleRecord
    replica: ReplicaRecord
    clock: Clock

    @property
    def place(self) -> EndpointConfig:
        """The configuration of the endpoint where the replica is wanted."""
        return self.config.places[self.replica.endpoint]

    @property
    def endpoint(self) -> StorageEndpoint:
        """The adapter of that endpoint."""
        return self.endpoints[self.replica.endpoint]


def choose_route(work: Work | Wanted) -> Route:
    """The way for the next attempt: ways that failed give way to the next one, and their turn comes again.

    1. Where the policy wants third-party copies: from a proven replica, in the order of the policy. 2. If there is none
    yet, but one is on its way and its endpoint is well: wait for it, so that the control room's line carries each byte
    once. 3. The local files, as long as they are here. 4. Without them: from any proven replica.

    Raises:
        NoSourceError: the files are gone, and no proven replica is within reach.
    """
    local = files_are_here(work)
    sick = _sick(work)
    others = [one for one in _by_preference(work) if one.endpoint not in sick]
    proven = [one.endpoint for one in others if one.state in _PROVEN]
    direct: list[Route] = [ThirdParty(name) for name in proven if can_copy(work, name)]
    ways: list[Route] = []
    if work.place.source == "tpc":
        ways += direct
        if local and not direct and (coming := _coming(work, others)):
            return Wait(f"for a third-party copy from {coming}")
    if local:
        ways.append(Local())
    else:
        ways += [way for way in direct if way not in ways] + [Relay(name) for name in proven]
    if not ways:
        raise NoSourceError(
            f"run {work.bundle.run} has no local files any more, and no proven replica that can be read now",
            hint=f"`mover run show {work.bundle.run}` says where it is stored; it is tried again",
        )
    # A source may have changed since it was proven, and every copy of it would be rejected: then no second one.
    turn = work.replica.failed_copies // _TRIES + work.replica.rejections
    return ways[turn % len(ways)]


def files_are_here(work: Work | Wanted) -> bool:
    """Whether the bundle is to be made from local files: they are not released, and none is missing.

    A release that is under way, or was cut short, and a person's `rm` take files away too. Before anything is stored
    that counts for nothing here: to read them says what is missing.
    """
    plan = work.bundle.plan
    if work.bundle.ready_made is not None:
        return work.bundle.ready_made.exists()
    if plan is None or get_run(work.database, work.bundle.run).state is RunState.RELEASED:
        return False
    if not any(one.state in _PROVEN for one in _by_preference(work)):
        return True
    directory = work.config.runs.directory
    return all((directory / part.name).exists() for part in plan.parts)


def can_copy(work: Work | Wanted, source: str) -> bool:
    """Whether the endpoint can copy from `source` by itself."""
    both = (work.config.places[source], work.place)
    shared = work.endpoint.capabilities.third_party_copy & work.endpoints[source].capabilities.third_party_copy
    return all(place.third_party_copy for place in both) and bool(shared)


def _sick(work: Work | Wanted) -> set[str]:
    """The endpoints to leave alone: those whose probe is overdue may have no work left that would find out."""
    overdue = timedelta(seconds=work.config.engine.longest_probe_seconds)
    now = work.clock.now()
    return {name for name, health in sick_endpoints(work.database).items() if now <= health.probe_at + overdue}


def _by_preference(work: Work | Wanted) -> list[ReplicaRecord]:
    """The bundle's replicas at other configured endpoints, in the order of the policy."""
    policy = work.config.policy_of(work.bundle.kind)
    order = policy.endpoints if policy else ()
    known = [
        one
        for one in replicas_of_bundle(work.database, work.bundle.id)
        if one.endpoint != work.replica.endpoint and one.endpoint in work.config.places
    ]
    return sorted(known, key=lambda one: order.index(one.endpoint) if one.endpoint in order else len(order))


def _coming(work: Work | Wanted, others: list[ReplicaRecord]) -> str | None:
    """An endpoint before ours in the order of the policy that will be a source soon; None if we have to go first."""
    policy = work.config.policy_of(work.bundle.kind)
    order = policy.endpoints if policy else ()
    before = order[: order.index(work.replica.endpoint)] if work.replica.endpoint in order else order
    for one in others:
        if one.endpoint in before and one.state in _COMING and one.failures == 0 and can_copy(work, one.endpoint):
            return one.endpoint
    return None
