"""Which job has its turn: what frees the batch system, what waits for its proof, new work; live before campaigns."""

import sqlite3
from datetime import datetime

from mover.catalogue.database import Database
from mover.states import CampaignState

# An attempt that was cancelled is to be gone before the next one begins.
_GONE = "(name IS NULL OR ended = 1)"

# A person is to look at the run first; what was submitted before goes on to its proof.
_NOT_HELD = "NOT EXISTS (SELECT 1 FROM run WHERE run.number = job.run AND run.state = 'quarantined')"

_FREE = "next_attempt_at <= ?1 AND (owner IS NULL OR lease_until < ?1)"

_ENDED = (
    f"SELECT * FROM job WHERE state = 'submitted' AND ended = 1 AND {_FREE} "  # noqa: S608 - the text above
    "ORDER BY campaign_id NOTNULL, since LIMIT 1"
)

_COLLECTED = (
    f"SELECT * FROM job WHERE state = 'collected' AND {_FREE} "  # noqa: S608 - as above
    "AND (EXISTS (SELECT 1 FROM replica WHERE replica.bundle_id = job.bundle_id "
    "AND replica.state IN ('verified', 'archived')) "
    "OR EXISTS (SELECT 1 FROM output_nowhere WHERE output_nowhere.id = job.bundle_id)) "
    "ORDER BY campaign_id NOTNULL, since LIMIT 1"
)

_LIVE = (
    f"SELECT * FROM job INDEXED BY job_turn WHERE state = 'wanted' AND campaign_id IS NULL AND {_GONE} AND {_FREE} "  # noqa: S608 - as above
    f"AND {_NOT_HELD} ORDER BY failures, run, kind DESC LIMIT 1"
)

#: A campaign's jobs in their turn; what failed comes last, so that it blocks nothing.
_TURN = (
    f"SELECT * FROM job INDEXED BY job_turn WHERE state = 'wanted' AND campaign_id = ?3 AND {_NOT_HELD} "  # noqa: S608 - as above
    "ORDER BY failures, run, kind DESC LIMIT ?2"
)

_OF_CAMPAIGN = f"SELECT * FROM ({_TURN}) WHERE {_GONE} AND {_FREE} LIMIT 1"  # noqa: S608 - as above

_WAITING = (CampaignState.CREATED, CampaignState.PAUSED)
# In a cancelled or finished one, only what a person has retried is wanted.
_CAMPAIGNS = (
    "SELECT id, most_jobs FROM campaign WHERE state NOT IN (?, ?) "
    "AND EXISTS (SELECT 1 FROM job WHERE job.campaign_id = campaign.id AND job.state = 'wanted') ORDER BY id"
)

_UNDER_WAY = (
    "SELECT count(*) AS number FROM job_under_way WHERE (?1 IS NULL OR campaign_id = ?1) "
    "AND (state = 'submitted' OR lease_until >= ?2)"
)


def choose_job(connection: sqlite3.Connection, *, now: datetime, most: int, ahead: int) -> sqlite3.Row | None:
    """The row of the job whose turn it is; None if there is nothing to do.

    Args:
        most: how many may be submitted, or about to be, at a time; a campaign has a limit of its own too.
        ahead: how many of a campaign's jobs are considered at a time: no more raw data is recalled from tape for it.
    """
    at = now.isoformat()
    for statement in (_ENDED, _COLLECTED):
        if (row := _first(connection, statement, at)) is not None:
            return row
    if _under_way(connection, None, at) >= most:
        return None
    if (row := _first(connection, _LIVE, at)) is not None:
        return row
    for campaign in connection.execute(_CAMPAIGNS, _WAITING).fetchall():
        if _under_way(connection, campaign["id"], at) >= campaign["most_jobs"]:
            continue
        if (row := _first(connection, _OF_CAMPAIGN, at, ahead, campaign["id"])) is not None:
            return row
    return None


def runs_in_turn(database: Database, *, ahead: int) -> list[int]:
    """The runs of at most so many wanted jobs of campaigns that are under way, in their turn."""
    runs: list[int] = []
    for campaign in database.query(_CAMPAIGNS, *_WAITING):
        rows = database.query(_TURN, None, ahead - len(runs), campaign["id"])
        runs += [row["run"] for row in rows]
    return runs


def _under_way(connection: sqlite3.Connection, campaign: int | None, at: str) -> int:
    (row,) = connection.execute(_UNDER_WAY, (campaign, at))
    number: int = row["number"]
    return number


def _first(connection: sqlite3.Connection, statement: str, *values: object) -> sqlite3.Row | None:
    row: sqlite3.Row | None = connection.execute(statement, values).fetchone()
    return row
