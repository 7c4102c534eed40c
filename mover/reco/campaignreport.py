"""A campaign for people and programs: the same facts for the terminal, as JSON and as a page."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mover.catalogue.campaignprogress import CampaignProgress, progress_of
from mover.catalogue.campaigns import Campaign, CampaignMoment, campaign_history, get_campaign
from mover.catalogue.database import Database
from mover.catalogue.jobs import JobRecord, troubled_jobs
from mover.model import BundleKind
from mover.states import CampaignState, JobState


@dataclass(frozen=True, slots=True)
class CampaignReport:
    """What is known of a campaign at a moment: `failed` jobs need a person, `troubled` ones are tried again."""

    at: datetime
    campaign: Campaign
    history: tuple[CampaignMoment, ...]
    progress: CampaignProgress
    by_kind: dict[BundleKind, dict[JobState, int]]
    failed: tuple[JobRecord, ...]
    troubled: tuple[JobRecord, ...]

    @property
    def is_well(self) -> bool:
        """Whether every job of it is proven."""
        return self.progress.number(JobState.PROVEN) == self.progress.total

    @property
    def end(self) -> str:
        """When it will be done, in words; honest where nobody knows."""
        if self.campaign.state is not CampaignState.RUNNING:
            return f"it is {self.campaign.state}"
        if self.progress.ends_at is None:
            return "unknown: nothing was proven since it was started" if self.progress.left else "now"
        return f"about {self.progress.ends_at:%Y-%m-%d %H:%M}Z, at {self.progress.per_hour:.3g} jobs an hour"

    def __str__(self) -> str:
        """In one line."""
        counts = [f"{self.progress.number(state)} {state}" for state in JobState if self.progress.number(state)]
        return (
            f"campaign {self.campaign.id} is {self.campaign.state}: {', '.join(counts)} of {self.progress.total} jobs"
        )

    def document(self) -> dict[str, Any]:
        """As JSON takes it; docs/campaigns.md has its keys."""
        campaign, progress = self.campaign, self.progress
        return {
            "campaign": campaign.id,
            "at": self.at.isoformat(),
            "state": campaign.state.value,
            "release": campaign.release,
            "chosen": campaign.chosen,
            "most_jobs": campaign.most_jobs,
            "history": [
                {"at": one.at.isoformat(), "by": one.by, "event": one.event, "state": one.state.value}
                for one in self.history
            ],
            "jobs": {state.value: progress.number(state) for state in JobState},
            "kinds": {
                kind.value: {state.value: counts.get(state, 0) for state in JobState}
                for kind, counts in self.by_kind.items()
            },
            "left": progress.left,
            "per_hour": progress.per_hour,
            "ends_at": progress.ends_at.isoformat() if progress.ends_at else None,
            "output_bytes": progress.output_bytes,
            "failed": [_job(job) for job in self.failed],
            "troubled": [_job(job) for job in self.troubled],
        }

    def to_json(self) -> str:
        """The document as text."""
        return json.dumps(self.document(), indent=1, ensure_ascii=True) + "\n"


def report_campaign(database: Database, number: int, *, now: datetime) -> CampaignReport:
    """The campaign as it is.

    Raises:
        CampaignError: there is none of that number.
    """
    campaign = get_campaign(database, number)
    by_kind: dict[BundleKind, dict[JobState, int]] = {}
    for row in database.query(
        "SELECT kind, state, count(*) AS number FROM job WHERE campaign_id = ? GROUP BY kind, state ORDER BY kind DESC",
        number,
    ):
        by_kind.setdefault(BundleKind(row["kind"]), {})[JobState(row["state"])] = row["number"]
    bad = troubled_jobs(database, number)
    return CampaignReport(
        now,
        campaign,
        tuple(campaign_history(database, number)),
        progress_of(database, campaign, now=now),
        by_kind,
        tuple(job for job in bad if job.state is JobState.QUARANTINED),
        tuple(job for job in bad if job.state is not JobState.QUARANTINED),
    )


def _job(job: JobRecord) -> dict[str, Any]:
    return {
        "run": job.key.run,
        "kind": job.key.kind.value,
        "iteration": job.key.iteration,
        "state": job.state.value,
        "attempts": job.attempts,
        "problem": job.problem,
        "hint": job.hint,
    }
