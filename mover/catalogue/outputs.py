"""The output of a job in the catalogue: a bundle that cannot be made again, and a file kept until it is safe."""

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from mover.catalogue import custody
from mover.catalogue.database import Database
from mover.catalogue.jobs import JobClaim, JobRecord, get_job, move_claimed_job
from mover.catalogue.runs import BundleRecord, list_bundles
from mover.errors import LfnTakenError
from mover.model import BundleDigest
from mover.states import JobEvent, JobState, ReplicaEvent, ReplicaState


@dataclass(frozen=True, slots=True)
class Output:
    """What a job has made: its file here (`ready_made`), or where the batch system has stored it (`stored`).

    `stored` is the endpoint and the path there.
    """

    lfn: str
    digest: BundleDigest
    ready_made: Path | None = None
    stored: tuple[str, str] | None = None


def record_output(
    database: Database,
    claim: JobClaim,
    output: Output,
    *,
    endpoints: Iterable[str],
    backlog: bool,
    attempt: int,
    report: str | None,
    now: datetime,
) -> None:
    """Commit a job's output as a bundle with its digests, and where it is wanted, before anything is uploaded.

    Args:
        attempt: the job's, from 1: what a batch system stores has it in its temporary name.

    Raises:
        LfnTakenError: another bundle has the LFN.
        LeaseLostError: somebody else has the claim now.
        StateError: a person cancelled the job meanwhile.
    """
    at, key, digest = now.isoformat(), claim.key, output.digest
    with database.transaction() as connection:
        move_claimed_job(
            connection,
            claim,
            JobEvent.OUTPUT_TAKEN,
            now,
            lfn=output.lfn,
            kind=key.kind,
            size_bytes=digest.size_bytes,
            adler32=digest.adler32,
            members={member.name: dict(member.digests) for member in digest.members},
        )
        if connection.execute("SELECT 1 FROM bundle WHERE lfn = ?", (output.lfn,)).fetchone():
            raise LfnTakenError(
                f"the LFN {output.lfn} belongs to another bundle already",
                hint="mend `lfn` and `lfn_again` in `[job]`: they must differ for every run, release and iteration",
            )
        bundle_id = connection.execute(
            "INSERT INTO bundle (run, kind, lfn, size_bytes, adler32, digested_at, ready_made) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (key.run, key.kind, output.lfn, digest.size_bytes, digest.adler32, at, _text(output.ready_made)),
        ).lastrowid
        connection.executemany(
            "INSERT INTO member (bundle_id, position, name, size_bytes, digests) VALUES (?, ?, ?, ?, ?)",
            [
                (bundle_id, position, member.name, member.size_bytes, json.dumps(member.digests))
                for position, member in enumerate(digest.members)
            ],
        )
        _want(connection, bundle_id, endpoints, backlog=backlog, at=at)
        connection.execute(
            "UPDATE job SET next_attempt_at = ?, bundle_id = ?, report = ?, failures = 0, problem = NULL, hint = NULL "
            "WHERE id = ?",
            (at, bundle_id, report, claim.job_id),
        )
        if output.stored:
            endpoint, path = output.stored
            connection.execute(
                "UPDATE replica SET state = ?, intent_path = ?, uploads = ? WHERE bundle_id = ? AND endpoint = ?",
                (ReplicaState.COPIED, path, attempt, bundle_id, endpoint),
            )
            facts = {"lfn": output.lfn, "endpoint": endpoint, "route": "stored by the batch system", "path": path}
            custody.append(connection, now, key.run, ReplicaEvent.UPLOADED, **facts)


def record_proven(
    database: Database,
    claim: JobClaim,
    bundle_id: int,
    *,
    endpoints: Iterable[str],
    backlog: bool,
    proof: str,
    now: datetime,
    **facts: object,
) -> None:
    """Commit that a job's output is proven, and want it at every one of `endpoints`.

    Raises:
        LeaseLostError: somebody else has the claim now.
    """
    with database.transaction() as connection:
        move_claimed_job(connection, claim, JobEvent.OUTPUT_PROVEN, now, **facts)
        connection.execute(
            "UPDATE job SET proof = ?, failures = 0, problem = NULL, hint = NULL WHERE id = ?", (proof, claim.job_id)
        )
        _want(connection, bundle_id, endpoints, backlog=backlog, at=now.isoformat())


def kept_outputs(database: Database) -> list[BundleRecord]:
    """The bundles whose ready-made file is kept here."""
    return list_bundles(database, ready_made_only=True)


def unproven_outputs(database: Database) -> set[int]:
    """The ids of the bundles that are outputs of jobs, and were not proven, or not yet."""
    rows = database.query("SELECT bundle_id FROM job WHERE bundle_id NOTNULL AND state != ?", JobState.PROVEN)
    return {row["bundle_id"] for row in rows}


def is_nowhere(database: Database, bundle_id: int) -> bool:
    """Whether nothing is left of an output: it is not kept here, and stored nowhere."""
    return bool(database.query("SELECT 1 FROM output_nowhere WHERE id = ?", bundle_id))


def job_of_bundle(database: Database, bundle_id: int) -> JobRecord:
    """The job whose output the bundle is."""
    (row,) = database.query("SELECT id FROM job WHERE bundle_id = ?", bundle_id)
    return get_job(database, row["id"])


def forget_ready_made(database: Database, bundle: BundleRecord) -> None:
    """Note that the ready-made file of a bundle is not relied upon any more, before it is removed."""
    with database.transaction() as connection:
        connection.execute("UPDATE bundle SET ready_made = NULL WHERE id = ?", (bundle.id,))


def _want(
    connection: sqlite3.Connection, bundle_id: int | None, endpoints: Iterable[str], *, backlog: bool, at: str
) -> None:
    connection.executemany(
        "INSERT INTO replica (bundle_id, endpoint, state, since, next_attempt_at, backlog) VALUES (?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (bundle_id, endpoint) DO NOTHING",
        [(bundle_id, endpoint, ReplicaState.WANTED, at, at, backlog) for endpoint in endpoints],
    )


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
