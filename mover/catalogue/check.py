"""Whether the catalogue is whole: the file, its references, its custody chain, and its states among themselves."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import islice

from mover.bundle.plan import BundlePlan
from mover.catalogue import custody
from mover.catalogue.agreement import disagreements
from mover.catalogue.database import Database
from mover.errors import CatalogueError
from mover.model import BundleKind
from mover.states import JobState, ReplicaState, RunState

_SHOWN = 100
_PROVEN = json.dumps([ReplicaState.VERIFIED, ReplicaState.ARCHIVED])
_STORED = json.dumps([ReplicaState.COPIED, ReplicaState.VERIFIED, ReplicaState.ARCHIVED])

Check = Callable[[Database], Iterator[str]]


def integrity(database: Database) -> Iterator[str]:
    """Damage to the file, as SQLite finds it."""
    for row in database.iterate("PRAGMA integrity_check"):
        if row[0] != "ok":
            yield str(row[0])


def references(database: Database) -> Iterator[str]:
    """Rows that refer to a row that is not there."""
    for row in database.iterate("PRAGMA foreign_key_check"):
        yield f"row {row[1]} of {row[0]} refers to a row of {row[2]} that is not there"


def chain(database: Database) -> Iterator[str]:
    """The first break of the custody chain."""
    try:
        custody.verify(database)
    except CatalogueError as error:
        yield error.message


def states(database: Database) -> Iterator[str]:
    """States and facts that cannot be true together."""
    known = json.dumps([state.value for state in RunState if state is not RunState.UNKNOWN])
    for row in database.iterate(
        "SELECT number, state FROM run WHERE state NOT IN (SELECT value FROM json_each(?))", known
    ):
        yield f"run {row['number']} has the unknown state {row['state']!r}"
    known = json.dumps([state.value for state in ReplicaState])
    for row in database.iterate(
        "SELECT id, state FROM replica WHERE state NOT IN (SELECT value FROM json_each(?))", known
    ):
        yield f"replica {row['id']} has the unknown state {row['state']!r}"
    known = json.dumps([state.value for state in JobState])
    for row in database.iterate("SELECT id, state FROM job WHERE state NOT IN (SELECT value FROM json_each(?))", known):
        yield f"job {row['id']} has the unknown state {row['state']!r}"
    for row in database.iterate(
        "SELECT id, state FROM job WHERE (bundle_id IS NULL) AND state IN ('collected', 'proven')"
    ):
        yield f"job {row['id']} is {row['state']}, but has no output"
    for row in database.iterate(
        "SELECT number, state FROM run WHERE state IN ('planned', 'safe', 'released') "
        "AND NOT EXISTS (SELECT 1 FROM bundle WHERE bundle.run = run.number)"
    ):
        yield f"run {row['number']} is {row['state']}, but has no bundle"
    for row in database.iterate(
        "SELECT number, state FROM run WHERE state IN ('safe', 'released') AND NOT EXISTS (SELECT 1 FROM replica "
        "JOIN bundle ON bundle.id = replica.bundle_id WHERE bundle.run = run.number "
        "AND replica.state IN (SELECT value FROM json_each(?)))",
        _PROVEN,
    ):
        yield f"run {row['number']} is {row['state']}, but has no verified replica"
    for row in database.iterate(
        "SELECT bundle.lfn, replica.endpoint, replica.state FROM replica JOIN bundle ON bundle.id = replica.bundle_id "
        "WHERE bundle.adler32 IS NULL AND replica.state IN (SELECT value FROM json_each(?))",
        _STORED,
    ):
        yield f"{row['lfn']} is {row['state']} at {row['endpoint']}, but its checksum is not known"


def bundles(database: Database) -> Iterator[str]:
    """Bundles whose plan, digests and members do not fit together."""
    for row in database.iterate("SELECT * FROM bundle ORDER BY id"):
        if row["kind"] not in {kind.value for kind in BundleKind}:
            yield f"{row['lfn']} has the unknown kind {row['kind']!r}"
        members = database.query("SELECT * FROM member WHERE bundle_id = ? ORDER BY position", row["id"])
        if bool(members) != (row["adler32"] is not None):
            yield f"{row['lfn']} has {'no members' if row['adler32'] else 'members'}, but {_checksum(row)}"
        yield from _plan(row, [(member["name"], member["size_bytes"]) for member in members])


def times(database: Database) -> Iterator[str]:
    """Times that are no times."""
    for table, key, columns in (
        ("run", "number", ("since", "closed_at")),
        ("bundle", "id", ("digested_at",)),
        ("replica", "id", ("since", "next_attempt_at")),
        ("claim", "replica_id", ("lease_until",)),
        ("job", "id", ("since", "next_attempt_at", "heartbeat_at", "missing_since")),
        ("remains", "batch_id", ("since", "next_attempt_at")),
    ):
        # The names are those above.
        for row in database.iterate(f"SELECT {key}, {', '.join(columns)} FROM {table} ORDER BY 1"):  # noqa: S608
            for column in columns:
                if row[column] is not None and not _is_time(row[column]):
                    yield f"{column} of {table} {row[key]} is no time: {row[column]!r}"


CHECKS: tuple[tuple[str, Check], ...] = (
    ("file", integrity),
    ("references", references),
    ("custody chain", chain),
    ("custody and states", disagreements),
    ("states", states),
    ("bundles", bundles),
    ("times", times),
)
"""Every check with its name, in the order in which they are of use."""


def faults(database: Database, check: Check) -> list[str]:
    """What a check finds, up to some hundred faults; that it cannot be made is a fault too."""
    found: list[str] = []
    try:
        found.extend(islice(check(database), _SHOWN))
    except (CatalogueError, sqlite3.Error) as error:
        found.append(str(error))
    if len(found) == _SHOWN:
        found.append("and perhaps more")
    return found


def _plan(row: sqlite3.Row, members: list[tuple[str, int]]) -> Iterator[str]:
    if row["plan"] is None:
        return
    try:
        plan = BundlePlan.from_json(row["plan"])
        facts = [("run", plan.run, row["run"]), ("LFN", plan.lfn, row["lfn"])]
        facts.append(("size", plan.size_bytes, row["size_bytes"]))
        parts = [(part.name, part.size_bytes) for part in plan.parts]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        yield f"{row['lfn']} has a plan that cannot be read"
        return
    for what, planned, found in facts:
        if planned != found:
            yield f"{row['lfn']} has the {what} {found}, but its plan says {planned}"
    if members and members != parts:
        yield f"{row['lfn']} has other members than its plan"


def _checksum(row: sqlite3.Row) -> str:
    return "no checksum" if row["adler32"] is None else f"the checksum {row['adler32']}"


def _is_time(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False
