"""The output of a job in the catalogue: a bundle that cannot be made again, and a file kept until it is safe."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from mover.catalogue import custody
from mover.catalogue.database import Database
from mover.catalogue.jobs import JobClaim, guard_job
from mover.catalogue.runs import BundleRecord, list_bundles
from mover.errors import LfnTakenError
from mover.model import BundleDigest
from mover.states import JobEvent, JobState, ReplicaEvent, ReplicaState, next_job_state


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
    report: str,
    now: datetime,
) -> None:
    """Commit a job's output as a bundle with its digests, and where it is wanted, before anything is uploaded.

    Raises:
        LfnTakenError: another bundle has the LFN.
        LeaseLostError: somebody else has the claim now.
        StateError: a person cancelled the job meanwhile.
    """
    at, key, digest = now.isoformat(), claim.key, output.digest
    with database.transaction() as connection:
        guard_job(connection, claim)
        row = connection.execute("SELECT state FROM job WHERE id = ?", (claim.job_id,)).fetchone()
        state = next_job_state(JobState(row["state"]), JobEvent.OUTPUT_TAKEN, subject=str(key))
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
        connection.executemany(
            "INSERT INTO replica (bundle_id, endpoint, state, since, next_attempt_at, backlog) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            [(bundle_id, endpoint, ReplicaState.WANTED, at, at, backlog) for endpoint in endpoints],
        )
        connection.execute(
            "UPDATE job SET state = ?, since = ?, next_attempt_at = ?, bundle_id = ?, report = ?, failures = 0, "
            "problem = NULL, hint = NULL WHERE id = ?",
            (state, at, at, bundle_id, report, claim.job_id),
        )
        custody.append(
            connection,
            now,
            key.run,
            JobEvent.OUTPUT_TAKEN,
            job=str(key),
            lfn=output.lfn,
            kind=key.kind,
            size_bytes=digest.size_bytes,
            adler32=digest.adler32,
            members={member.name: dict(member.digests) for member in digest.members},
        )
        if output.stored:
            endpoint, path = output.stored
            connection.execute(
                "UPDATE replica SET state = ?, intent_path = ?, uploads = 1 WHERE bundle_id = ? AND endpoint = ?",
                (ReplicaState.COPIED, path, bundle_id, endpoint),
            )
            facts = {"lfn": output.lfn, "endpoint": endpoint, "route": "stored by the batch system", "path": path}
            custody.append(connection, now, key.run, ReplicaEvent.UPLOADED, **facts)


def kept_outputs(database: Database) -> list[BundleRecord]:
    """The bundles whose ready-made file is kept here."""
    return list_bundles(database, ready_made_only=True)


def forget_ready_made(database: Database, bundle: BundleRecord) -> None:
    """Note that the ready-made file of a bundle is not relied upon any more, before it is removed."""
    with database.transaction() as connection:
        connection.execute("UPDATE bundle SET ready_made = NULL WHERE id = ?", (bundle.id,))


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
