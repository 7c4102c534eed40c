"""The bench of the reco agent, with more runs, none of which is reconstructed before a campaign wants it."""

from pathlib import Path

from mover.catalogue.campaigns import Campaign, create_campaign, get_campaign, move_campaign
from mover.catalogue.jobs import JobRecord, jobs_of
from mover.model import BundleKind
from mover.ports import JobSpec
from mover.reco.campaigns import CampaignChoice, CampaignPlan, plan_campaign
from mover.reco.releases import Releases
from mover.states import CampaignEvent, CampaignState, JobState
from tests.unit.mover.auditing import add_safe_runs
from tests.unit.mover.reco.recobench import RELEASE, RecoBench

#: Runs from here on are reconstructed as they come.
LIVE = 5000

RECO = (BundleKind.RECO,)


class CampaignBench(RecoBench):
    """A bench with runs 4742 to 4742 + `more`, and campaigns over them."""

    def __init__(self, base: Path, *, more: int = 4, **reco: object) -> None:
        super().__init__(base)
        self.tune_reco(first_run=LIVE, **reco)
        add_safe_runs(self, range(4743, 4743 + more))
        self.last = 4742 + more

    def tune_reco(self, **values: object) -> None:
        """Change values of `[reco]`, and start the agent anew."""
        assert self.config.reco is not None
        changed = self.config.reco.model_copy(update=values)
        self.config = self.config.model_copy(update={"reco": changed})
        self.agent = self.start_agent()

    def plan(
        self, *, kinds: tuple[BundleKind, ...] = RECO, iteration: int = 1, runs: tuple[int, int] | None = None
    ) -> CampaignPlan:
        """What a campaign over all the runs would have to do."""
        assert self.config.reco is not None
        choice = CampaignChoice(RELEASE, (runs or (4742, self.last),), kinds, iteration)
        return plan_campaign(self.catalogue, self.config, Releases(self.config.reco.software), choice)

    def create(self, plan: CampaignPlan | None = None, *, most_jobs: int = 8, start: bool = True) -> Campaign:
        """What `mover campaign create` and `start` do."""
        plan = plan or self.plan()
        now = self.clock.now()
        made = create_campaign(
            self.catalogue, release=RELEASE, keys=plan.keys, again=plan.again, most_jobs=most_jobs,
            chosen=str(plan.choice), now=now,
        )  # fmt: skip
        return self.move(made, CampaignEvent.STARTED) if start else made

    def move(self, campaign: Campaign, event: CampaignEvent) -> Campaign:
        """What `mover campaign start`, `pause` and `resume` do."""
        return move_campaign(self.catalogue, campaign.id, event, now=self.clock.now())

    def state_of(self, campaign: Campaign) -> CampaignState:
        """Where it is now."""
        return get_campaign(self.catalogue, campaign.id).state

    def all_jobs(self) -> list[JobRecord]:
        """Every job there is."""
        runs = self.catalogue.query("SELECT DISTINCT run FROM job ORDER BY run")
        return [job for row in runs for job in jobs_of(self.catalogue, row["run"])]

    def states(self) -> set[JobState]:
        """The states in which there is a job."""
        return {job.state for job in self.all_jobs()}


def run_of(job: JobSpec) -> int:
    """The run that an attempt is for."""
    return int(job.name.split("-")[1])
