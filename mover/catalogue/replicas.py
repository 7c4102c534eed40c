"""Replicas in the catalogue, and the claims by which one engine at a time works on each."""

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from mover.catalogue import custody
from mover.catalogue.database import Database
from mover.catalogue.owner import is_dead
from mover.errors import LeaseLostError, MoverError
from mover.model import BundleKind
from mover.states import ReplicaEvent, ReplicaState, RunState, next_replica_state


@dataclass(frozen=True, slots=True)
class ReplicaRecord:
    """What the catalogue knows of a bundle at an endpoint.

    `intent_path` is the name that was last meant to be written to there; it is committed before the first byte.
    """

    id: int
    bundle_id: int
    run: int
    endpoint: str
    state: ReplicaState
    since: datetime
    backlog: bool
    intent_path: str | None
    uploads: int
    rejections: int
    failures: int
    failed_copies: int
    next_attempt_at: datetime
    problem: str | None
    hint: str | None


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to work on a replica until `lease` runs out or somebody else takes it."""

    replica_id: int
    run: int
    kind: BundleKind
    endpoint: str
    owner: str
    fence: int
    lease: timedelta

    def __str__(self) -> str:
        """What it is about, for the log."""
        of_run = f"run {self.run} at {self.endpoint}"
        return of_run if self.kind is BundleKind.RAW else f"{self.kind} of {of_run}"


class ClaimOrder(StrEnum):
    """Which of the replicas that are due comes first. Live ones come before backlog, but for a probe.

    By run, what is to be moved comes before a look at tapes; by what is due longest, nothing waits for ever.
    """

    OLDEST_RUN = "oldest-first"
    NEWEST_RUN = "newest-first"
    LONGEST_DUE = "longest due"
    PROBE = "probe"


_CLAIM = (
    "SELECT replica.id, bundle.run, bundle.kind, coalesce(claim.fence, 0) AS fence FROM replica "
    "JOIN bundle ON bundle.id = replica.bundle_id LEFT JOIN claim ON claim.replica_id = replica.id "
    "WHERE replica.endpoint = ? AND replica.state IN (SELECT value FROM json_each(?)) "
    "AND bundle.kind IN (SELECT value FROM json_each(?)) "
    "AND (replica.next_attempt_at <= ? OR replica.next_attempt_at > ?) "
    "AND (claim.owner IS NULL OR claim.lease_until < ?) "
    # A person is to look at the run first.
    "AND NOT EXISTS (SELECT 1 FROM run WHERE run.number = bundle.run AND run.state = 'quarantined') ORDER BY "
)
_CLAIMS = {
    ClaimOrder.OLDEST_RUN: _CLAIM + "replica.backlog, replica.state = 'verified', bundle.run LIMIT 1",
    ClaimOrder.NEWEST_RUN: _CLAIM + "replica.backlog, replica.state = 'verified', bundle.run DESC LIMIT 1",
    ClaimOrder.LONGEST_DUE: _CLAIM + "replica.backlog, replica.next_attempt_at LIMIT 1",
    ClaimOrder.PROBE: _CLAIM + "replica.next_attempt_at LIMIT 1",
}

_SELECT = (
    "SELECT replica.*, bundle.run AS run, bundle.lfn AS lfn FROM replica JOIN bundle ON bundle.id = replica.bundle_id "
)


def replicas_of(database: Database, run: int) -> list[ReplicaRecord]:
    """The replicas of all of the run's bundles, in the order in which they were wanted."""
    return [_replica(row) for row in database.query(_SELECT + "WHERE bundle.run = ? ORDER BY replica.id", run)]


def replicas_of_bundle(database: Database, bundle_id: int) -> list[ReplicaRecord]:
    """The bundle's replicas, in the order in which they were wanted."""
    return [_replica(row) for row in database.query(_SELECT + "WHERE bundle.id = ? ORDER BY replica.id", bundle_id)]


