"""Campaigns in the catalogue: many jobs that a person wants, begun, held and ended together.

Their jobs are jobs like others; a campaign says whether they have their turn, and how many at a time.
"""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from mover.catalogue.custody import who
from mover.catalogue.database import Database
from mover.catalogue.jobs import JobKey, get_job, jobs_in, move_job, want_jobs_within
from mover.errors import CampaignError, MoverError
from mover.states import CAMPAIGN_CREATED, CampaignEvent, CampaignState, JobEvent, JobState, next_campaign_state

#: The states in which the agent still has something to do for a job.
LEFT = (JobState.WANTED, JobState.SUBMITTED, JobState.COLLECTED)

_LEFT = "SELECT 1 FROM job WHERE job.campaign_id = campaign.id AND job.state IN ('wanted', 'submitted', 'collected')"
_SETTLED = (
    f"SELECT id, 0 AS more FROM campaign WHERE state IN ('running', 'paused') AND NOT EXISTS ({_LEFT}) "  # noqa: S608 - the text above
    f"UNION ALL SELECT id, 1 FROM campaign WHERE state = 'finished' AND EXISTS ({_LEFT}) ORDER BY id"
)


@dataclass(frozen=True, slots=True)
class Campaign:
    """What a person asked for (`chosen`, in words), and where it is. `most_jobs` are submitted at a time."""

    id: int
    release: str
    created_at: datetime
    state: CampaignState
    most_jobs: int
    chosen: str


@dataclass(frozen=True, slots=True)
class CampaignMoment:
    """Something that happened to a campaign, by whom (user@host), and its state after it."""

    at: datetime
    by: str
    event: str
    state: CampaignState


def create_campaign(
    database: Database,
    *,
    release: str,
    keys: Iterable[JobKey],
    again: Iterable[int] = (),
    most_jobs: int,
    chosen: str,
    now: datetime,
) -> Campaign:
    """Record a campaign and its jobs, all at once; none of them has its turn before it is started.

    Args:
        keys: the jobs; those that somebody else has wanted meanwhile stay as they are.
        again: ids of cancelled jobs without an output, to be taken up again.

    Raises:
        CampaignError: no job is left for it.
    """
    with database.transaction() as connection:
        number = connection.execute(
            "INSERT INTO campaign (release, created_at, state, most_jobs, chosen) VALUES (?, ?, ?, ?, ?)",
            (release, now.isoformat(), CampaignState.CREATED, most_jobs, chosen),
        ).lastrowid
        campaign = get_campaign(database, number or 0)
        _note(connection, campaign.id, CAMPAIGN_CREATED, CampaignState.CREATED, now)
        added = len(want_jobs_within(connection, keys, now=now, campaign_id=campaign.id))
        for job in (get_job(database, job_id) for job_id in again):
            if job.state is JobState.CANCELLED and job.bundle_id is None:
                move_job(connection, job.id, JobEvent.RETRIED, now=now, campaign=campaign.id)
                connection.execute("UPDATE job SET campaign_id = ? WHERE id = ?", (campaign.id, job.id))
                added += 1
        if not added:
            raise CampaignError(
                f"there is nothing to do for a campaign over {chosen}", hint="`--dry-run` says why each run is left out"
            )
        return campaign


def get_campaign(database: Database, number: int) -> Campaign:
    """The campaign of that number.

    Raises:
        CampaignError: there is none.
    """
    rows = database.query("SELECT * FROM campaign WHERE id = ?", number)
    if not rows:
        raise CampaignError(f"there is no campaign {number}", hint="`mover campaign status` lists them")
    return _campaign(rows[0])


def list_campaigns(database: Database) -> list[Campaign]:
    """All of them, the latest first."""
    return [_campaign(row) for row in database.query("SELECT * FROM campaign ORDER BY id DESC")]


def campaign_history(database: Database, number: int) -> list[CampaignMoment]:
    """What happened to a campaign, oldest first."""
    rows = database.query("SELECT * FROM campaign_event WHERE campaign_id = ? ORDER BY id", number)
    return [
        CampaignMoment(datetime.fromisoformat(row["at"]), row["by"], row["event"], CampaignState(row["state"]))
        for row in rows
    ]


def move_campaign(database: Database, number: int, event: CampaignEvent, *, now: datetime) -> Campaign:
    """Move a campaign to its next state.

    Raises:
        CampaignError: there is none of that number.
        StateError: the state table forbids it.
    """
    with database.transaction() as connection:
        return _move(database, connection, number, event, now)


def cancel_campaign(database: Database, number: int, *, now: datetime) -> int:
    """Cancel a campaign and its jobs that have no output yet; the agent ends those that run. Returns how many.

    Raises:
        CampaignError: there is none of that number.
        StateError: the state table forbids it.
    """
    with database.transaction() as connection:
        _move(database, connection, number, CampaignEvent.CANCELLED, now)
        jobs = jobs_in(database, JobState.WANTED, campaign_id=number)
        jobs += jobs_in(database, JobState.SUBMITTED, campaign_id=number)
        for job in jobs:
            move_job(connection, job.id, JobEvent.CANCELLED, now=now, campaign=number)
        return len(jobs)


def settle_campaigns(database: Database, *, now: datetime) -> list[Campaign]:
    """Finish campaigns of which nothing is left, take up those whose jobs were retried; returns both kinds."""
    if not database.query(_SETTLED):
        return []
    with database.transaction() as connection:
        # A person may have been quicker: it is asked again, in the transaction.
        return [
            _move(
                database, connection, row["id"], CampaignEvent.TAKEN_UP if row["more"] else CampaignEvent.FINISHED, now
            )
            for row in database.query(_SETTLED)
        ]


def put_last(database: Database, run: int, problem: MoverError, *, now: datetime) -> None:
    """Let a run's wanted jobs give their turn to the other jobs of their campaigns, since they wait for something."""
    with database.transaction() as connection:
        connection.execute(
            "UPDATE job SET failures = failures + 1, next_attempt_at = ?, problem = ?, hint = ? "
            "WHERE run = ? AND state = 'wanted' AND campaign_id NOTNULL AND owner IS NULL",
            (now.isoformat(), problem.message, problem.hint, run),
        )


def _move(
    database: Database, connection: sqlite3.Connection, number: int, event: CampaignEvent, now: datetime
) -> Campaign:
    before = get_campaign(database, number)
    state = next_campaign_state(before.state, event, subject=f"campaign {number}")
    connection.execute("UPDATE campaign SET state = ? WHERE id = ?", (state, number))
    _note(connection, number, event, state, now)
    return get_campaign(database, number)


def _note(connection: sqlite3.Connection, number: int, event: str, state: CampaignState, now: datetime) -> None:
    connection.execute(
        "INSERT INTO campaign_event (campaign_id, at, by, event, state) VALUES (?, ?, ?, ?, ?)",
        (number, now.isoformat(), who(), event, state),
    )


def _campaign(row: sqlite3.Row) -> Campaign:
    created_at, state = datetime.fromisoformat(row["created_at"]), CampaignState(row["state"])
    return Campaign(row["id"], row["release"], created_at, state, row["most_jobs"], row["chosen"])
