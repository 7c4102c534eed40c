"""Runs and their bundles in the catalogue."""

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from mover.bundle.plan import BundlePlan
from mover.catalogue import custody
from mover.catalogue.database import Database
from mover.errors import CatalogueError, LfnTakenError, MoverError, StateError
from mover.model import BundleDigest, BundleKind, MemberDigest
from mover.states import ReplicaState, RunEvent, RunState, next_run_state


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What the catalogue knows of a run. `problem` is what needs a person, if anything."""

    number: int
    state: RunState
    since: datetime
    closed_at: datetime
    marker_ns: int | None
    problem: str | None
    hint: str | None


@dataclass(frozen=True, slots=True)
class BundleRecord:
    """A bundle. `digest` is None until it has been read once; `plan` is None if it is not made from a run's parts.

    `ready_made` is then the file that it is, if it is kept here.
    """

    id: int
    run: int
    kind: BundleKind
    lfn: str
    size_bytes: int
    plan: BundlePlan | None
    digest: BundleDigest | None
    ready_made: Path | None = None


def find_run(database: Database, number: int) -> RunRecord | None:
    """The run, or None if it was never closed."""
    rows = database.query("SELECT * FROM run WHERE number = ?", number)
    return _run(rows[0]) if rows else None


def get_run(database: Database, number: int) -> RunRecord:
    """The run.

    Raises:
        CatalogueError: it is not in the catalogue.
    """
    run = find_run(database, number)
    if run is None:
        raise CatalogueError(
            f"run {number} is not in the catalogue",
            hint=f"`mover run close {number}` closes it once its files are complete",
        )
    return run


def list_runs(database: Database, *, states: Iterable[RunState] = tuple(RunState)) -> list[RunRecord]:
    """The runs in any of `states`, oldest number first."""
    wanted = json.dumps([state.value for state in states])
    statement = "SELECT * FROM run WHERE state IN (SELECT value FROM json_each(?)) ORDER BY number"
    return [_run(row) for row in database.query(statement, wanted)]


def record_planned(
    database: Database, plan: BundlePlan, *, marker_ns: int | None, endpoints: Iterable[str], now: datetime
) -> None:
    """Record a closed run, its bundle plan, and a wanted replica for each of `endpoints`, all at once.

    Raises:
        CatalogueError: the run is planned already.
        LfnTakenError: the LFN belongs to another run.
    """
    event = RunEvent.FORCED if plan.findings else RunEvent.COMPLETE
    with database.transaction() as connection:
        state = next_run_state(state_of(connection, plan.run), event, subject=f"run {plan.run}")
        _check_lfn_is_free(connection, plan)
        _set_run(connection, plan.run, state, now, marker_ns)
        inserted = connection.execute(
            "INSERT INTO bundle (run, kind, lfn, plan, size_bytes) VALUES (?, ?, ?, ?, ?)",
            (plan.run, BundleKind.RAW, plan.lfn, plan.to_json(), plan.size_bytes),
        )
        connection.executemany(
            "INSERT INTO replica (bundle_id, endpoint, state, since, next_attempt_at) VALUES (?, ?, ?, ?, ?)",
            [(inserted.lastrowid, name, ReplicaState.WANTED, now.isoformat(), now.isoformat()) for name in endpoints],
        )
        custody.append(connection, now, plan.run, event, **_plan_facts(plan))


def record_replanned(database: Database, plan: BundlePlan, *, marker_ns: int | None, now: datetime) -> None:
    """Replace the plan of a run of which nothing is stored: its files changed after it was closed.

    Raises:
        CatalogueError: something of it is stored or may be, or an engine works on it.
        LfnTakenError: its new LFN belongs to another run.
    """
    with database.transaction() as connection:
        state = next_run_state(state_of(connection, plan.run), RunEvent.FORCED, subject=f"run {plan.run}")
        touched = connection.execute(
            "SELECT replica.endpoint FROM replica JOIN bundle ON bundle.id = replica.bundle_id "
            "LEFT JOIN claim ON claim.replica_id = replica.id WHERE bundle.run = ? AND bundle.kind = 'raw' "
            "AND (replica.intent_path NOTNULL OR replica.state NOT IN (?, ?) OR claim.owner NOTNULL)",
            (plan.run, ReplicaState.WANTED, ReplicaState.QUARANTINED),
        ).fetchone()
        if touched:
            raise CatalogueError(
                f"run {plan.run} cannot be planned anew: {touched['endpoint']} has something of it, or is at work",
                hint="stop the engine and try again; if something is stored, give the new files another run number",
            )
        _check_lfn_is_free(connection, plan)
        statement = "SELECT id FROM bundle WHERE run = ? AND kind = 'raw'"
        bundle = connection.execute(statement, (plan.run,)).fetchone()["id"]
        connection.execute("DELETE FROM member WHERE bundle_id = ?", (bundle,))
        connection.execute(
            "UPDATE bundle SET lfn = ?, plan = ?, size_bytes = ?, adler32 = NULL, digested_at = NULL WHERE id = ?",
            (plan.lfn, plan.to_json(), plan.size_bytes, bundle),
        )
        connection.execute(
            "UPDATE replica SET state = ?, since = ?, next_attempt_at = ?, failures = 0, rejections = 0, "
            "problem = NULL, hint = NULL WHERE bundle_id = ?",
            (ReplicaState.WANTED, now.isoformat(), now.isoformat(), bundle),
        )
        _set_run(connection, plan.run, state, now, marker_ns)
        custody.append(connection, now, plan.run, "planned anew", **_plan_facts(plan))


def record_incomplete(
    database: Database, number: int, error: MoverError, *, marker_ns: int | None, now: datetime
) -> None:
    """Quarantine a run that was closed but is not complete.

    Raises:
        CatalogueError: the run is planned already.
    """
    with database.transaction() as connection:
        state = next_run_state(state_of(connection, number), RunEvent.INCOMPLETE, subject=f"run {number}")
        _set_run(connection, number, state, now, marker_ns)
        _set_problem(connection, number, error)
        custody.append(connection, now, number, RunEvent.INCOMPLETE, problem=error.message)


def record_problem(
    database: Database, number: int, error: MoverError, *, marker_ns: int | None = None, now: datetime
) -> None:
    """Note something about a known run that needs a person; its state stays."""
    with database.transaction() as connection:
        _set_problem(connection, number, error)
        if marker_ns is not None:
            connection.execute("UPDATE run SET marker_ns = ? WHERE number = ?", (_text(marker_ns), number))
        custody.append(connection, now, number, "problem found", problem=error.message)


def record_held(database: Database, number: int, problem: MoverError, *, reason: str, now: datetime) -> None:
    """Quarantine a run because a person says so; `problem` is what is shown of it until it is let go on.

    Raises:
        StateError: the state table forbids it.
    """
    with database.transaction() as connection:
        move_run(connection, number, RunEvent.HELD, now, reason=reason)
        _set_problem(connection, number, problem)


def record_let_go(database: Database, number: int, event: RunEvent, *, reason: str, now: datetime) -> None:
    """Let a run out of quarantine by a person's `event`: what it was quarantined for is settled.

    Raises:
        StateError: the state table forbids it, or it was planned meanwhile.
    """
    with database.transaction() as connection:
        was_planned = connection.execute("SELECT 1 FROM bundle WHERE run = ? AND kind = 'raw'", (number,)).fetchone()
        if (was_planned is None) != (event is RunEvent.DISMISSED):
            raise StateError(f"run {number} was changed by somebody else just now", hint="look at it, and try again")
        move_run(connection, number, event, now, reason=reason)
        connection.execute("UPDATE run SET problem = NULL, hint = NULL WHERE number = ?", (number,))


def record_same_again(database: Database, number: int, *, marker_ns: int | None, now: datetime) -> None:
    """Note that a closed run was closed again with the same files: what a person had to look at is mended."""
    with database.transaction() as connection:
        cleared = connection.execute(
            "UPDATE run SET problem = NULL, hint = NULL WHERE number = ? AND problem NOTNULL", (number,)
        ).rowcount
        if marker_ns is not None:
            connection.execute("UPDATE run SET marker_ns = ? WHERE number = ?", (_text(marker_ns), number))
        if cleared:
            custody.append(connection, now, number, "problem gone: closed again with the same files")


def record_safe(database: Database, number: int, *, now: datetime, found: str) -> bool:
    """Move a planned run to safe; False if somebody else did so before."""
    with database.transaction() as connection:
        state = state_of(connection, number)
        if state is not RunState.PLANNED:
            return False
        move_run(connection, number, RunEvent.POLICY_HOLDS, now, found=found)
        return True


def record_released(database: Database, number: int, *, now: datetime) -> RunState:
    """Move a safe run to released; return the state that it had, from which others may have moved it."""
    with database.transaction() as connection:
        state = state_of(connection, number)
        if state is RunState.SAFE:
            move_run(connection, number, RunEvent.FILES_REMOVED, now)
        return state


def record_run_event(database: Database, number: int, event: RunEvent, *, now: datetime, **facts: object) -> None:
    """Move a run to its next state.

    Raises:
        CatalogueError: the state table forbids it.
    """
    with database.transaction() as connection:
        move_run(connection, number, event, now, **facts)


def note(database: Database, number: int, event: str, *, now: datetime, **facts: object) -> None:
    """Add a custody record that changes no state, such as an intent."""
    with database.transaction() as connection:
        custody.append(connection, now, number, event, **facts)


def bundle_of(database: Database, run: int) -> BundleRecord | None:
    """The bundle of the run's raw data, or None if it is not planned."""
    rows = database.query("SELECT * FROM bundle WHERE run = ? AND kind = 'raw'", run)
    return _bundle(database, rows[0]) if rows else None


