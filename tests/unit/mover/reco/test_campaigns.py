"""Campaigns, turn by turn: what they take and leave out, their turns, and how they end."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from mover.catalogue import custody
from mover.catalogue.agreement import disagreements
from mover.catalogue.campaignprogress import progress_of
from mover.catalogue.campaigns import campaign_history, cancel_campaign, get_campaign
from mover.catalogue.check import CHECKS
from mover.catalogue.database import Database
from mover.catalogue.jobs import JobKey, claim_job, jobs_of, want_jobs
from mover.catalogue.replicas import replicas_of
from mover.errors import CampaignError, ReleaseNotFoundError, StateError
from mover.model import BundleKind
from mover.ports import JobSpec, JobStatus
from mover.reco.again import retry_job
from mover.reco.campaigns import in_ranges
from mover.states import CampaignEvent, CampaignState, JobState, ReplicaState
from tests.unit.mover.auditing import add_safe_runs
from tests.unit.mover.bench import NOW
from tests.unit.mover.reco.campaignbench import LIVE, CampaignBench, run_of
from tests.unit.mover.reco.recobench import RELEASE, good, write_output
from tests.unit.mover.running import add_run


@pytest.fixture
def reco(tmp_path: Path) -> Iterator[CampaignBench]:
    """Whatever the test does, the custody records must explain the catalogue."""
    made = CampaignBench(tmp_path)
    yield made
    custody.verify(made.catalogue)
    assert not list(disagreements(made.catalogue))
    assert not [fault for _, check in CHECKS for fault in check(made.catalogue)]


def test_nothing_is_done_before_the_start_and_then_everything_once(reco: CampaignBench) -> None:
    campaign = reco.create(start=False)
    reco.turns(2)
    assert reco.states() == {JobState.WANTED}
    reco.move(campaign, CampaignEvent.STARTED)
    reco.turns(4)
    assert [(job.key.run, job.state, job.attempts) for job in reco.all_jobs()] == [
        (run, JobState.PROVEN, 1) for run in range(4742, reco.last + 1)
    ]
    assert reco.state_of(campaign) is CampaignState.FINISHED
    assert [one.event for one in campaign_history(reco.catalogue, campaign.id)] == [
        "created",
        "started",
        "nothing left",
    ]
    for run in range(4742, reco.last + 1):
        states = {one.endpoint: one.state for one in replicas_of(reco.catalogue, run)}
        assert states == {"disk": ReplicaState.VERIFIED, "tape": ReplicaState.ARCHIVED}


def test_runs_without_proven_raw_data_or_with_their_jobs_done_are_left_out_and_it_says_why(reco: CampaignBench) -> None:
    add_run(reco, 4747)  # closed, and nothing of it stored yet
    reco.what_becomes = lambda job: good(job) if run_of(job) != 4743 else write_output(job, None, exit_code=2)
    reco.create(reco.plan(runs=(4742, 4743)))
    reco.turns(4)
    want_jobs(reco.catalogue, [JobKey(4744, BundleKind.RECO, RELEASE)], now=NOW)
    plan = reco.plan(runs=(4740, 4748))
    assert [key.run for key in plan.keys] == [4745, 4746]
    reasons = {why.split(" (")[0]: runs for why, runs in plan.left_out.items()}
    assert reasons == {
        "not known here": (4740, 4741, 4748),
        "raw data not proven anywhere yet": (4747,),
        "reco is proven already": (4742,),
        "reco needs a person": (4743,),
        "reco is under way already": (4744,),
    }
    again = reco.plan(runs=(4742, 4743), iteration=2)
    assert [(key.run, key.iteration) for key in again.keys] == [(4742, 2), (4743, 2)]
    assert not again.left_out


def test_another_iteration_gets_another_name_and_nothing_is_overwritten(reco: CampaignBench) -> None:
    reco.create(reco.plan(runs=(4742, 4742)))
    reco.turns(4)
    reco.create(reco.plan(runs=(4742, 4742), iteration=2))
    reco.turns(4)
    assert {job.state for job in jobs_of(reco.catalogue, 4742)} == {JobState.PROVEN}
    for name in ("04742_offline.tar", "04742_offline_2.tar"):
        assert reco.stored("tape", f"RECO/{RELEASE}/{name}") is not None


def test_a_campaign_with_nothing_to_do_is_not_created(reco: CampaignBench) -> None:
    with pytest.raises(CampaignError, match="nothing to do"):
        reco.create(reco.plan(runs=(1, 5)))
    with pytest.raises(CampaignError, match="no campaign 1"):
        get_campaign(reco.catalogue, 1)


def test_a_release_that_is_not_approved_is_refused_before_anything_is_wanted(reco: CampaignBench) -> None:
    (reco.software.parent / "approved").write_text("")
    with pytest.raises(ReleaseNotFoundError, match="not approved"):
        reco.plan()


def test_one_failed_run_never_blocks_the_rest(tmp_path: Path) -> None:
    reco = CampaignBench(tmp_path, most_jobs=1, recall_ahead=1)

    def becomes(job: JobSpec) -> JobStatus:
        match run_of(job):
            case 4742:
                return write_output(job, None, exit_code=2)
            case 4743:
                return write_output(job, None, exit_code=1)
        return good(job)

    reco.what_becomes = becomes
    campaign = reco.create()
    reco.turns(20, seconds=1)
    states = {job.key.run: job.state for job in reco.all_jobs()}
    assert states[4742] is JobState.QUARANTINED
    assert states[4743] is JobState.WANTED
    assert {states[run] for run in range(4744, 4747)} == {JobState.PROVEN}
    assert reco.state_of(campaign) is CampaignState.RUNNING
    reco.turns(12, seconds=7200)
    assert {job.key.run: job.state for job in reco.all_jobs()}[4743] is JobState.QUARANTINED
    assert reco.state_of(campaign) is CampaignState.FINISHED


def test_a_finished_campaign_goes_on_when_a_person_retries_a_job_of_it(reco: CampaignBench) -> None:
    reco.what_becomes = lambda job: write_output(job, None, exit_code=3)
    campaign = reco.create(reco.plan(runs=(4742, 4742)))
    reco.turns(3)
    assert reco.state_of(campaign) is CampaignState.FINISHED
    (job,) = reco.all_jobs()
    retry_job(reco.catalogue, job, now=reco.clock.now())
    reco.what_becomes = lambda _job: None
    reco.turns(2)
    assert reco.state_of(campaign) is CampaignState.RUNNING
    reco.what_becomes = good
    reco.turns(4)
    assert reco.state_of(campaign) is CampaignState.FINISHED
    assert reco.states() == {JobState.PROVEN}


def test_paused_what_runs_goes_on_and_nothing_else_is_submitted(tmp_path: Path) -> None:
    reco = CampaignBench(tmp_path)
    reco.what_becomes = lambda _job: None
    campaign = reco.create(most_jobs=2)
    reco.turns(2)
    assert len(reco.batch.jobs) == 2
    reco.move(campaign, CampaignEvent.PAUSED)
    reco.what_becomes = good
    reco.turns(4)
    counts = progress_of(reco.catalogue, campaign, now=reco.clock.now()).counts
    assert counts == {JobState.PROVEN: 2, JobState.WANTED: 3}
    reco.move(campaign, CampaignEvent.RESUMED)
    reco.turns(6)
    assert reco.states() == {JobState.PROVEN}


def test_cancelled_what_has_no_output_is_ended_and_what_has_one_goes_on_to_its_proof(reco: CampaignBench) -> None:
    reco.what_becomes = lambda job: good(job) if run_of(job) == 4742 else None
    campaign = reco.create(most_jobs=2)
    worker = reco.agent.workers[0]
    reco.agent.look_around(reco.catalogue)
    for _ in range(2):
        worker.work_once(reco.catalogue, reco.endpoints)
    reco.agent.look_around(reco.catalogue)
    worker.work_once(reco.catalogue, reco.endpoints)
    assert [job.state for job in reco.all_jobs()][:3] == [JobState.COLLECTED, JobState.SUBMITTED, JobState.WANTED]
    assert cancel_campaign(reco.catalogue, campaign.id, now=reco.clock.now()) == 4
    reco.turns(4)
    states = [job.state for job in reco.all_jobs()]
    assert states == [JobState.PROVEN] + [JobState.CANCELLED] * 4
    assert not reco.batch.jobs
    with pytest.raises(StateError, match="create another"):
        reco.move(campaign, CampaignEvent.RESUMED)


def test_what_was_cancelled_is_taken_up_by_another_campaign(reco: CampaignBench) -> None:
    reco.what_becomes = lambda _job: None
    first = reco.create(most_jobs=2)
    reco.turn()
    cancel_campaign(reco.catalogue, first.id, now=reco.clock.now())
    # Two are still in the batch system: to submit them again now would leave nobody to end them.
    plan = reco.plan()
    assert len(plan.again) == 3
    assert [runs for why, runs in plan.left_out.items() if "agent has not ended it" in why] == [(4742, 4743)]
    reco.what_becomes = good
    reco.turns(2)
    second = reco.create()
    reco.turns(4)
    assert {(job.state, job.campaign_id) for job in reco.all_jobs()} == {(JobState.PROVEN, second.id)}


def test_live_runs_come_before_the_campaign_and_campaigns_in_their_order(tmp_path: Path) -> None:
    reco = CampaignBench(tmp_path, most_jobs=1)
    reco.what_becomes = good
    begun: list[int] = []

    def becomes(job: JobSpec) -> JobStatus:
        begun.append(run_of(job))
        return good(job)

    reco.what_becomes = becomes
    reco.create(reco.plan(runs=(4744, 4746)))
    reco.create(reco.plan(runs=(4742, 4743)))
    reco.turn()  # the campaign's first job has the one place that there is
    add_safe_runs(reco, [LIVE])
    reco.turns(10, seconds=1)
    assert begun[0] == 4744
    assert begun[1:3] == [LIVE, LIVE]
    assert begun[3:] == [4745, 4746, 4742, 4743]


def test_a_campaign_submits_no_more_than_it_may(reco: CampaignBench) -> None:
    reco.what_becomes = lambda _job: None
    reco.create(reco.plan(runs=(4742, 4744)), most_jobs=2)
    reco.create(reco.plan(runs=(4745, 4746)), most_jobs=1)
    reco.turns(2)
    assert sorted(run_of(job) for job in reco.batch.jobs.values()) == [4742, 4743, 4745]


def test_the_end_is_unknown_until_something_is_proven_and_then_follows_from_the_rate(reco: CampaignBench) -> None:
    reco.what_becomes = lambda job: {4742: good, 4743: lambda one: write_output(one, None, exit_code=2)}.get(
        run_of(job), lambda _: None
    )(job)
    campaign = reco.create(start=False)
    measured = progress_of(reco.catalogue, campaign, now=reco.clock.now())
    assert (measured.total, measured.left, measured.per_hour, measured.ends_at) == (5, 5, None, None)
    campaign = reco.move(campaign, CampaignEvent.STARTED)
    started = reco.clock.now()
    reco.clock.advance(60)
    assert progress_of(reco.catalogue, campaign, now=reco.clock.now()).ends_at is None
    reco.turns(4, seconds=0)
    measured = progress_of(reco.catalogue, campaign, now=reco.clock.now())
    # One was proven in the first minute; the quarantined one is not waited for.
    assert (measured.number(JobState.PROVEN), measured.number(JobState.QUARANTINED), measured.left) == (1, 1, 3)
    assert measured.per_hour == pytest.approx(60)
    assert measured.ends_at == started + timedelta(seconds=60 + 180)
    # When nothing comes any more, the end moves away.
    reco.clock.advance(60)
    assert progress_of(reco.catalogue, campaign, now=reco.clock.now()).ends_at == started + timedelta(seconds=120 + 360)
    campaign = reco.move(campaign, CampaignEvent.PAUSED)
    assert progress_of(reco.catalogue, campaign, now=reco.clock.now()).ends_at is None
    # What came before the pause says nothing of how fast it goes after it.
    campaign = reco.move(campaign, CampaignEvent.RESUMED)
    reco.clock.advance(60)
    assert progress_of(reco.catalogue, campaign, now=reco.clock.now()).per_hour is None


def test_ten_thousand_jobs_cost_a_claim_no_more_than_a_few(tmp_path: Path) -> None:
    def instructions(runs: int) -> int:
        database = Database(tmp_path / f"{runs}.sqlite", create=True)
        at = NOW.isoformat()
        with database.transaction() as connection:
            connection.execute(
                "INSERT INTO campaign (release, created_at, state, most_jobs, chosen) VALUES ('r', ?, 'running', 9, ?)",
                (at, ""),
            )
            connection.executemany(
                "INSERT INTO run (number, state, since, closed_at) VALUES (?, 'safe', ?, ?)",
                [(run, at, at) for run in range(runs)],
            )
        keys = [JobKey(run, kind, RELEASE) for run in range(runs) for kind in (BundleKind.RECO, BundleKind.MC)]
        assert len(want_jobs(database, keys, now=NOW, campaign_id=1)) == 2 * runs
        steps = [0]

        def count() -> int:
            steps[0] += 1
            return 0

        with database.transaction() as connection:
            connection.set_progress_handler(count, 10)
        for turn in range(4):
            owner = f"host/boot/pid/{turn}/1"
            claim = claim_job(database, owner=owner, lease=timedelta(1), now=NOW, most=9, ahead=50)
            assert claim is not None
            assert (claim.key.run, claim.key.kind) == (turn // 2, [BundleKind.RECO, BundleKind.MC][turn % 2])
        database.close()
        return steps[0]

    assert instructions(5000) < 2 * instructions(20)


def test_runs_are_written_as_people_do() -> None:
    assert in_ranges([]) == ""
    assert in_ranges([4000, 4001, 4002, 4005, 4007, 4008]) == "4000-4002, 4005, 4007-4008"
