"""Jobs in the catalogue: what is wanted, what was submitted, and what has been proven of its output.

As with replicas, work in flight is a claim, never a state.
"""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from mover.catalogue import custody
from mover.catalogue.database import Database
from mover.catalogue.jobchoice import choose_job
from mover.catalogue.owner import is_dead
from mover.catalogue.remains import note_remains
from mover.errors import LeaseLostError, MoverError
from mover.model import BundleKind
from mover.states import JOB_WANTED, JobEvent, JobState, next_job_state


@dataclass(frozen=True, slots=True)
class JobKey:
    """Which job it is: there is one for each of these, ever."""

    run: int
    kind: BundleKind
    release: str
    iteration: int = 1

    def __str__(self) -> str:
        """For people: 'reco of run 4742 with 0.4.1'."""
        again = f", iteration {self.iteration}" if self.iteration > 1 else ""
        return f"{self.kind} of run {self.run} with {self.release}{again}"


@dataclass(frozen=True, slots=True)
class JobRecord:
    """What the catalogue knows of a job; the latest attempt is in `name`, `batch_id`, `phase` and so on."""

    id: int
    key: JobKey
    campaign_id: int | None
    state: JobState
    since: datetime
    attempts: int
    failures: int
    next_attempt_at: datetime
    batch: str | None
    name: str | None
    batch_id: str | None
    status: str | None
    ended: bool
    phase: str | None
    exit_code: int | None
    revision: str | None
    heartbeat: str | None
    heartbeat_at: datetime | None
    missing_since: datetime | None
    bundle_id: int | None
    report: str | None
    proof: str | None
    problem: str | None
    hint: str | None
    owner: str | None
    lease_until: str

    def is_claimed(self, now: datetime) -> bool:
        """Whether somebody works on it, as far as a lease tells."""
        return self.owner is not None and self.lease_until >= now.isoformat()

    @property
    def lives(self) -> bool:
        """Whether the batch system may still have the latest attempt, whatever became of the job."""
        return self.name is not None and not self.ended


@dataclass(frozen=True, slots=True)
class JobClaim:
    """The right to work on a job until `lease` runs out or somebody else takes it."""

    job_id: int
    key: JobKey
    owner: str
    fence: int
    lease: timedelta


def want_jobs(
    database: Database, keys: Iterable[JobKey], *, now: datetime, campaign_id: int | None = None
) -> list[JobKey]:
    """Want jobs, and return those that were not known before: no job is ever wanted twice."""
    with database.transaction() as connection:
        return want_jobs_within(connection, keys, now=now, campaign_id=campaign_id)


def want_jobs_within(
    connection: sqlite3.Connection, keys: Iterable[JobKey], *, now: datetime, campaign_id: int | None = None
) -> list[JobKey]:
    """As `want_jobs`, as a part of a transaction."""
    facts = {} if campaign_id is None else {"campaign": campaign_id}
    added = []
    for key in keys:
        new = connection.execute(
            "INSERT INTO job (run, kind, release, iteration, campaign_id, state, since, next_attempt_at) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (run, kind, release, iteration) DO NOTHING",
            (
                key.run,
                key.kind,
                key.release,
                key.iteration,
                campaign_id,
                JobState.WANTED,
                now.isoformat(),
                now.isoformat(),
            ),
        ).rowcount
        if new:
            custody.append(connection, now, key.run, JOB_WANTED, job=str(key), **facts)
            added.append(key)
    return added


def get_job(database: Database, job_id: int) -> JobRecord:
    """One job."""
    (row,) = database.query("SELECT * FROM job WHERE id = ?", job_id)
    return _job(row)


def find_job(database: Database, job_id: int) -> JobRecord | None:
    """The job of that id, if there is one."""
    rows = database.query("SELECT * FROM job WHERE id = ?", job_id)
    return _job(rows[0]) if rows else None


def jobs_of(database: Database, run: int) -> list[JobRecord]:
    """The run's jobs, in the order in which they were wanted."""
    return [_job(row) for row in database.query("SELECT * FROM job WHERE run = ? ORDER BY id", run)]


def jobs_in(database: Database, state: JobState, *, campaign_id: int | None = None) -> list[JobRecord]:
    """The jobs in that state, of one campaign or of all and none."""
    statement = "SELECT * FROM job WHERE state = ? AND (? IS NULL OR campaign_id = ?) ORDER BY id"
    return [_job(row) for row in database.query(statement, state, campaign_id, campaign_id)]


def jobs_under_way(database: Database) -> list[JobRecord]:
    """The jobs that are submitted, or about to be."""
    return [_job(row) for row in database.query("SELECT * FROM job_under_way ORDER BY id")]


def jobs_to_end(database: Database) -> list[JobRecord]:
    """The jobs that are not to be done, or to be done again, but that the batch system may still have."""
    statement = "SELECT * FROM job WHERE state IN (?, ?, ?) AND name NOTNULL AND ended = 0 ORDER BY id"
    unwanted = (JobState.CANCELLED, JobState.WANTED, JobState.QUARANTINED)
    return [_job(row) for row in database.query(statement, *unwanted)]