def replicas_at(database: Database, endpoint: str) -> list[tuple[str, ReplicaRecord]]:
    """The replicas at an endpoint, each with its bundle's LFN."""
    return [(row["lfn"], _replica(row)) for row in database.query(_SELECT + "WHERE endpoint = ?", endpoint)]


def raw_replica_states(database: Database, state: RunState) -> dict[int, list[tuple[str, ReplicaState]]]:
    """The endpoints and states of the replicas of raw data, for each run in `state`; oldest number first."""
    found: dict[int, list[tuple[str, ReplicaState]]] = {}
    rows = database.query(
        "SELECT run.number, replica.endpoint, replica.state FROM run "
        "JOIN bundle ON bundle.run = run.number AND bundle.kind = 'raw' "
        "JOIN replica ON replica.bundle_id = bundle.id WHERE run.state = ? ORDER BY run.number, replica.id",
        state,
    )
    for row in rows:
        found.setdefault(row["number"], []).append((row["endpoint"], ReplicaState(row["state"])))
    return found


def get_replica(database: Database, replica_id: int) -> ReplicaRecord:
    """One replica."""
    (row,) = database.query(_SELECT + "WHERE replica.id = ?", replica_id)
    return _replica(row)


def claim_next(
    database: Database,
    endpoint: str,
    states: Iterable[ReplicaState],
    *,
    owner: str,
    lease: timedelta,
    now: datetime,
    farthest: timedelta = timedelta(days=3650),
    order: ClaimOrder = ClaimOrder.OLDEST_RUN,
    kinds: Iterable[BundleKind] = tuple(BundleKind),
) -> Claim | None:
    """Claim a replica at `endpoint` that is due; None if none is.

    Args:
        farthest: nothing is put off for longer than this, so that what is due later still was put off by a clock that
            was wrong, and is due too.
        order: which one, of several.
        kinds: of bundles; each is moved under the credential that is meant for it.
    """
    wanted, of_kinds = json.dumps([state.value for state in states]), json.dumps([kind.value for kind in kinds])
    with database.transaction() as connection:
        row = connection.execute(
            _CLAIMS[order],
            (endpoint, wanted, of_kinds, now.isoformat(), (now + farthest).isoformat(), now.isoformat()),
        ).fetchone()
        if row is None:
            return None
        claim = Claim(row["id"], row["run"], BundleKind(row["kind"]), endpoint, owner, row["fence"] + 1, lease)
        connection.execute(
            "INSERT INTO claim (replica_id, owner, fence, lease_until) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (replica_id) DO UPDATE SET owner = excluded.owner, fence = excluded.fence, "
            "lease_until = excluded.lease_until",
            (claim.replica_id, owner, claim.fence, (now + lease).isoformat()),
        )
        return claim


def renew_claim(database: Database, claim: Claim, *, now: datetime) -> None:
    """Extend the lease of work that goes on.

    Raises:
        LeaseLostError: somebody else has the claim now.
    """
    with database.transaction() as connection:
        _guard(connection, claim)
        connection.execute(
            "UPDATE claim SET lease_until = ? WHERE replica_id = ?",
            ((now + claim.lease).isoformat(), claim.replica_id),
        )


def release_claim(database: Database, claim: Claim) -> None:
    """Let go of a claim; one that was lost already is left alone."""
    with database.transaction() as connection:
        connection.execute(
            "UPDATE claim SET owner = NULL WHERE replica_id = ? AND owner = ? AND fence = ?",
            (claim.replica_id, claim.owner, claim.fence),
        )


def free_dead_claims(database: Database) -> int:
    """Free the claims of engines of this machine that no longer run; return how many."""
    freed = 0
    for row in database.query("SELECT replica_id, owner, fence FROM claim WHERE owner IS NOT NULL"):
        if is_dead(row["owner"]):
            with database.transaction() as connection:
                freed += connection.execute(
                    "UPDATE claim SET owner = NULL WHERE replica_id = ? AND owner = ? AND fence = ?",
                    (row["replica_id"], row["owner"], row["fence"]),
                ).rowcount
    return freed


