"""Record bundles that were found on the storage: what others stored before us, or a catalogue that is made again."""

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from mover.bundle.plan import BundlePlan
from mover.catalogue import custody
from mover.catalogue.database import Database
from mover.catalogue.jobs import JobKey, move_job, want_jobs_within
from mover.errors import CatalogueError, MoverError
from mover.model import BundleDigest, BundleKind
from mover.states import JobEvent, ReplicaEvent, ReplicaState, RunEvent, RunState, next_replica_state, next_run_state

_PROOFS = (ReplicaEvent.UPLOADED, ReplicaEvent.CHECKED, ReplicaEvent.ON_TAPE)


@dataclass(frozen=True, slots=True)
class FoundReplica:
    """What an endpoint has of a bundle, as far as it was proven just now; `problem` if a person is needed."""

    endpoint: str
    url: str
    state: ReplicaState
    problem: MoverError | None = None


@dataclass(frozen=True, slots=True)
class FoundBundle:
    """A bundle that was found. `plan` is None where it cannot be made again; `facts` go into the custody record."""

    run: int
    kind: BundleKind
    lfn: str
    plan: BundlePlan | None
    digest: BundleDigest
    replicas: tuple[FoundReplica, ...]
    facts: tuple[tuple[str, object], ...] = ()


def record_found(
    database: Database, found: FoundBundle, event: RunEvent, *, backlog: bool, first_upload: int, now: datetime
) -> None:
    """Record a run, its bundle and its replicas, each in the state that was proven, all at once.

    Args:
        backlog: whether what is wanted comes after live runs.
        first_upload: uploads are counted from here on, so that temporary names of earlier days are not used again.

    Raises:
        CatalogueError: the run is known already, or the LFN is another run's.
    """
    run = found.run
    with database.transaction() as connection:
        _refuse_known(connection, found)
        state = next_run_state(RunState.UNKNOWN, event, subject=f"run {run}")
        at = now.isoformat()
        connection.execute(
            "INSERT INTO run (number, state, since, closed_at) VALUES (?, ?, ?, ?)", (run, state, at, at)
        )
        custody.append(connection, now, run, event, **_facts(found))
        _insert(connection, found, backlog=backlog, first_upload=first_upload, now=now)


def record_found_output(
    database: Database, found: FoundBundle, key: JobKey, *, first_upload: int, now: datetime
) -> None:
    """Record a job whose output was found, as collected: what it is worth is for the reco agent to prove.

    Raises:
        CatalogueError: the job is known already, or the LFN is another bundle's.
    """
    with database.transaction() as connection:
        _refuse_taken(connection, found)
        if not want_jobs_within(connection, [key], now=now):
            raise CatalogueError(f"the {key} is known already", hint=f"`mover reco status {key.run}` shows it")
        row = connection.execute("SELECT max(id) AS id FROM job").fetchone()
        # The names of attempts have this number: none of the lost catalogue's may come again.
        job_id = max(row["id"], int(now.timestamp()))
        connection.execute("UPDATE job SET id = ? WHERE id = ?", (job_id, row["id"]))
        move_job(connection, job_id, JobEvent.OUTPUT_FOUND, now=now, **_facts(found))
        bundle = _insert(connection, found, backlog=True, first_upload=first_upload, now=now)
        connection.execute("UPDATE job SET bundle_id = ? WHERE id = ?", (bundle, job_id))


def _facts(found: FoundBundle) -> dict[str, object]:
    digest = found.digest
    members = {one.name: dict(one.digests) for one in digest.members}
    facts = {"size_bytes": digest.size_bytes, "adler32": digest.adler32, "members": members, **dict(found.facts)}
    return {"lfn": found.lfn, "kind": found.kind, **facts}


def _insert(
    connection: sqlite3.Connection, found: FoundBundle, *, backlog: bool, first_upload: int, now: datetime
) -> int | None:
    """Insert the bundle and its replicas; the bundle's id."""
    at, digest = now.isoformat(), found.digest
    plan = found.plan and found.plan.to_json()
    bundle = connection.execute(
        "INSERT INTO bundle (run, kind, lfn, plan, size_bytes, adler32, digested_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (found.run, found.kind, found.lfn, plan, digest.size_bytes, digest.adler32, at),
    ).lastrowid
    connection.executemany(
        "INSERT INTO member (bundle_id, position, name, size_bytes, digests) VALUES (?, ?, ?, ?, ?)",
        [
            (bundle, position, one.name, one.size_bytes, json.dumps(one.digests))
            for position, one in enumerate(digest.members)
        ],
    )
    for one in found.replicas:
        _record_replica(connection, found, one, now)
        problem = (one.problem.message, one.problem.hint) if one.problem else (None, None)
        connection.execute(
            "INSERT INTO replica (bundle_id, endpoint, state, since, next_attempt_at, backlog, uploads, problem, "
            "hint) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (bundle, one.endpoint, one.state, at, at, backlog, first_upload, *problem),
        )
    return bundle


def _refuse_known(connection: sqlite3.Connection, found: FoundBundle) -> None:
    known = connection.execute("SELECT state FROM run WHERE number = ?", (found.run,)).fetchone()
    if known:
        raise CatalogueError(
            f"run {found.run} is known already: it is {known['state']}",
            hint=f"`mover run show {found.run}` tells its story; nothing was changed",
        )
    _refuse_taken(connection, found)


def _refuse_taken(connection: sqlite3.Connection, found: FoundBundle) -> None:
    taken = connection.execute("SELECT run FROM bundle WHERE lfn = ?", (found.lfn,)).fetchone()
    if taken:
        raise CatalogueError(
            f"the LFN {found.lfn} belongs to run {taken['run']} already", hint="mend `lfn` in `[bundle]`"
        )


def _record_replica(connection: sqlite3.Connection, found: FoundBundle, one: FoundReplica, now: datetime) -> None:
    """Custody records that lead to the replica's state, by the table."""
    state = ReplicaState.WANTED
    for event, facts in _way(found, one):
        state = next_replica_state(state, event, subject=f"run {found.run} at {one.endpoint}")
        custody.append(connection, now, found.run, event, endpoint=one.endpoint, lfn=found.lfn, **facts)
    if state is not one.state:
        raise CatalogueError(f"run {found.run} at {one.endpoint} cannot be {one.state}", hint="this is a bug")


def _way(found: FoundBundle, one: FoundReplica) -> Iterator[tuple[ReplicaEvent, dict[str, object]]]:
    if one.problem:
        yield ReplicaEvent.GAVE_UP, {"problem": one.problem.message}
        return
    steps = (ReplicaState.WANTED, ReplicaState.COPIED, ReplicaState.VERIFIED, ReplicaState.ARCHIVED).index(one.state)
    for event in _PROOFS[:steps]:
        facts: dict[str, object] = {"url": one.url}
        if event is not ReplicaEvent.ON_TAPE:
            facts["size_bytes"] = found.digest.size_bytes
        if event is ReplicaEvent.UPLOADED:
            facts["route"] = "found there"
        if event is ReplicaEvent.CHECKED:
            facts["adler32"] = found.digest.adler32
        yield event, facts
