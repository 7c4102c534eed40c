"""How far a campaign is, how fast it goes, and when it will be done, as far as anybody can know."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from mover.catalogue.campaigns import LEFT, Campaign, campaign_history
from mover.catalogue.database import Database
from mover.catalogue.jobs import count_jobs
from mover.states import CampaignState, JobState

#: The rate is that of so many of the latest jobs that were proven.
_LATEST = 50


@dataclass(frozen=True, slots=True)
class CampaignProgress:
    """Where a campaign's jobs are. `per_hour` is the rate of late, `ends_at` what follows; None: nobody can know.

    `running_since` is when it was last started or resumed, None while it does not run; `output_bytes` are those of
    proven outputs.
    """

    counts: dict[JobState, int]
    running_since: datetime | None
    per_hour: float | None
    ends_at: datetime | None
    output_bytes: int

    @property
    def total(self) -> int:
        """All its jobs."""
        return sum(self.counts.values())

    @property
    def left(self) -> int:
        """The jobs for which there is something to do without a person."""
        return sum(self.counts.get(state, 0) for state in LEFT)

    def number(self, state: JobState) -> int:
        """How many are in that state."""
        return self.counts.get(state, 0)


def progress_of(database: Database, campaign: Campaign, *, now: datetime) -> CampaignProgress:
    """What is known at that moment.

    The rate counts proven jobs only, since the campaign was last started or resumed, and up to now: where nothing comes
    any more, the end moves away.
    """
    with database.snapshot():
        counts = count_jobs(database, campaign_id=campaign.id)
        since = _running_since(database, campaign)
        left = sum(counts.get(state, 0) for state in LEFT)
        rate = None if since is None else _rate(database, campaign.id, since, now)
        (row,) = database.query(
            "SELECT coalesce(sum(bundle.size_bytes), 0) AS bytes FROM job JOIN bundle ON bundle.id = job.bundle_id "
            "WHERE job.campaign_id = ? AND job.state = 'proven'",
            campaign.id,
        )
    ends_at = now + timedelta(seconds=left / rate) if rate and left else None
    return CampaignProgress(counts, since, None if rate is None else rate * 3600, ends_at, row["bytes"])


def _running_since(database: Database, campaign: Campaign) -> datetime | None:
    if campaign.state is not CampaignState.RUNNING:
        return None
    return max(moment.at for moment in campaign_history(database, campaign.id) if moment.state is CampaignState.RUNNING)


def _rate(database: Database, number: int, since: datetime, now: datetime) -> float | None:
    """Jobs proven a second; None before the first, or where the clock tells nothing."""
    rows = database.query(
        "SELECT since FROM job WHERE campaign_id = ? AND state = 'proven' AND since >= ? ORDER BY since DESC LIMIT ?",
        number,
        since.isoformat(),
        _LATEST,
    )
    if not rows:
        return None
    # Where there were more before, the first of them only says when the time begins.
    full = len(rows) == _LATEST
    begin = datetime.fromisoformat(rows[-1]["since"]) if full else since
    seconds = (now - begin).total_seconds()
    return (len(rows) - full) / seconds if seconds > 0 else None