def record_intent(database: Database, claim: Claim, path: str, *, now: datetime) -> None:
    """Commit under which name the next upload will be written, before it begins.

    Raises:
        LeaseLostError: somebody else has the claim now.
    """
    with database.transaction() as connection:
        _guard(connection, claim)
        connection.execute(
            "UPDATE replica SET intent_path = ?, uploads = uploads + 1 WHERE id = ?", (path, claim.replica_id)
        )
        _note(connection, now, claim.replica_id, "upload intended", path=path)


def withdraw_intent(database: Database, claim: Claim, *, now: datetime) -> None:
    """Take the intent back: nothing of ours is under that name, so what stands there now or later is not ours.

    Raises:
        LeaseLostError: somebody else has the claim now.
    """
    with database.transaction() as connection:
        _guard(connection, claim)
        connection.execute("UPDATE replica SET intent_path = NULL WHERE id = ?", (claim.replica_id,))
        _note(connection, now, claim.replica_id, "upload intent withdrawn")


def record_event(
    database: Database,
    claim: Claim,
    event: ReplicaEvent,
    *,
    now: datetime,
    problem: MoverError | None = None,
    **facts: object,
) -> ReplicaState:
    """Move a replica to its next state and clear its failures.

    Args:
        problem: what needs a person, if the replica is quarantined.

    Raises:
        LeaseLostError: somebody else has the claim now.
        CatalogueError: the state table forbids it.
    """
    with database.transaction() as connection:
        row = _guard(connection, claim)
        subject = f"run {claim.run} at {claim.endpoint}"
        state = next_replica_state(ReplicaState(row["state"]), event, subject=subject)
        rejected = event in {ReplicaEvent.REJECTED, ReplicaEvent.MISSING}
        # What is checked is never ours to remove again; what was removed or is missing leaves a name that is not ours.
        ended = {ReplicaEvent.CHECKED, ReplicaEvent.REJECTED, ReplicaEvent.MISSING}
        intent = None if event in ended else row["intent_path"]
        message, hint = (problem.message, problem.hint) if problem else (None, None)
        connection.execute(
            "UPDATE replica SET state = ?, since = ?, next_attempt_at = ?, failures = 0, failed_copies = 0, "
            "problem = ?, hint = ?, intent_path = ?, rejections = rejections + ? WHERE id = ?",
            (state.value, now.isoformat(), now.isoformat(), message, hint, intent, rejected, claim.replica_id),
        )
        if problem:
            facts["problem"] = problem.message
        _note(connection, now, claim.replica_id, event, **facts)
        return state


def record_failure(database: Database, claim: Claim, error: MoverError, *, next_attempt_at: datetime) -> None:
    """Note why an attempt failed and when to try again.

    Raises:
        LeaseLostError: somebody else has the claim now.
    """
    with database.transaction() as connection:
        _guard(connection, claim)
        connection.execute(
            "UPDATE replica SET failures = failures + 1, problem = ?, hint = ?, next_attempt_at = ? WHERE id = ?",
            (error.message, error.hint, next_attempt_at.isoformat(), claim.replica_id),
        )


def record_failed_copy(database: Database, claim: Claim) -> None:
    """Count a copy from another replica that failed, so that another way is tried in the end.

    Raises:
        LeaseLostError: somebody else has the claim now.
    """
    with database.transaction() as connection:
        _guard(connection, claim)
        connection.execute("UPDATE replica SET failed_copies = failed_copies + 1 WHERE id = ?", (claim.replica_id,))


def postpone(database: Database, claim: Claim, *, until: datetime) -> None:
    """Look at the replica again later; nothing is wrong.

    Raises:
        LeaseLostError: somebody else has the claim now.
    """
    with database.transaction() as connection:
        _guard(connection, claim)
        connection.execute(
            "UPDATE replica SET next_attempt_at = ?, failures = 0, problem = NULL, hint = NULL WHERE id = ?",
            (until.isoformat(), claim.replica_id),
        )


