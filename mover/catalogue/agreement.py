"""Whether the catalogue's tables say what its custody records say: no state may be there that no record explains."""

import json
import sqlite3
from collections.abc import Iterator

from mover.catalogue import custody
from mover.catalogue.database import Database
from mover.catalogue.jobs import jobs_of
from mover.catalogue.replay import BundleStory, RunStory, replay
from mover.errors import CatalogueError
from mover.states import ReplicaState


def disagreements(database: Database) -> Iterator[str]:
    """What the tables say otherwise than the records, a run at a time; nothing if all is well.

    Call it in a `Database.snapshot`, or work that goes on meanwhile looks like disagreement.
    """
    for row in database.iterate("SELECT number FROM run UNION SELECT run FROM custody ORDER BY 1"):
        yield from of_run(database, row["number"])


def of_run(database: Database, run: int) -> Iterator[str]:
    """What the tables say of one run otherwise than its records."""
    try:
        story = replay(run, custody.records(database, run))
    except CatalogueError as error:
        yield f"run {run}: {error.message}"
        return
    states = [row["state"] for row in database.query("SELECT state FROM run WHERE number = ?", run)]
    state = states[0] if states else "unknown"
    if state != story.state:
        yield f"run {run} is {state}, but its custody records make it {story.state}"
    if story.unproven_release:
        yield f"run {run} was released without a verified replica"
    yield from _bundles(database, story)
    yield from _jobs(database, story)


def _jobs(database: Database, story: RunStory) -> Iterator[str]:
    found = {str(job.key): job.state for job in jobs_of(database, story.run)}
    for name in sorted(found.keys() | story.jobs.keys()):
        state, said = found.get(name, "not there"), story.jobs.get(name, "never wanted")
        if state != said:
            yield f"the {name} is {state}, but its custody records make it {said}"


def _bundles(database: Database, story: RunStory) -> Iterator[str]:
    rows = database.query("SELECT * FROM bundle WHERE run = ? ORDER BY id", story.run)
    for lfn in sorted(set(story.bundles) - {row["lfn"] for row in rows}):
        yield f"run {story.run}: the bundle {lfn} is in the custody records only"
    for row in rows:
        bundle = story.bundles.get(row["lfn"])
        if bundle is None:
            yield f"run {story.run}: no custody record speaks of the bundle {row['lfn']}"
            continue
        for name, found, said in _facts(row, bundle):
            if found != said:
                yield f"{row['lfn']} has {name} {found}, but its custody records say {said}"
        if _members(database, row["id"]) != (bundle.members or {}):
            yield f"{row['lfn']} has other members or digests than its custody records say"
        yield from _replicas(database, row["id"], bundle)


def _facts(row: sqlite3.Row, bundle: BundleStory) -> Iterator[tuple[str, object, object]]:
    yield "kind", row["kind"], bundle.kind.value
    yield "size", row["size_bytes"], bundle.size_bytes
    yield "adler32", row["adler32"], bundle.adler32


def _members(database: Database, bundle_id: int) -> dict[str, object]:
    rows = database.query("SELECT name, digests FROM member WHERE bundle_id = ?", bundle_id)
    try:
        return {row["name"]: dict(json.loads(row["digests"])) for row in rows}
    except (ValueError, TypeError, RecursionError):
        return {"": "unreadable"}


def _replicas(database: Database, bundle_id: int, bundle: BundleStory) -> Iterator[str]:
    rows = database.query("SELECT endpoint, state FROM replica WHERE bundle_id = ? ORDER BY id", bundle_id)
    for row in rows:
        story = bundle.replicas.get(row["endpoint"])
        said = story.state if story else ReplicaState.WANTED
        if row["state"] != said:
            yield (
                f"{bundle.lfn} at {row['endpoint']} is {row['state']}, but its custody records make it {said}"
                + ("" if story else ": none speaks of it")
            )
    for endpoint in sorted(set(bundle.replicas) - {row["endpoint"] for row in rows}):
        yield f"{bundle.lfn} at {endpoint} is in the custody records only"
