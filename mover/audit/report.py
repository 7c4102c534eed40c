"""What an audit found, for people and programs: the same facts for the terminal, as JSON and as a page."""

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

from mover.catalogue.audits import Audit, BundleResult, Outcome, ReplicaResult, bundle_results
from mover.catalogue.database import Database


@dataclass(frozen=True, slots=True)
class Report:
    """An audit and all that it has found so far. Bundles that are not concluded count as not known."""

    audit: Audit
    bundles: tuple[BundleResult, ...]

    @property
    def outcomes(self) -> Counter[Outcome]:
        """How many bundles there are of each outcome."""
        return Counter(outcome_of(one) for one in self.bundles)

    @property
    def by_endpoint(self) -> dict[str, Counter[Outcome]]:
        """How many replicas there are of each outcome, by endpoint."""
        found: dict[str, Counter[Outcome]] = {}
        for bundle in self.bundles:
            for one in bundle.replicas:
                found.setdefault(one.endpoint, Counter())[replica_outcome(one)] += 1
        return dict(sorted(found.items()))

    @property
    def read_bytes(self) -> int:
        """How much was read back."""
        return sum(one.read_bytes for bundle in self.bundles for one in bundle.replicas)

    @property
    def is_well(self) -> bool:
        """Whether everything that was chosen was asked and found good."""
        return self.audit.ended_at is not None and self.outcomes.keys() <= {Outcome.GOOD}

    @property
    def troubled(self) -> list[BundleResult]:
        """The bundles that are not good, the wrong ones first."""
        wrong = [one for one in self.bundles if outcome_of(one) is Outcome.WRONG]
        return wrong + [one for one in self.bundles if outcome_of(one) is Outcome.NOT_KNOWN]

    def __str__(self) -> str:
        """In one line."""
        if not self.bundles:
            return f"audit {self.audit.id}: nothing to audit ({self.audit.chosen})"
        parts = [f"{self.outcomes[one]} {one}" for one in Outcome if self.outcomes[one]]
        depth = "deep" if self.audit.deep else "by size, checksum and tape state"
        state = "" if self.audit.ended_at else ", cut short: `mover audit --resume` goes on with it"
        return f"audit {self.audit.id}: {', '.join(parts)} of {len(self.bundles)} bundles ({depth}{state})"

    def to_json(self) -> str:
        """As a JSON document; docs/validation.md has its keys."""
        document = {
            "audit": self.audit.id,
            "begun_at": self.audit.begun_at.isoformat(),
            "ended_at": self.audit.ended_at.isoformat() if self.audit.ended_at else None,
            "deep": self.audit.deep,
            "chosen": self.audit.chosen,
            "well": self.is_well,
            "outcomes": {one.value: self.outcomes[one] for one in Outcome},
            "read_bytes": self.read_bytes,
            "bundles": [_bundle(one) for one in self.bundles],
        }
        return json.dumps(document, indent=1, ensure_ascii=True) + "\n"


def make_report(database: Database, audit: Audit) -> Report:
    """The report of an audit as it stands."""
    return Report(audit, tuple(bundle_results(database, audit)))


def outcome_of(bundle: BundleResult) -> Outcome:
    """The bundle's outcome; one that is not concluded is not known."""
    return bundle.outcome or Outcome.NOT_KNOWN


def replica_outcome(replica: ReplicaResult) -> Outcome:
    """The replica's outcome; one that was not asked for is not known."""
    return replica.outcome if replica.at else Outcome.NOT_KNOWN


def remedy_of(bundle: BundleResult) -> str:
    """What to do about a bundle whose replicas are all good and do not satisfy the policy; else each says it itself."""
    if outcome_of(bundle) is Outcome.GOOD or any(replica_outcome(one) is not Outcome.GOOD for one in bundle.replicas):
        return ""
    return (
        "`mover policy plan` shows what the policy wants and nobody has asked for yet; "
        f"`mover run show {bundle.run}` shows what is on its way"
    )


def _bundle(bundle: BundleResult) -> dict[str, Any]:
    return {
        "run": bundle.run,
        "kind": bundle.kind.value,
        "lfn": bundle.lfn,
        "size_bytes": bundle.size_bytes,
        "at": bundle.at.isoformat() if bundle.at else None,
        "outcome": outcome_of(bundle).value,
        "policy": bundle.policy,
        "remedy": remedy_of(bundle) or None,
        "replicas": [
            {
                "endpoint": one.endpoint,
                "at": one.at.isoformat() if one.at else None,
                "outcome": replica_outcome(one).value,
                "read_bytes": one.read_bytes,
                "findings": [
                    {"outcome": finding.outcome.value, "found": finding.text, "remedy": finding.remedy}
                    for finding in one.findings
                ],
            }
            for one in bundle.replicas
        ],
    }