def troubled_jobs(database: Database, campaign_id: int) -> list[JobRecord]:
    """A campaign's jobs that need a person, or are tried again, by run."""
    statement = (
        "SELECT * FROM job WHERE campaign_id = ? AND state NOT IN ('proven', 'cancelled') "
        "AND (state = 'quarantined' OR problem NOTNULL) ORDER BY run, id"
    )
    return [_job(row) for row in database.query(statement, campaign_id)]


def list_jobs(database: Database, states: Iterable[JobState], *, most: int) -> list[JobRecord]:
    """At most so many jobs in any of the states, which are in order of interest."""
    found: list[JobRecord] = []
    for state in states:
        rows = database.query("SELECT * FROM job WHERE state = ? ORDER BY run, id LIMIT ?", state, most - len(found))
        found += [_job(row) for row in rows]
    return found


def last_iteration(connection: sqlite3.Connection, key: JobKey) -> int:
    """The last iteration that was ever wanted of a run, kind and release; 0 if there was none."""
    row = connection.execute(
        "SELECT max(iteration) AS last FROM job WHERE run = ? AND kind = ? AND release = ?",
        (key.run, key.kind, key.release),
    ).fetchone()
    return row["last"] or 0


def count_jobs(database: Database, *, campaign_id: int | None = None) -> dict[JobState, int]:
    """How many jobs there are in each state, of one campaign or of all and none."""
    rows = database.query(
        "SELECT state, count(*) AS number FROM job WHERE ? IS NULL OR campaign_id = ? GROUP BY state",
        campaign_id,
        campaign_id,
    )
    return {JobState(row["state"]): row["number"] for row in rows}


def claim_job(
    database: Database, *, owner: str, lease: timedelta, now: datetime, most: int, ahead: int
) -> JobClaim | None:
    """Claim a job for which there is something to do; None if there is none. The limits are those of `choose_job`."""
    with database.transaction() as connection:
        row = choose_job(connection, now=now, most=most, ahead=ahead)
        if row is None:
            return None
        claim = JobClaim(row["id"], _key(row), owner, row["fence"] + 1, lease)
        connection.execute(
            "UPDATE job SET owner = ?, fence = ?, lease_until = ? WHERE id = ?",
            (owner, claim.fence, (now + lease).isoformat(), claim.job_id),
        )
        return claim


def renew_job_claim(database: Database, claim: JobClaim, *, now: datetime) -> None:
    """Extend the lease of work that goes on.

    Raises:
        LeaseLostError: somebody else has the claim now.
    """
    with database.transaction() as connection:
        _guard(connection, claim)
        until = (now + claim.lease).isoformat()
        connection.execute("UPDATE job SET lease_until = ? WHERE id = ?", (until, claim.job_id))


def release_job_claim(database: Database, claim: JobClaim) -> None:
    """Let go of a claim; one that was lost already is left alone."""
    _free(database, claim.job_id, claim.owner, claim.fence)


def free_dead_job_claims(database: Database) -> None:
    """Free the claims of agents of this machine that no longer run."""
    for row in database.query("SELECT id, owner, fence FROM job WHERE owner IS NOT NULL"):
        if is_dead(row["owner"]):
            _free(database, row["id"], row["owner"], row["fence"])


def record_attempt(
    database: Database, claim: JobClaim, *, batch: str, name: str, revision: str | None, now: datetime
) -> None:
    """Commit the name of the attempt that is about to be submitted, so that it is found whatever happens then.

    Raises:
        LeaseLostError: somebody else has the claim now.
        StateError: a person cancelled it meanwhile.
    """
    facts = {"batch": batch, "name": name, "revision": revision}
    with database.transaction() as connection:
        move_claimed_job(connection, claim, JobEvent.SUBMITTED, now, **facts)
        connection.execute(
            "UPDATE job SET attempts = attempts + 1, batch = ?, name = ?, revision = ?, batch_id = NULL, "
            "status = NULL, ended = 0, phase = NULL, exit_code = NULL, heartbeat = NULL, heartbeat_at = NULL, "
            "missing_since = NULL, report = NULL, problem = NULL, hint = NULL WHERE id = ?",
            (batch, name, revision, claim.job_id),
        )


def record_job_event(
    database: Database,
    claim: JobClaim,
    event: JobEvent,
    *,
    now: datetime,
    problem: MoverError | None = None,
    report: str | None = None,
    proof: str | None = None,
    **facts: object,
) -> None:
    """Move a job to its next state and clear its failures. `problem` is what needs a person.

    Raises:
        LeaseLostError: somebody else has the claim now.
        StateError: the state table forbids it.
    """
    if problem:
        facts["problem"] = problem.message
    with database.transaction() as connection:
        move_claimed_job(connection, claim, event, now, **facts)
        connection.execute(
            "UPDATE job SET failures = 0, ended = max(ended, ?), next_attempt_at = ?, problem = ?, hint = ?, "
            "report = coalesce(?, report), proof = coalesce(?, proof) WHERE id = ?",
            (
                event is JobEvent.GAVE_UP,
                now.isoformat(),
                problem.message if problem else None,
                problem.hint if problem else None,
                report,
                proof,
                claim.job_id,
            ),
        )


