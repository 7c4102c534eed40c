"""The reco agent, turn by turn: jobs are wanted, submitted, collected, proven; nothing counts on a job's word."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mover.catalogue import custody
from mover.catalogue.agreement import disagreements
from mover.catalogue.check import CHECKS
from mover.model import BundleKind
from mover.ports import JobPhase, JobSpec, JobStatus
from mover.reco.again import cancel_job, retry_job
from mover.states import JobState, ReplicaState
from mover.steps.wants import plan_policy
from tests.unit.mover.reco.recobench import RELEASE, RecoBench, good, output_tar, write_output

RECO_LFN = f"RECO/{RELEASE}/04742_offline.tar"
MC_LFN = f"Simulation/{RELEASE}/04742_offline.tar"


@pytest.fixture
def reco(tmp_path: Path) -> Iterator[RecoBench]:
    """Whatever the test does, the custody records must explain the catalogue."""
    made = RecoBench(tmp_path)
    yield made
    custody.verify(made.catalogue)
    assert not list(disagreements(made.catalogue))
    assert not [fault for _, check in CHECKS for fault in check(made.catalogue)]


def scratch(reco: RecoBench) -> list[str]:
    """The attempts whose directories are there."""
    assert reco.config.reco is not None
    return sorted(path.name for path in (reco.config.reco.scratch / "jobs").iterdir())


def logs(reco: RecoBench) -> list[str]:
    """The attempts whose logs are kept."""
    assert reco.config.reco is not None
    return sorted(path.name for path in (reco.config.reco.scratch / "logs").iterdir())


def test_a_run_is_reconstructed_and_its_output_is_proven_and_on_tape(reco: RecoBench) -> None:
    reco.turns()
    assert {kind: job.state for kind, job in reco.jobs().items()} == {
        BundleKind.RECO: JobState.PROVEN,
        BundleKind.MC: JobState.PROVEN,
    }
    for lfn in (RECO_LFN, MC_LFN):
        assert reco.where(lfn) == {"disk": ReplicaState.VERIFIED, "tape": ReplicaState.ARCHIVED}
        assert reco.stored("tape", lfn) == output_tar(4742)
    reco.turn()
    assert scratch(reco) == []
    assert not reco.batch.jobs


def test_nothing_goes_to_tape_before_it_is_proven(reco: RecoBench) -> None:
    reco.what_becomes = lambda job: write_output(job, output_tar(4742, {"04742_recon.dat": b"x"}))
    reco.turns()
    job = reco.jobs()[BundleKind.RECO]
    assert job.state is JobState.QUARANTINED
    assert job.problem is not None
    assert "has no *.log" in job.problem
    assert reco.where(RECO_LFN) == {"disk": ReplicaState.VERIFIED}
    assert not [want for want in plan_policy(reco.catalogue, reco.config).wants if "RECO" in want.bundle.lfn]
    # The output stays here, too, until a person has looked.
    assert job.name in scratch(reco)


def test_jobs_that_all_exit_0_and_save_nothing_as_in_2012_are_caught(reco: RecoBench) -> None:
    reco.what_becomes = lambda job: write_output(job, output_tar(4742), saved=False)
    reco.turns(10)
    for job in reco.jobs().values():
        assert job.state is JobState.QUARANTINED
        assert job.problem is not None
        assert "nothing was saved" in job.problem
    assert reco.where("offline") == {}


@pytest.mark.parametrize(
    ("exit_code", "state", "words"),
    [(1, JobState.WANTED, "could not be done now"), (2, JobState.QUARANTINED, "failed (exit code 2)")]
    + [
        (code, JobState.QUARANTINED, f"script of the reco of run 4742 with 0.4.1 failed (exit code {code})")
        for code in (3, 127)
    ],
)
def test_exit_codes_mean_what_the_contract_says(reco: RecoBench, exit_code: int, state: JobState, words: str) -> None:
    reco.what_becomes = lambda job: write_output(job, output_tar(4742), exit_code=exit_code, reason="told so")
    reco.turn()
    reco.turn()
    job = reco.jobs()[BundleKind.RECO]
    assert (job.state, job.attempts) == (state, 1)
    assert job.problem is not None
    assert words in job.problem
    assert "told so" in job.problem
    assert job.name in logs(reco)
    assert reco.where("offline") == {}


def test_what_is_transient_is_tried_again_and_not_for_ever(reco: RecoBench) -> None:
    reco.what_becomes = lambda job: write_output(job, None, exit_code=1)
    reco.turns(12, seconds=7200)
    job = reco.jobs()[BundleKind.RECO]
    assert (job.state, job.attempts) == (JobState.QUARANTINED, 3)
    assert job.problem is not None
    assert "3 attempts in a row" in job.problem


@pytest.mark.parametrize("phase", [JobPhase.TIMED_OUT, JobPhase.CANCELLED, JobPhase.FAILED])
def test_what_the_batch_system_ended_is_submitted_again(reco: RecoBench, phase: JobPhase) -> None:
    first: list[str] = []

    def becomes(job: JobSpec) -> JobStatus:
        if job.name.startswith("reco") and not first:
            first.append(job.name)
            return JobStatus(phase, "words of its own")
        return good(job)

    reco.what_becomes = becomes
    reco.turn()
    reco.turn()
    job = reco.jobs()[BundleKind.RECO]
    assert job.state is JobState.WANTED
    assert job.problem is not None
    assert f"was {phase}: words of its own" in job.problem
    reco.turns(5, seconds=7200)
    assert reco.job_state() is JobState.PROVEN
    assert reco.jobs()[BundleKind.RECO].attempts == 2


def test_a_job_that_vanishes_is_found_out_after_a_while_and_done_again(reco: RecoBench) -> None:
    reco.what_becomes = lambda _job: None
    reco.turn()
    for job_id in list(reco.batch.jobs):
        reco.batch.vanish(job_id)
    reco.turn()
    assert reco.job_state() is JobState.SUBMITTED
    reco.clock.advance(61)
    reco.turn()
    job = reco.jobs()[BundleKind.RECO]
    assert job.state is JobState.WANTED
    assert job.problem is not None
    assert "vanished" in job.problem
    reco.what_becomes = good
    reco.turns(5, seconds=7200)
    assert reco.job_state() is JobState.PROVEN


def test_a_job_that_was_forgotten_after_its_end_is_not_done_twice(reco: RecoBench) -> None:
    reco.what_becomes = lambda _job: None
    reco.turn()
    for job_id, job in list(reco.batch.jobs.items()):
        good(job)
        reco.batch.vanish(job_id)
    reco.turns(4)
    assert {job.state for job in reco.jobs().values()} == {JobState.PROVEN}
    assert {job.attempts for job in reco.jobs().values()} == {1}


def test_a_batch_system_that_is_down_says_nothing_of_any_job(reco: RecoBench) -> None:
    reco.what_becomes = lambda _job: None
    reco.turn()
    reco.batch.available = False
    reco.turns(10, seconds=3600)
    assert {job.state for job in reco.jobs().values()} == {JobState.SUBMITTED}
    reco.batch.available = True
    reco.what_becomes = good
    reco.turns()
    assert {job.attempts for job in reco.jobs().values()} == {1}
    assert reco.job_state() is JobState.PROVEN


def test_a_submission_whose_answer_was_lost_is_found_and_not_made_twice(reco: RecoBench) -> None:
    reco.batch.lose_next_answer()
    reco.turns()
    assert {job.attempts for job in reco.jobs().values()} == {1}
    assert {job.state for job in reco.jobs().values()} == {JobState.PROVEN}


def test_an_agent_that_died_is_followed_by_one_that_does_nothing_twice(reco: RecoBench) -> None:
    reco.what_becomes = lambda _job: None
    reco.turn()
    reco.agent = reco.start_agent()
    reco.turn()
    assert len(reco.batch.jobs) == 2
    reco.what_becomes = good
    reco.turns()
    assert {job.attempts for job in reco.jobs().values()} == {1}
    assert {job.state for job in reco.jobs().values()} == {JobState.PROVEN}


def test_a_job_without_a_sign_of_life_is_ended(reco: RecoBench) -> None:
    beats = iter(range(1000))

    def alive(job: JobSpec) -> JobStatus:
        if job.name.startswith("mc"):
            (job.directory / "heartbeat").write_text(f"{next(beats)}")
        return JobStatus(JobPhase.RUNNING, "on node 1")

    reco.what_becomes = alive
    reco.turns(4, seconds=400)
    jobs = reco.jobs()
    assert jobs[BundleKind.MC].state is JobState.SUBMITTED
    problem = jobs[BundleKind.RECO].problem
    assert problem is not None
    assert "no sign of life for 600 s" in problem


def test_a_release_that_is_not_there_is_an_error_before_anything_is_submitted(reco: RecoBench) -> None:
    (reco.software / "env.sh").rename(reco.software / "elsewhere.sh")
    reco.turns(3, seconds=7200)
    # Nothing is wanted with a release that no job could be set up with.
    assert reco.jobs() == {}
    (reco.software / "elsewhere.sh").rename(reco.software / "env.sh")
    reco.what_becomes = lambda job: write_output(job, None, exit_code=1)
    reco.turns(2)
    (reco.software / "env.sh").unlink()
    reco.turns(3, seconds=7200)
    for job in reco.jobs().values():
        assert (job.state, job.attempts) == (JobState.WANTED, 1)
        assert job.problem is not None
        assert "cannot be set up" in job.problem
    assert not reco.batch.jobs


def test_an_output_that_is_damaged_in_storage_before_it_is_proven_is_not_proven(reco: RecoBench) -> None:
    lanes = [worker for worker in reco.agent.workers if worker.name == "disk"]
    workers = [worker for worker in reco.agent.workers if worker.name.startswith("worker")]
    reco.agent.look_around(reco.catalogue)
    while workers[0].work_once(reco.catalogue, reco.endpoints):
        pass
    reco.agent.look_around(reco.catalogue)
    for _ in range(2):
        assert workers[0].work_once(reco.catalogue, reco.endpoints)
    while lanes[0].work_once(reco.catalogue, reco.endpoints):
        pass
    reco.endpoints["disk"].corrupt(RECO_LFN)
    reco.turns()
    job = reco.jobs()[BundleKind.RECO]
    assert job.state is JobState.QUARANTINED
    assert job.problem is not None
    assert "as it is stored" in job.problem
    assert reco.job_state(BundleKind.MC) is JobState.PROVEN


def test_a_quarantined_output_is_done_again_as_the_next_iteration(reco: RecoBench) -> None:
    reco.what_becomes = lambda job: write_output(job, output_tar(4742, {"04742_recon.dat": b"x"}))
    reco.turns()
    reco.what_becomes = good
    again = retry_job(reco.catalogue, reco.jobs()[BundleKind.RECO], now=reco.clock.now())
    assert again.iteration == 2
    reco.turns()
    assert reco.job_state() is JobState.PROVEN
    assert reco.where("RECO/0.4.1/04742_offline_2.tar") == {
        "disk": ReplicaState.VERIFIED,
        "tape": ReplicaState.ARCHIVED,
    }
    assert reco.where(RECO_LFN) == {"disk": ReplicaState.VERIFIED}


def test_a_failed_job_is_retried_under_the_same_name(reco: RecoBench) -> None:
    reco.what_becomes = lambda job: write_output(job, None, exit_code=2)
    reco.turns()
    reco.what_becomes = good
    for job in reco.jobs().values():
        assert retry_job(reco.catalogue, job, now=reco.clock.now()).iteration == 1
    reco.turns()
    assert {job.state for job in reco.jobs().values()} == {JobState.PROVEN}


def test_a_cancelled_job_is_ended_in_the_batch_system_too(reco: RecoBench) -> None:
    reco.what_becomes = lambda _job: None
    reco.turn()
    for job in reco.jobs().values():
        cancel_job(reco.catalogue, job, now=reco.clock.now())
    reco.turns(2)
    assert not reco.batch.jobs
    assert {job.state for job in reco.jobs().values()} == {JobState.CANCELLED}
    assert scratch(reco) == []


def test_raw_data_that_is_on_tape_only_is_brought_online_first(reco: RecoBench) -> None:
    tape = reco.endpoints["tape"]
    reco.endpoints["disk"].remove("MICE/04742.tar")
    tape.evicted.add("MICE/04742.tar")
    # The first job asks for it, and waits; in memory, it comes at once.
    reco.turn()
    assert sorted(job.status or "" for job in reco.jobs().values())[1].endswith("is on tape only")
    assert not tape.evicted
    reco.turns()
    assert {job.state for job in reco.jobs().values()} == {JobState.PROVEN}


def test_no_room_in_the_scratch_area_is_waited_for(reco: RecoBench) -> None:
    assert reco.config.reco is not None
    reco.config = reco.config.model_copy(update={"reco": reco.config.reco.model_copy(update={"scratch_bytes": 1})})
    reco.agent = reco.start_agent()
    reco.what_becomes = lambda _job: None
    reco.turn()
    # One alone is let in, or it could never be done.
    assert len(reco.batch.jobs) == 1
    reco.what_becomes = good
    reco.turns(8)
    assert {job.state for job in reco.jobs().values()} == {JobState.PROVEN}


@pytest.fixture
def staging(tmp_path: Path) -> Iterator[RecoBench]:
    """With a batch system that fetches and stores files itself."""
    made = RecoBench(tmp_path, stages=True)
    yield made
    custody.verify(made.catalogue)
    assert not list(disagreements(made.catalogue))


def stored_by_the_batch_system(reco: RecoBench, job: JobSpec, content: bytes) -> JobStatus:
    """Store the output where the job is told to, as a compute element does."""
    url = job.outputs[0].url
    assert url is not None
    reco.endpoints["disk"].upload(url.removeprefix(reco.endpoints["disk"].url("x")[:-1]), [content], len(content))
    return write_output(job, content, saved=False)


def test_what_a_batch_system_has_stored_itself_is_verified_renamed_and_proven(staging: RecoBench) -> None:
    given: list[JobSpec] = []

    def becomes(job: JobSpec) -> JobStatus:
        given.append(job)
        return stored_by_the_batch_system(staging, job, output_tar(4742))

    staging.what_becomes = becomes
    staging.turns(6)
    assert {job.state for job in staging.jobs().values()} == {JobState.PROVEN}
    assert staging.where(RECO_LFN) == {"disk": ReplicaState.VERIFIED, "tape": ReplicaState.ARCHIVED}
    assert staging.stored("tape", RECO_LFN) == output_tar(4742)
    bundle = given[0].inputs[2]
    assert bundle.source == staging.endpoints["disk"].url("MICE/04742.tar")
    assert not [path for path in staging.endpoints["disk"].list("RECO/0.4.1") if "mover" in path.path]


def test_what_a_batch_system_says_it_has_stored_and_has_not_is_caught(staging: RecoBench) -> None:
    staging.what_becomes = lambda job: write_output(job, output_tar(4742), saved=False)
    staging.turns(3)
    for job in staging.jobs().values():
        assert job.state is JobState.QUARANTINED
        assert job.problem is not None
        assert "nothing was saved" in job.problem


@pytest.mark.parametrize(("stored", "there"), [(None, "is not there"), (b"part", "has 4 bytes instead of")])
def test_what_a_batch_system_could_not_store_is_done_again_and_its_own_words_are_told(
    staging: RecoBench, stored: bytes | None, there: str
) -> None:
    words = "Failed in data staging: No space left on device"

    def becomes(job: JobSpec) -> JobStatus:
        if stored is not None:
            stored_by_the_batch_system(staging, job, stored)
        write_output(job, output_tar(4742), saved=False)
        return JobStatus(JobPhase.FAILED, words)

    staging.what_becomes = becomes
    staging.turn()
    staging.turn()
    job = staging.jobs()[BundleKind.RECO]
    assert job.state is JobState.WANTED
    assert re.search(f"{there}.* memory says '{words}'", job.problem or ""), job.problem
    assert "disk has room" in (job.hint or "")
    staging.turns(8, seconds=7200)
    job = staging.jobs()[BundleKind.RECO]
    assert (job.state, job.attempts) == (JobState.QUARANTINED, 3)
    assert re.search(f"{words}.*so ended 3 attempts in a row", job.problem or ""), job.problem


def test_the_logs_of_a_job_that_failed_elsewhere_are_fetched_before_they_are_forgotten(
    staging: RecoBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = {"payload.log": b"the last words", "batch.log": b"what ARC said"}
    read = staging.batch.read

    def read_elsewhere(job_id: str, name: str, *, limit_bytes: int) -> bytes | None:
        if job_id not in staging.batch.jobs:
            return None
        return there.get(name) or read(job_id, name, limit_bytes=limit_bytes)

    def becomes(job: JobSpec) -> JobStatus:
        status = write_output(job, None, exit_code=2)
        (job.directory / "batch.log").unlink()
        return status

    monkeypatch.setattr(staging.batch, "read", read_elsewhere)
    staging.what_becomes = becomes
    staging.turns(3)
    assert staging.job_state() is JobState.QUARANTINED
    assert staging.config.reco is not None
    kept = staging.config.reco.scratch / "logs/reco-04742-1-1"
    assert {path.name: path.read_bytes() for path in kept.glob("*.log")} == there
    assert "exit_code" in (kept / "report.json").read_text()


def test_what_a_batch_system_has_stored_counts_whatever_it_says(staging: RecoBench) -> None:
    def becomes(job: JobSpec) -> JobStatus:
        stored_by_the_batch_system(staging, job, output_tar(4742))
        return JobStatus(JobPhase.FAILED, "the node died while it said so")

    staging.what_becomes = becomes
    staging.turns(6)
    assert {job.state for job in staging.jobs().values()} == {JobState.PROVEN}


def test_what_a_batch_system_has_stored_otherwise_than_it_was_made_never_gets_its_name(staging: RecoBench) -> None:
    def becomes(job: JobSpec) -> JobStatus:
        status = stored_by_the_batch_system(staging, job, output_tar(4742))
        (path,) = [one.path for one in staging.endpoints["disk"].list(job_folder(job)) if "mover" in one.path]
        staging.endpoints["disk"].corrupt(path)
        return status

    staging.what_becomes = becomes
    staging.turns(6)
    for job in staging.jobs().values():
        assert job.state is JobState.QUARANTINED
        assert job.problem is not None
        assert "is stored nowhere" in job.problem
    assert staging.stored("disk", RECO_LFN) is None


def job_folder(job: JobSpec) -> str:
    """Where its output goes."""
    return "RECO/0.4.1" if job.name.startswith("reco") else "Simulation/0.4.1"