def bundles_of(database: Database, run: int) -> list[BundleRecord]:
    """All bundles of the run, that of its raw data first."""
    statement = "SELECT * FROM bundle WHERE run = ? ORDER BY kind != 'raw', id"
    return [_bundle(database, row) for row in database.query(statement, run)]


def get_bundle(database: Database, bundle_id: int) -> BundleRecord:
    """One bundle."""
    (row,) = database.query("SELECT * FROM bundle WHERE id = ?", bundle_id)
    return _bundle(database, row)


def raw_bundles(database: Database) -> frozenset[int]:
    """The ids of the bundles of raw data."""
    return frozenset(row["id"] for row in database.query("SELECT id FROM bundle WHERE kind = 'raw'"))


def list_lfns(database: Database) -> list[str]:
    """The LFNs of all bundles."""
    return [row["lfn"] for row in database.query("SELECT lfn FROM bundle ORDER BY lfn")]


def list_bundles(database: Database, *, ready_made_only: bool = False) -> list[BundleRecord]:
    """All bundles, or those whose ready-made file is kept here; oldest run first."""
    statement = "SELECT * FROM bundle WHERE ready_made NOTNULL OR NOT ? ORDER BY run, id"
    return [_bundle(database, row) for row in database.query(statement, ready_made_only)]