def record_job_failure(
    database: Database,
    claim: JobClaim,
    error: MoverError,
    *,
    now: datetime,
    next_attempt_at: datetime,
    again: bool,
    report: str | None = None,
) -> None:
    """Note why an attempt failed and when to try again.

    Args:
        again: the job has to be submitted anew; else what failed is our own work on it, which is tried again.

    Raises:
        LeaseLostError: somebody else has the claim now.
        StateError: the state table forbids it.
    """
    with database.transaction() as connection:
        if again:
            move_claimed_job(connection, claim, JobEvent.FAILED, now, problem=error.message)
        else:
            _guard(connection, claim)
        connection.execute(
            "UPDATE job SET failures = failures + ?, ended = max(ended, ?), problem = ?, hint = ?, "
            "next_attempt_at = ?, report = coalesce(?, report) WHERE id = ?",
            (again, again, error.message, error.hint, next_attempt_at.isoformat(), report, claim.job_id),
        )


def postpone_job(database: Database, claim: JobClaim, *, until: datetime, why: str) -> None:
    """Look at the job again later; nothing is wrong.

    Raises:
        LeaseLostError: somebody else has the claim now.
    """
    with database.transaction() as connection:
        _guard(connection, claim)
        connection.execute(
            "UPDATE job SET next_attempt_at = ?, status = ?, problem = NULL, hint = NULL WHERE id = ?",
            (until.isoformat(), why, claim.job_id),
        )


def move_job(connection: sqlite3.Connection, job_id: int, event: JobEvent, *, now: datetime, **facts: object) -> None:
    """Move a job by a person's will, whoever has claimed it: the claim does not hold any longer.

    Raises:
        StateError: the state table forbids it, as the job is now.
    """
    job = read_job(connection, job_id)
    state = next_job_state(job.state, event, subject=f"the {job.key}")
    connection.execute(
        "UPDATE job SET state = ?, since = ?, next_attempt_at = ?, failures = 0, problem = NULL, hint = NULL, "
        "owner = NULL, fence = fence + 1 WHERE id = ?",
        (state, now.isoformat(), now.isoformat(), job.id),
    )
    custody.append(connection, now, job.key.run, event, job=str(job.key), **facts)


def read_job(connection: sqlite3.Connection, job_id: int) -> JobRecord:
    """The job as it is at this moment of a transaction."""
    return _job(connection.execute("SELECT * FROM job WHERE id = ?", (job_id,)).fetchone())


def move_claimed_job(
    connection: sqlite3.Connection, claim: JobClaim, event: JobEvent, now: datetime, **facts: object
) -> None:
    """Move a job to its next state, as a part of a transaction.

    Raises:
        LeaseLostError: somebody else has the claim now.
        StateError: the state table forbids it.
    """
    row = _guard(connection, claim)
    state = next_job_state(JobState(row["state"]), event, subject=str(claim.key))
    connection.execute("UPDATE job SET state = ?, since = ? WHERE id = ?", (state, now.isoformat(), claim.job_id))
    if row["state"] == JobState.SUBMITTED:
        note_remains_of(connection, row, now)
    custody.append(connection, now, claim.key.run, event, job=str(claim.key), **facts)


def note_remains_of(connection: sqlite3.Connection, row: sqlite3.Row, now: datetime) -> None:
    """Note that the batch system may keep something of the latest attempt, which is over."""
    if row["batch"] is not None and row["name"] is not None:
        batch_id = row["batch_id"] or row["name"]
        note_remains(connection, batch=row["batch"], batch_id=batch_id, name=row["name"], now=now)


def _free(database: Database, job_id: int, owner: str, fence: int) -> None:
    with database.transaction() as connection:
        connection.execute(
            "UPDATE job SET owner = NULL WHERE id = ? AND owner = ? AND fence = ?", (job_id, owner, fence)
        )


def _guard(connection: sqlite3.Connection, claim: JobClaim) -> sqlite3.Row:
    row: sqlite3.Row | None = connection.execute(
        "SELECT * FROM job WHERE id = ? AND owner = ? AND fence = ?", (claim.job_id, claim.owner, claim.fence)
    ).fetchone()
    if row is None:
        raise LeaseLostError(
            f"the claim on the {claim.key} was taken over", hint="another agent works on it now; nothing to do"
        )
    return row


def _key(row: sqlite3.Row) -> JobKey:
    return JobKey(row["run"], BundleKind(row["kind"]), row["release"], row["iteration"])


def _job(row: sqlite3.Row) -> JobRecord:
    values = {name: row[name] for name in JobRecord.__dataclass_fields__ if name != "key"}
    for name in ("since", "next_attempt_at", "heartbeat_at", "missing_since"):
        values[name] = None if values[name] is None else datetime.fromisoformat(values[name])
    return JobRecord(**{**values, "key": _key(row), "state": JobState(row["state"]), "ended": bool(row["ended"])})
