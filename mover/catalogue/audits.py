"""Audits in the catalogue: what is to be asked, what was found, and a custody record for each bundle audited."""

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from mover.catalogue import custody
from mover.catalogue.database import Database
from mover.model import BundleKind
from mover.states import ReplicaState, RunState

_RESULTS = (
    "SELECT audit_bundle.*, bundle.run, bundle.kind, bundle.lfn, bundle.size_bytes, "
    "(SELECT json_group_array(json_array(endpoint, one.at, read_bytes, findings)) FROM audit_result AS one "
    "WHERE one.audit_id = audit_bundle.audit_id AND one.bundle_id = audit_bundle.bundle_id) AS replicas "
    "FROM audit_bundle JOIN bundle ON bundle.id = audit_bundle.bundle_id WHERE audit_bundle.audit_id = ? "
)


class Outcome(StrEnum):
    """What an audit says of a replica or a bundle. 'Not known' never counts as good."""

    GOOD = "good"
    NOT_KNOWN = "not known"
    WRONG = "wrong"


_BADNESS = (Outcome.GOOD, Outcome.NOT_KNOWN, Outcome.WRONG)


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """The worst of them; good if there is none."""
    return max(outcomes, key=_BADNESS.index, default=Outcome.GOOD)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found, and what to do about it. A good one is a remark."""

    outcome: Outcome
    text: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Audit:
    """One audit, as it was asked for. `whole`: at every endpoint, so that the policy is assessed too."""

    id: int
    begun_at: datetime
    ended_at: datetime | None
    deep: bool
    whole: bool
    chosen: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """A bundle that may be audited: the endpoints with what the catalogue says of its replicas, as (name, state)."""

    bundle_id: int
    run: int
    run_state: RunState
    kind: BundleKind
    replicas: tuple[tuple[str, ReplicaState], ...]


@dataclass(frozen=True, slots=True)
class ReplicaResult:
    """What was found of a bundle at an endpoint. `at` is None where it was not asked yet."""

    endpoint: str
    at: datetime | None
    findings: tuple[Finding, ...] = ()
    read_bytes: int = 0

    @property
    def outcome(self) -> Outcome:
        """The worst finding's."""
        return worst(finding.outcome for finding in self.findings)


@dataclass(frozen=True, slots=True)
class BundleResult:
    """What was found of a bundle. `at` is None where that is not complete; `policy` where it was not assessed."""

    bundle_id: int
    run: int
    kind: BundleKind
    lfn: str
    size_bytes: int
    at: datetime | None
    outcome: Outcome | None
    policy: str | None
    replicas: tuple[ReplicaResult, ...]


def candidates(database: Database) -> list[Candidate]:
    """All bundles with their replicas, oldest run first."""
    rows = database.query(
        "SELECT bundle.id, bundle.run, run.state, bundle.kind, "
        "(SELECT json_group_array(json_array(replica.endpoint, replica.state)) FROM replica "
        "WHERE replica.bundle_id = bundle.id) AS replicas "
        "FROM bundle JOIN run ON run.number = bundle.run ORDER BY bundle.run, bundle.id"
    )
    return [
        Candidate(
            row["id"],
            row["run"],
            RunState(row["state"]),
            BundleKind(row["kind"]),
            tuple((endpoint, ReplicaState(state)) for endpoint, state in json.loads(row["replicas"])),
        )
        for row in rows
    ]


def last_good(database: Database, *, deep: bool) -> dict[int, datetime]:
    """When each bundle was last found good at every endpoint, by its id; with `deep`, only by reading it back."""
    rows = database.query(
        "SELECT bundle_id, max(audit_bundle.at) AS at FROM audit_bundle JOIN audit ON audit.id = audit_id "
        "WHERE outcome = ? AND whole AND deep >= ? GROUP BY bundle_id",
        Outcome.GOOD,
        deep,
    )
    return {row["bundle_id"]: datetime.fromisoformat(row["at"]) for row in rows}


def begin_audit(
    database: Database,
    targets: Iterable[tuple[int, Iterable[str]]],
    *,
    deep: bool,
    whole: bool,
    chosen: str,
    now: datetime,
) -> Audit:
    """Write down an audit of bundles (by id), each at some endpoints, before anything is asked."""
    with database.transaction() as connection:
        number = connection.execute(
            "INSERT INTO audit (begun_at, deep, whole, chosen) VALUES (?, ?, ?, ?)",
            (now.isoformat(), deep, whole, chosen),
        ).lastrowid
        for bundle_id, endpoints in targets:
            connection.execute("INSERT INTO audit_bundle (audit_id, bundle_id) VALUES (?, ?)", (number, bundle_id))
            connection.executemany(
                "INSERT INTO audit_result (audit_id, bundle_id, endpoint) VALUES (?, ?, ?)",
                [(number, bundle_id, endpoint) for endpoint in endpoints],
            )
    return get_audit(database, number or 0)


def find_audit(database: Database, audit_id: int) -> Audit | None:
    """The audit of that number, or None."""
    rows = database.query("SELECT * FROM audit WHERE id = ?", audit_id)
    return _audit(rows[0]) if rows else None


def get_audit(database: Database, audit_id: int) -> Audit:
    """An audit that is known."""
    (row,) = database.query("SELECT * FROM audit WHERE id = ?", audit_id)
    return _audit(row)