def record_digest(database: Database, bundle: BundleRecord, digest: BundleDigest, *, now: datetime) -> BundleDigest:
    """Record what the first complete reading of a bundle found, unless another reading was quicker.

    Returns:
        The recorded digest, which may be the other reading's.

    Raises:
        StateError: the bundle was planned anew since `bundle` was looked up: what was read is not it.
    """
    with database.transaction() as connection:
        row = connection.execute("SELECT adler32, plan FROM bundle WHERE id = ?", (bundle.id,)).fetchone()
        if row["plan"] != (bundle.plan.to_json() if bundle.plan else None):
            raise StateError(
                f"{bundle.lfn} was planned anew while it was read",
                hint="nothing to do: it is read again by its new plan",
            )
        if row["adler32"] is None:
            connection.execute(
                "UPDATE bundle SET adler32 = ?, digested_at = ? WHERE id = ?",
                (digest.adler32, now.isoformat(), bundle.id),
            )
            connection.executemany(
                "INSERT INTO member (bundle_id, position, name, size_bytes, digests) VALUES (?, ?, ?, ?, ?)",
                [
                    (bundle.id, position, member.name, member.size_bytes, json.dumps(member.digests))
                    for position, member in enumerate(digest.members)
                ],
            )
            members = {member.name: dict(member.digests) for member in digest.members}
            facts = {"lfn": bundle.lfn, "adler32": digest.adler32, "members": members}
            custody.append(connection, now, bundle.run, "digests computed", **facts)
    known = _digest(database, bundle.id, bundle.size_bytes)
    return known or digest


