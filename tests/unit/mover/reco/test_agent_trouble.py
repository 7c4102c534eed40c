"""What people, jobs and other agents can do to the reco agent: nothing is done twice, and nobody stops the others."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mover.catalogue import custody
from mover.catalogue.agreement import disagreements
from mover.catalogue.jobs import JobRecord, claim_job, get_job, jobs_of
from mover.catalogue.outputs import kept_outputs
from mover.errors import BatchUnavailableError, StateError
from mover.model import BundleKind
from mover.ports import JobPhase, JobSpec, JobStatus
from mover.reco.again import cancel_job, retry_job
from mover.states import JobState, ReplicaState
from tests.unit.mover.reco.recobench import RecoBench, good, output_tar, write_output
from tests.unit.mover.running import RIVAL

RUNNING = JobStatus(JobPhase.RUNNING, "on node 1")


@pytest.fixture
def reco(tmp_path: Path) -> Iterator[RecoBench]:
    """Whatever the test does, the custody records must explain the catalogue."""
    made = RecoBench(tmp_path)
    yield made
    custody.verify(made.catalogue)
    assert not list(disagreements(made.catalogue))


def runs_for(reco: RecoBench, job: JobRecord) -> list[str]:
    """The attempts of a job that the batch system has and that have not ended."""
    statuses = reco.batch.statuses
    return [
        spec.name
        for job_id, spec in reco.batch.jobs.items()
        if spec.name.split("-")[2] == str(job.id) and not statuses[job_id].ended
    ]


def test_a_job_that_is_retried_while_its_attempt_still_runs_waits_for_the_end_of_that(reco: RecoBench) -> None:
    reco.what_becomes = lambda _job: RUNNING
    reco.turn()
    job = reco.jobs()[BundleKind.RECO]
    cancel_job(reco.catalogue, job, now=reco.clock.now())
    retry_job(reco.catalogue, job, now=reco.clock.now())
    seen = 0
    for _ in range(4):
        reco.turn()
        reco.clock.advance(60)
        assert len(runs_for(reco, job)) <= 1
        seen = max(seen, get_job(reco.catalogue, job.id).attempts)
    assert seen == 2
    reco.what_becomes = good
    reco.turns()
    assert reco.job_state() is JobState.PROVEN


def test_a_job_that_is_cancelled_while_its_submission_is_under_way_is_ended_when_it_turns_up(reco: RecoBench) -> None:
    reco.what_becomes = lambda _job: RUNNING
    reco.batch.lose_next_answer()
    reco.batch.lose_next_answer()
    while reco.agent.workers[0].work_once(reco.catalogue, reco.endpoints):
        pass
    if not reco.jobs():
        reco.agent.look_around(reco.catalogue)
        while reco.agent.workers[0].work_once(reco.catalogue, reco.endpoints):
            pass
    specs = dict(reco.batch.jobs)
    assert len(specs) == 2
    # Nothing is known of them for a while.
    for job_id in specs:
        reco.batch.vanish(job_id)
    for job in reco.jobs().values():
        cancel_job(reco.catalogue, job, now=reco.clock.now())
    reco.agent.look_around(reco.catalogue)
    reco.clock.advance(10)
    for spec in specs.values():
        reco.batch.submit(spec)
    for _ in range(3):
        reco.agent.look_around(reco.catalogue)
        reco.clock.advance(10)
    assert not reco.batch.jobs


def test_what_a_person_wants_counts_for_the_job_as_it_is_now(reco: RecoBench) -> None:
    reco.what_becomes = lambda job: write_output(job, None, exit_code=2)
    reco.turns()
    old = reco.jobs()[BundleKind.RECO]
    retry_job(reco.catalogue, old, now=reco.clock.now())
    reco.what_becomes = lambda _job: RUNNING
    reco.turns(2)
    with pytest.raises(StateError):
        retry_job(reco.catalogue, old, now=reco.clock.now())
    reco.what_becomes = good
    reco.turns()
    with pytest.raises(StateError):
        cancel_job(reco.catalogue, old, now=reco.clock.now())
    assert reco.job_state() is JobState.PROVEN


def test_what_was_done_again_is_not_done_a_third_time(reco: RecoBench) -> None:
    reco.what_becomes = lambda job: write_output(job, output_tar(4742, {"04742_recon.dat": b"x"}))
    reco.turns()
    first = reco.jobs()[BundleKind.RECO]
    reco.what_becomes = good
    assert retry_job(reco.catalogue, first, now=reco.clock.now()).iteration == 2
    reco.turns()
    with pytest.raises(StateError, match="done again already, as iteration 2"):
        retry_job(reco.catalogue, first, now=reco.clock.now())


def test_logs_that_cannot_be_kept_stop_nobody(reco: RecoBench) -> None:
    def locked(job: JobSpec) -> JobStatus:
        status = write_output(job, None, exit_code=2, reason="told so")
        (job.directory / "a.log").mkdir()
        (job.directory / "b.log").symlink_to("/dev/zero")
        (job.directory / "c.log").write_text("the last words")
        return status

    reco.what_becomes = locked
    reco.turns(3)
    assert reco.job_state() is JobState.QUARANTINED
    assert reco.config.reco is not None
    kept = sorted(path.name for path in (reco.config.reco.scratch / "logs").glob("reco-*/*"))
    assert kept == ["batch.log", "c.log", "report.json"]


@pytest.mark.parametrize("call", ["forget", "read"])
def test_a_batch_system_that_fails_in_between_stops_nobody(reco: RecoBench, call: str) -> None:
    reco.what_becomes = lambda job: write_output(job, None, exit_code=2)
    reco.agent.look_around(reco.catalogue)
    for _ in range(6):
        reco.batch.fail_next(BatchUnavailableError("down", hint="wait"), call)  # type: ignore[arg-type]
    reco.turns(4, seconds=7200)
    assert reco.job_state() is JobState.QUARANTINED


def test_a_description_that_a_job_replaced_is_not_read(reco: RecoBench) -> None:
    def becomes(job: JobSpec) -> JobStatus:
        (job.directory / "job.json").unlink()
        (job.directory / "job.json").symlink_to("/dev/zero")
        return good(job)

    reco.what_becomes = becomes
    reco.turns()
    assert reco.job_state() is JobState.PROVEN


@pytest.mark.parametrize("name", ["heartbeat", "report.json"])
def test_one_jobs_links_keep_no_other_from_being_looked_after(reco: RecoBench, name: str) -> None:
    def becomes(job: JobSpec) -> JobStatus:
        if job.name.startswith("mc"):
            (job.directory / name).unlink(missing_ok=True)
            (job.directory / name).symlink_to("/dev/zero")
            return RUNNING if name == "heartbeat" else JobStatus(JobPhase.EXITED, "exit code 0", 0)
        return good(job)

    reco.what_becomes = becomes
    reco.turns()
    assert reco.job_state() is JobState.PROVEN
    if name == "report.json":
        assert reco.job_state(BundleKind.MC) is JobState.QUARANTINED


def test_a_silent_job_is_not_submitted_again_before_it_has_ended(reco: RecoBench) -> None:
    reco.what_becomes = lambda _job: RUNNING
    # A cancel that takes its time.
    reco.batch.cancel = lambda job_id: None  # type: ignore[method-assign]  # noqa: ARG005 # the port's name
    for _ in range(6):
        reco.turn()
        reco.clock.advance(400)
    for job in reco.jobs().values():
        assert (job.state, job.attempts) == (JobState.SUBMITTED, 1)
        assert job.problem is not None
        assert "no sign of life" in job.problem


def test_a_claim_of_an_agent_elsewhere_that_died_holds_as_long_as_its_lease(reco: RecoBench) -> None:
    reco.what_becomes = lambda _job: RUNNING
    reco.turn()
    lease = reco.config.engine.lease_seconds
    reco.catalogue.query("SELECT 1")
    with reco.catalogue.transaction() as connection:
        until = (reco.clock.now()).isoformat()
        connection.execute("UPDATE job SET owner = ?, lease_until = ?", (RIVAL, until))
    reco.clock.advance(lease)
    reco.what_becomes = good
    reco.turns()
    assert {job.state for job in reco.jobs().values()} == {JobState.PROVEN}


def test_jobs_that_another_batch_system_was_given_are_left_alone(reco: RecoBench) -> None:
    reco.what_becomes = lambda _job: RUNNING
    reco.turn()
    with reco.catalogue.transaction() as connection:
        connection.execute("UPDATE job SET batch = 'slurm'")
    for job_id in list(reco.batch.jobs):
        reco.batch.vanish(job_id)
    reco.turns(5, seconds=3600)
    assert {job.state for job in reco.jobs().values()} == {JobState.SUBMITTED}
    assert {job.attempts for job in reco.jobs().values()} == {1}


def test_our_own_trouble_is_no_failure_of_the_job(reco: RecoBench) -> None:
    reco.agent.look_around(reco.catalogue)
    (reco.software / "env.sh").rename(reco.software / "elsewhere.sh")
    reco.turns(6, seconds=7200)
    (reco.software / "elsewhere.sh").rename(reco.software / "env.sh")
    reco.what_becomes = lambda job: write_output(job, None, exit_code=1)
    reco.turn()
    reco.turn()
    job = reco.jobs()[BundleKind.RECO]
    assert (job.state, job.attempts) == (JobState.WANTED, 1)


def test_an_output_that_is_lost_here_before_it_is_stored_is_told(reco: RecoBench) -> None:
    reco.agent.look_around(reco.catalogue)
    workers = [worker for worker in reco.agent.workers if worker.name.startswith("worker")]
    for _ in range(2):
        while workers[0].work_once(reco.catalogue, reco.endpoints):
            pass
        reco.agent.look_around(reco.catalogue)
    assert reco.config.reco is not None
    for path in (reco.config.reco.scratch / "jobs").glob("*/*.tar"):
        path.unlink()
    reco.turns(3)
    for job in reco.jobs().values():
        assert job.state is JobState.QUARANTINED
        assert job.problem is not None
        assert "stored nowhere" in job.problem


def test_beside_an_output_that_is_kept_nothing_is(reco: RecoBench) -> None:
    reco.endpoints["tape"].migrated = lambda path: "MICE" in path
    reco.turns()
    assert reco.job_state() is JobState.PROVEN
    assert reco.where("RECO")["tape"] is ReplicaState.VERIFIED
    assert reco.config.reco is not None
    assert {path.name for path in (reco.config.reco.scratch / "jobs").glob("*/*")} == {"04742_offline.tar"}


def test_an_output_is_let_go_by_no_old_policy(reco: RecoBench, caplog: pytest.LogCaptureFixture) -> None:
    reco.changed_config = reco.config.model_copy(update={"experiment": "MICE2"})
    reco.turns(6)
    assert reco.where("RECO")["tape"] is ReplicaState.ARCHIVED
    assert len(kept_outputs(reco.catalogue)) == 2
    said = [message for message in caplog.messages if "restart" in message]
    assert said == [
        "no output's local file is let go of: the configuration has changed; restart the reco agent",
    ]
    reco.changed_config = None
    reco.turn()
    assert kept_outputs(reco.catalogue) == []


def test_two_agents_with_two_releases_want_one_job_of_a_kind(reco: RecoBench) -> None:
    other = reco.start_agent()
    reco.agent.look_around(reco.catalogue)
    newer = reco.software.with_name("0.5.0")
    newer.mkdir()
    (newer / "env.sh").write_text("true\n")
    (newer.parent / "approved").write_text("0.5.0\n")
    other.look_around(reco.catalogue)
    assert [job.key.release for job in jobs_of(reco.catalogue, 4742)] == ["0.4.1", "0.4.1"]


def test_nothing_is_claimed_beyond_the_limit(reco: RecoBench) -> None:
    reco.agent.look_around(reco.catalogue)
    now, lease = reco.clock.now(), reco.clock.now() - reco.clock.now()
    assert claim_job(reco.catalogue, owner=RIVAL, lease=lease, now=now, most=1, ahead=1) is not None
    # Its lease is over at once, and it counts no longer.
    reco.clock.advance(1)
    assert claim_job(reco.catalogue, owner=RIVAL, lease=lease, now=reco.clock.now(), most=1, ahead=1) is not None