def unfinished_audit(database: Database) -> Audit | None:
    """The newest audit that was cut short, if there is any."""
    rows = database.query("SELECT * FROM audit WHERE ended_at IS NULL ORDER BY id DESC LIMIT 1")
    return _audit(rows[0]) if rows else None


def pending_bundles(database: Database, audit: Audit, endpoint: str, *, most: int) -> list[int]:
    """The next bundles to be asked for at `endpoint`, by id, at most so many."""
    rows = database.query(
        "SELECT bundle_id FROM audit_result WHERE audit_id = ? AND endpoint = ? AND outcome IS NULL "
        "ORDER BY bundle_id LIMIT ?",
        audit.id,
        endpoint,
        most,
    )
    return [row["bundle_id"] for row in rows]


def counts(database: Database, audit: Audit) -> dict[str, tuple[int, int]]:
    """How many replicas were asked for and how many there are in all, by endpoint."""
    rows = database.query(
        "SELECT endpoint, count(outcome) AS done, count(*) AS total FROM audit_result WHERE audit_id = ? "
        "GROUP BY endpoint ORDER BY endpoint",
        audit.id,
    )
    return {row["endpoint"]: (row["done"], row["total"]) for row in rows}


def record_result(database: Database, audit: Audit, bundle_id: int, result: ReplicaResult, *, now: datetime) -> None:
    """Write down what was found at one endpoint, unless another process was quicker."""
    findings = json.dumps([(finding.outcome, finding.text, finding.remedy) for finding in result.findings])
    with database.transaction() as connection:
        connection.execute(
            "UPDATE audit_result SET at = ?, outcome = ?, read_bytes = ?, findings = ? "
            "WHERE audit_id = ? AND bundle_id = ? AND endpoint = ? AND outcome IS NULL",
            (now.isoformat(), result.outcome, result.read_bytes, findings, audit.id, bundle_id, result.endpoint),
        )


def incomplete_bundles(database: Database, audit: Audit) -> list[int]:
    """The bundles, by id, of which all is asked but nothing is concluded: a killed audit may leave some."""
    rows = database.query(
        "SELECT bundle_id FROM audit_bundle WHERE audit_id = ? AND outcome IS NULL AND NOT EXISTS "
        "(SELECT 1 FROM audit_result AS one WHERE one.audit_id = audit_bundle.audit_id "
        "AND one.bundle_id = audit_bundle.bundle_id AND one.outcome IS NULL) ORDER BY bundle_id",
        audit.id,
    )
    return [row["bundle_id"] for row in rows]


def conclude_bundle(
    database: Database, audit: Audit, result: BundleResult, outcome: Outcome, policy: str | None, *, now: datetime
) -> None:
    """Write down what the audit says of the whole bundle, with its custody record, once."""
    with database.transaction() as connection:
        done = connection.execute(
            "UPDATE audit_bundle SET at = ?, outcome = ?, policy = ? "
            "WHERE audit_id = ? AND bundle_id = ? AND outcome IS NULL",
            (now.isoformat(), outcome, policy, audit.id, result.bundle_id),
        ).rowcount
        if not done:
            return
        found = {
            one.endpoint: [str(one.outcome), *(finding.text for finding in one.findings)] for one in result.replicas
        }
        custody.append(
            connection,
            now,
            result.run,
            "audited",
            audit=audit.id,
            deep=audit.deep,
            lfn=result.lfn,
            outcome=outcome,
            policy=policy,
            replicas=found,
        )


def end_audit(database: Database, audit: Audit, *, now: datetime) -> bool:
    """Say that the audit is complete; False if something of it is still to be done."""
    with database.transaction() as connection:
        return bool(
            connection.execute(
                "UPDATE audit SET ended_at = coalesce(ended_at, ?) WHERE id = ? AND NOT EXISTS "
                "(SELECT 1 FROM audit_bundle WHERE audit_id = audit.id AND outcome IS NULL)",
                (now.isoformat(), audit.id),
            ).rowcount
        )


def bundle_result(database: Database, audit: Audit, bundle_id: int) -> BundleResult:
    """What an audit has found of one bundle so far."""
    (row,) = database.query(_RESULTS + "AND audit_bundle.bundle_id = ?", audit.id, bundle_id)
    return _bundle_result(row)


def bundle_results(database: Database, audit: Audit) -> list[BundleResult]:
    """What an audit has found so far, oldest run first."""
    return [_bundle_result(row) for row in database.query(_RESULTS + "ORDER BY bundle.run, bundle.id", audit.id)]


def _bundle_result(row: sqlite3.Row) -> BundleResult:
    return BundleResult(
        row["bundle_id"],
        row["run"],
        BundleKind(row["kind"]),
        row["lfn"],
        row["size_bytes"],
        _moment(row["at"]),
        None if row["outcome"] is None else Outcome(row["outcome"]),
        row["policy"],
        tuple(_replica_result(*values) for values in json.loads(row["replicas"])),
    )


def _replica_result(endpoint: str, at: str | None, read_bytes: int, findings: str) -> ReplicaResult:
    found = tuple(Finding(Outcome(outcome), text, remedy) for outcome, text, remedy in json.loads(findings))
    return ReplicaResult(endpoint, _moment(at), found, read_bytes)


def _audit(row: sqlite3.Row) -> Audit:
    begun_at = datetime.fromisoformat(row["begun_at"])
    return Audit(
        row["id"], begun_at, _moment(row["ended_at"]), bool(row["deep"]), bool(row["whole"]), str(row["chosen"])
    )


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