def _check_lfn_is_free(connection: sqlite3.Connection, plan: BundlePlan) -> None:
    taken = connection.execute("SELECT run FROM bundle WHERE lfn = ? AND run != ?", (plan.lfn, plan.run)).fetchone()
    if taken:
        raise LfnTakenError(
            f"the LFN {plan.lfn} belongs to run {taken['run']} already",
            hint="mend `lfn` in `[bundle]`: it must differ for every run",
        )


def move_run(connection: sqlite3.Connection, number: int, event: RunEvent, now: datetime, **facts: object) -> None:
    """Move a run to its next state, in a transaction of the caller's.

    Raises:
        StateError: the state table forbids it.
    """
    state = next_run_state(state_of(connection, number), event, subject=f"run {number}")
    connection.execute("UPDATE run SET state = ?, since = ? WHERE number = ?", (state.value, now.isoformat(), number))
    custody.append(connection, now, number, event, **facts)


def _plan_facts(plan: BundlePlan) -> dict[str, object]:
    parts = [part.name for part in plan.parts]
    return {"lfn": plan.lfn, "size_bytes": plan.size_bytes, "parts": parts, "findings": plan.findings}


def _run(row: sqlite3.Row) -> RunRecord:
    return RunRecord(
        number=row["number"],
        state=RunState(row["state"]),
        since=datetime.fromisoformat(row["since"]),
        closed_at=datetime.fromisoformat(row["closed_at"]),
        marker_ns=None if row["marker_ns"] is None else int(row["marker_ns"]),
        problem=row["problem"],
        hint=row["hint"],
    )


def _bundle(database: Database, row: sqlite3.Row) -> BundleRecord:
    return BundleRecord(
        id=row["id"],
        run=row["run"],
        kind=BundleKind(row["kind"]),
        lfn=row["lfn"],
        size_bytes=row["size_bytes"],
        plan=None if row["plan"] is None else BundlePlan.from_json(row["plan"]),
        digest=_digest(database, row["id"], row["size_bytes"]),
        ready_made=Path(row["ready_made"]) if row["ready_made"] else None,
    )


def _digest(database: Database, bundle_id: int, size_bytes: int) -> BundleDigest | None:
    (bundle,) = database.query("SELECT adler32 FROM bundle WHERE id = ?", bundle_id)
    if bundle["adler32"] is None:
        return None
    members = tuple(
        MemberDigest(row["name"], row["size_bytes"], tuple((name, value) for name, value in json.loads(row["digests"])))
        for row in database.query("SELECT * FROM member WHERE bundle_id = ? ORDER BY position", bundle_id)
    )
    return BundleDigest(size_bytes, bundle["adler32"], members)


def state_of(connection: sqlite3.Connection, number: int) -> RunState:
    """The run's state, in a transaction of the caller's."""
    row = connection.execute("SELECT state FROM run WHERE number = ?", (number,)).fetchone()
    return RunState(row["state"]) if row else RunState.UNKNOWN


def _set_run(
    connection: sqlite3.Connection, number: int, state: RunState, now: datetime, marker_ns: int | None
) -> None:
    at = now.isoformat()
    connection.execute(
        "INSERT INTO run (number, state, since, closed_at, marker_ns) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT (number) DO UPDATE SET state = excluded.state, since = excluded.since, "
        "closed_at = excluded.closed_at, marker_ns = excluded.marker_ns, problem = NULL, hint = NULL",
        (number, state.value, at, at, _text(marker_ns)),
    )


def _text(marker_ns: int | None) -> str | None:
    return None if marker_ns is None else str(marker_ns)


def _set_problem(connection: sqlite3.Connection, number: int, error: MoverError) -> None:
    connection.execute("UPDATE run SET problem = ?, hint = ? WHERE number = ?", (error.message, error.hint, number))
