"""What an audit says of a bundle as a whole, once every endpoint was asked."""

from collections.abc import Iterable
from datetime import datetime

from mover.catalogue.audits import Audit, BundleResult, Outcome, bundle_result, conclude_bundle, worst
from mover.catalogue.database import Database
from mover.config import Config
from mover.policy import Assessment, Policy, ProvenReplica, assess
from mover.steps.standing import final_state


def conclude(database: Database, config: Config, audit: Audit, bundle_id: int, *, now: datetime) -> None:
    """Hold what was found against the policy, and write it down with its custody record."""
    result = bundle_result(database, audit, bundle_id)
    policy = config.policy_of(result.kind) if audit.whole else None
    outcome = worst(one.outcome for one in result.replicas)
    text = None
    if policy is not None:
        assessment = _assess(policy, config, result, {Outcome.GOOD})
        text = str(assessment)
        if not assessment.holds:
            possible = _assess(policy, config, result, {Outcome.GOOD, Outcome.NOT_KNOWN})
            outcome = worst([outcome, Outcome.NOT_KNOWN if possible.holds else Outcome.WRONG])
    conclude_bundle(database, audit, result, outcome, text, now=now)


def _assess(policy: Policy, config: Config, result: BundleResult, counting: Iterable[Outcome]) -> Assessment:
    places = (config.places[one.endpoint] for one in result.replicas if one.outcome in counting)
    return assess(policy, [ProvenReplica(one.name, one.kind, one.site, final_state(one.kind)) for one in places])
