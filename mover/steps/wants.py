"""What the replica policy wants now and did not want when a bundle was made: the backlog of a later policy."""

from dataclasses import dataclass
from datetime import datetime

from mover.catalogue.database import Database
from mover.catalogue.outputs import unproven_outputs
from mover.catalogue.replicas import replicas_of_bundle, want_replicas
from mover.catalogue.runs import BundleRecord, get_run, list_bundles, record_run_event
from mover.config import Config
from mover.model import BundleKind
from mover.states import RunEvent, RunState
from mover.steps.standing import standing


@dataclass(frozen=True, slots=True)
class NewWants:
    """A bundle, and the endpoints that it shall go to beside those where it is known."""

    bundle: BundleRecord
    endpoints: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PolicyPlan:
    """What applying the policy changes: new replicas, and runs that were safe by an earlier policy but are not now."""

    wants: tuple[NewWants, ...]
    unsafe: tuple[int, ...]


def plan_policy(database: Database, config: Config) -> PolicyPlan:
    """Hold what is known against the policy. Nothing is changed, and nothing is wanted less: stored files stay.

    A job's output goes nowhere else before it is proven.
    """
    wants, unsafe = [], []
    unproven = unproven_outputs(database)
    for bundle in list_bundles(database):
        policy = config.policy_of(bundle.kind)
        if policy is None or bundle.id in unproven:
            continue
        known = {replica.endpoint for replica in replicas_of_bundle(database, bundle.id)}
        if missing := tuple(name for name in policy.endpoints if name not in known):
            wants.append(NewWants(bundle, missing))
        safe = bundle.kind is BundleKind.RAW and get_run(database, bundle.run).state is RunState.SAFE
        if safe and not standing(database, config, bundle, policy).holds:
            unsafe.append(bundle.run)
    return PolicyPlan(tuple(wants), tuple(unsafe))


def apply_policy(database: Database, plan: PolicyPlan, *, now: datetime) -> None:
    """Want what the plan wants, as backlog. A run that is not safe by the policy waits for it again.

    Raises:
        CatalogueError: it cannot be written.
    """
    for want in plan.wants:
        want_replicas(database, want.bundle.id, want.bundle.run, want.bundle.lfn, want.endpoints, now=now)
    for run in plan.unsafe:
        if get_run(database, run).state is RunState.SAFE:
            record_run_event(database, run, RunEvent.POLICY_CHANGED, now=now)
