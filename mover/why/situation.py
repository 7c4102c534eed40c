"""All that is known of a run at one moment, gathered from the catalogue and the configuration."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from mover.agentstate import AgentState
from mover.catalogue.campaigns import Campaign, get_campaign
from mover.catalogue.claims import HeldClaim, claims_of
from mover.catalogue.database import Database
from mover.catalogue.endpoints import EndpointHealth, sick_endpoints
from mover.catalogue.jobs import JobRecord, jobs_of, jobs_under_way
from mover.catalogue.owner import is_dead, is_of_this_machine
from mover.catalogue.replicas import ReplicaRecord, replicas_of_bundle
from mover.catalogue.runs import BundleRecord, RunRecord, bundles_of, find_run
from mover.catalogue.services import services_elsewhere, services_here
from mover.config import Config
from mover.model import BundleKind
from mover.steps.lease import overlong_claims

ENGINE, RECO_AGENT = "engine", "reco agent"


@dataclass(frozen=True, slots=True)
class Holder:
    """Who works on a replica or a job. `lives` is None where that cannot be known: on another machine."""

    host: str
    lives: bool | None
    lease_until: datetime


@dataclass(frozen=True, slots=True)
class Services:
    """The daemons that run here, those that go by another configuration than the file has now, and others elsewhere."""

    here: frozenset[str] = frozenset()
    outdated: frozenset[str] = frozenset()
    elsewhere: Mapping[str, str] | None = None
    """The machine on which each was started, by name."""


@dataclass(frozen=True, slots=True)
class Situation:
    """What is known of run `number`; `run` is None if it was never closed. Claims are by replica and job id.

    `overlong` are claims that last longer than any lease, in words. `fill_percent` is how full the run directory's disk
    is, `agents` what the credential agents say; None where nobody was asked.
    """

    number: int
    now: datetime
    config: Config
    run: RunRecord | None
    bundles: tuple[tuple[BundleRecord, tuple[ReplicaRecord, ...]], ...]
    jobs: tuple[JobRecord, ...]
    claims: Mapping[int, Holder]
    overlong: Mapping[int, str]
    job_claims: Mapping[int, Holder]
    sick: Mapping[str, EndpointHealth]
    campaigns: Mapping[int, Campaign]
    jobs_under_way: int
    services: Services
    agents: tuple[AgentState, ...] | None
    fill_percent: float | None

    @property
    def raw(self) -> tuple[BundleRecord, tuple[ReplicaRecord, ...]] | None:
        """The bundle of the run's raw data, with its replicas."""
        return next((one for one in self.bundles if one[0].kind is BundleKind.RAW), None)


def gather(
    database: Database,
    config: Config,
    number: int,
    *,
    now: datetime,
    agents: tuple[AgentState, ...] | None = None,
    fill_percent: float | None = None,
) -> Situation:
    """What is known of the run at this moment; neither the storage nor the run's files are looked at.

    Raises:
        CatalogueError: the catalogue cannot be read.
    """
    with database.snapshot():
        jobs = tuple(jobs_of(database, number))
        campaigns = {job.campaign_id for job in jobs if job.campaign_id is not None}
        return Situation(
            number=number,
            now=now,
            config=config,
            run=find_run(database, number),
            bundles=tuple((one, tuple(replicas_of_bundle(database, one.id))) for one in bundles_of(database, number)),
            jobs=jobs,
            claims={one.replica_id: _holder(one) for one in claims_of(database, number)},
            overlong={one.claim.replica_id: str(one) for one in overlong_claims(database, config, now=now)},
            job_claims={job.id: _job_holder(job) for job in jobs if job.is_claimed(now)},
            sick=sick_endpoints(database),
            campaigns={one: get_campaign(database, one) for one in campaigns},
            jobs_under_way=len(jobs_under_way(database)),
            services=_services(database, config),
            agents=agents,
            fill_percent=fill_percent,
        )


def _services(database: Database, config: Config) -> Services:
    digest, here = config.digest(), services_here(database)
    return Services(
        here=frozenset(one.name for one in here),
        outdated=frozenset(one.name for one in here if one.config != digest),
        elsewhere={one.name: one.owner.partition("/")[0] for one in services_elsewhere(database)},
    )


def _holder(claim: HeldClaim) -> Holder:
    return Holder(claim.host, _lives(claim.owner), claim.lease_until)


def _job_holder(job: JobRecord) -> Holder:
    owner = job.owner or ""
    return Holder(owner.partition("/")[0], _lives(owner), datetime.fromisoformat(job.lease_until))


def _lives(owner: str) -> bool | None:
    return not is_dead(owner) if is_of_this_machine(owner) else None
