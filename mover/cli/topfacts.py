"""What `mover top` shows: the facts of one moment."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from mover.agentstate import AgentState
from mover.alarms.alarm import Alarm
from mover.alarms.find import find_alarms
from mover.catalogue.campaignprogress import CampaignProgress, progress_of
from mover.catalogue.campaigns import Campaign, list_campaigns
from mover.catalogue.database import Database
from mover.catalogue.endpoints import EndpointHealth, sick_endpoints
from mover.catalogue.jobs import count_jobs
from mover.catalogue.owner import host_of, is_dead
from mover.catalogue.recent import proven_bytes
from mover.config import Config
from mover.errors import RunDirectoryError
from mover.model import BundleKind, EndpointKind
from mover.states import CampaignState, JobState, ReplicaState, RunState
from mover.steps.retention import fill_percent

#: The time over which a rate is told.
RATE_OVER = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class EndpointFacts:
    """An endpoint: whether it is left alone, replicas that wait for something, and what was proven of late."""

    name: str
    kind: EndpointKind
    sick: EndpointHealth | None
    waiting: int
    waiting_bytes: int
    for_tape: int
    quarantined: int
    proven_bytes: int

    @property
    def bytes_per_second(self) -> float:
        """The rate of what was proven of late."""
        return self.proven_bytes / RATE_OVER.total_seconds()


@dataclass(frozen=True, slots=True)
class Work:
    """A replica that an engine has claimed, the state that it is in, and the machine of that engine."""

    run: int
    kind: BundleKind
    endpoint: str
    state: ReplicaState
    size_bytes: int
    host: str


@dataclass(frozen=True, slots=True)
class Facts:
    """All of it. `fill_percent` and `free_bytes` are the run directory's disk's; None: it cannot be looked at."""

    at: datetime
    experiment: str
    runs: dict[RunState, int]
    work: tuple[Work, ...]
    endpoints: tuple[EndpointFacts, ...]
    jobs: dict[JobState, int]
    campaigns: tuple[tuple[Campaign, CampaignProgress], ...]
    agents: tuple[AgentState, ...]
    alarms: tuple[Alarm, ...]
    fill_percent: float | None
    free_bytes: int | None


def look(database: Database, config: Config, *, now: datetime, agents: tuple[AgentState, ...]) -> Facts:
    """What is so now.

    Raises:
        CatalogueError: the catalogue cannot be read.
    """
    filled, free = _disk(config)
    rows = database.query("SELECT state, count(*) AS number FROM run GROUP BY state")
    running = [one for one in list_campaigns(database) if one.state is CampaignState.RUNNING]
    return Facts(
        at=now,
        experiment=config.experiment,
        runs={RunState(row["state"]): row["number"] for row in rows},
        work=tuple(_work(database, now)),
        endpoints=tuple(_endpoints(database, config, now)),
        jobs=count_jobs(database),
        campaigns=tuple((one, progress_of(database, one, now=now)) for one in running),
        agents=agents,
        alarms=find_alarms(database, config, now=now, agents=agents, fill_percent=filled),
        fill_percent=filled,
        free_bytes=free,
    )


def _disk(config: Config) -> tuple[float | None, int | None]:
    try:
        found = os.statvfs(config.runs.directory)
        return fill_percent(config.runs.directory), found.f_bavail * found.f_frsize
    except (OSError, RunDirectoryError):
        # It is an alarm.
        return None, None


def _work(database: Database, now: datetime) -> Iterator[Work]:
    rows = database.query(
        "SELECT bundle.run, bundle.kind, bundle.size_bytes, replica.endpoint, replica.state, claim.owner FROM claim "
        "JOIN replica ON replica.id = claim.replica_id JOIN bundle ON bundle.id = replica.bundle_id "
        "WHERE claim.owner NOTNULL AND claim.lease_until >= ? ORDER BY bundle.run, bundle.id, replica.id",
        now.isoformat(),
    )
    for row in rows:
        if not is_dead(row["owner"]):
            yield Work(
                row["run"],
                BundleKind(row["kind"]),
                row["endpoint"],
                ReplicaState(row["state"]),
                row["size_bytes"],
                host_of(row["owner"]),
            )


def _endpoints(database: Database, config: Config, now: datetime) -> Iterator[EndpointFacts]:
    sick, proven = sick_endpoints(database), proven_bytes(database, since=now - RATE_OVER)
    for place in config.endpoint:
        found = {state: _count(database, place.name, state) for state in _OPEN}
        waiting = [found[state] for state in (ReplicaState.WANTED, ReplicaState.COPIED)]
        tape = place.kind is EndpointKind.TAPE
        yield EndpointFacts(
            name=place.name,
            kind=place.kind,
            sick=sick.get(place.name),
            waiting=sum(number for number, _ in waiting),
            waiting_bytes=sum(size for _, size in waiting),
            for_tape=_count(database, place.name, ReplicaState.VERIFIED)[0] if tape else 0,
            quarantined=found[ReplicaState.QUARANTINED][0],
            proven_bytes=proven.get(place.name, 0),
        )


_OPEN = (ReplicaState.WANTED, ReplicaState.COPIED, ReplicaState.QUARANTINED)


def _count(database: Database, endpoint: str, state: ReplicaState) -> tuple[int, int]:
    """How many replicas there are, and their bytes."""
    (row,) = database.query(
        "SELECT count(*) AS number, coalesce(sum(bundle.size_bytes), 0) AS bytes FROM replica "
        "JOIN bundle ON bundle.id = replica.bundle_id WHERE replica.endpoint = ? AND replica.state = ?",
        endpoint,
        state,
    )
    return row["number"], row["bytes"]