def retry_replicas(database: Database, run: int, *, now: datetime) -> int:
    """Take up again, at once, what is quarantined or waits for its next attempt; return how many replicas that is."""
    retried = 0
    at = now.isoformat()
    with database.transaction() as connection:
        for row in connection.execute(_SELECT + "WHERE bundle.run = ?", (run,)).fetchall():
            state = ReplicaState(row["state"])
            if state is ReplicaState.QUARANTINED:
                state = next_replica_state(state, ReplicaEvent.RETRIED, subject=f"run {run} at {row['endpoint']}")
                _note(connection, now, row["id"], ReplicaEvent.RETRIED)
                connection.execute("UPDATE replica SET state = ?, since = ? WHERE id = ?", (state, at, row["id"]))
            elif row["problem"] is None and row["next_attempt_at"] <= at:
                continue
            connection.execute(
                "UPDATE replica SET next_attempt_at = ?, rejections = 0, failures = 0, failed_copies = 0, "
                "problem = NULL, hint = NULL WHERE id = ?",
                (at, row["id"]),
            )
            retried += 1
    return retried


def want_replicas(
    database: Database, bundle_id: int, run: int, lfn: str, endpoints: Iterable[str], *, now: datetime
) -> None:
    """Want more replicas of a bundle, as backlog; one that is known at an endpoint already is left as it is."""
    with database.transaction() as connection:
        for endpoint in endpoints:
            added = connection.execute(
                "INSERT INTO replica (bundle_id, endpoint, state, since, next_attempt_at, backlog) "
                "VALUES (?, ?, ?, ?, ?, 1) ON CONFLICT (bundle_id, endpoint) DO NOTHING",
                (bundle_id, endpoint, ReplicaState.WANTED, now.isoformat(), now.isoformat()),
            ).rowcount
            if added:
                custody.append(connection, now, run, "replica wanted by a later policy", lfn=lfn, endpoint=endpoint)


def _note(connection: sqlite3.Connection, now: datetime, replica_id: int, event: str, **facts: object) -> None:
    """Add a custody record about a replica, which says of which bundle and where."""
    row = connection.execute(
        "SELECT bundle.run, bundle.lfn, replica.endpoint FROM replica JOIN bundle ON bundle.id = replica.bundle_id "
        "WHERE replica.id = ?",
        (replica_id,),
    ).fetchone()
    custody.append(connection, now, row["run"], event, lfn=row["lfn"], endpoint=row["endpoint"], **facts)


def _guard(connection: sqlite3.Connection, claim: Claim) -> sqlite3.Row:
    row: sqlite3.Row | None = connection.execute(
        "SELECT replica.* FROM replica JOIN claim ON claim.replica_id = replica.id "
        "WHERE replica.id = ? AND claim.owner = ? AND claim.fence = ?",
        (claim.replica_id, claim.owner, claim.fence),
    ).fetchone()
    if row is None:
        raise LeaseLostError(
            f"the claim on run {claim.run} at {claim.endpoint} was taken over",
            hint="another engine works on it now; nothing to do",
        )
    return row


def _replica(row: sqlite3.Row) -> ReplicaRecord:
    return ReplicaRecord(
        id=row["id"],
        bundle_id=row["bundle_id"],
        run=row["run"],
        endpoint=row["endpoint"],
        state=ReplicaState(row["state"]),
        since=datetime.fromisoformat(row["since"]),
        backlog=bool(row["backlog"]),
        intent_path=row["intent_path"],
        uploads=row["uploads"],
        rejections=row["rejections"],
        failures=row["failures"],
        failed_copies=row["failed_copies"],
        next_attempt_at=datetime.fromisoformat(row["next_attempt_at"]),
        problem=row["problem"],
        hint=row["hint"],
    )
