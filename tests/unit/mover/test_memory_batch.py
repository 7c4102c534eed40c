"""The faults that tests can ask of the batch system in memory, which must be what they say."""

from pathlib import Path

import pytest

from mover.batch.memory import RUNNING, WAITING, MemoryBatch, exited
from mover.errors import BatchUnavailableError, JobRefusedError
from mover.ports import JobInput, JobSpec, JobStatus


@pytest.fixture
def job(tmp_path: Path) -> JobSpec:
    (tmp_path / "job.sh").touch()
    inputs = (JobInput("job.sh", tmp_path / "job.sh"),)
    return JobSpec("reco-1", tmp_path, ("job.sh",), inputs, (), wall_seconds=60)


def test_a_job_waits_until_it_is_told_otherwise(job: JobSpec) -> None:
    batch = MemoryBatch()
    job_id = batch.submit(job)
    assert batch.look([job_id]) == {job_id: WAITING}
    batch.tell(job_id, RUNNING)
    assert batch.look([job_id]) == {job_id: RUNNING}
    batch.tell(job_id, exited(2))
    assert batch.look([job_id])[job_id].exit_code == 2
    assert batch.jobs == {job_id: job}


def test_a_script_is_asked_until_the_job_has_ended(job: JobSpec) -> None:
    says: list[JobStatus | None] = [None, RUNNING, None, exited(0), exited(1)]
    batch = MemoryBatch(script=lambda _: says.pop(0))
    job_id = batch.submit(job)
    assert [batch.look([job_id])[job_id] for _ in range(6)] == [WAITING, RUNNING, RUNNING, *[exited(0)] * 3]


def test_a_fault_is_met_once_and_does_nothing(job: JobSpec) -> None:
    batch = MemoryBatch()
    batch.fail_next(JobRefusedError("no", hint="none"), "submit")
    assert batch.find(job.name) is None
    with pytest.raises(JobRefusedError):
        batch.submit(job)
    assert batch.jobs == {}
    job_id = batch.submit(job)
    batch.fail_next(BatchUnavailableError("down", hint="none"))
    with pytest.raises(BatchUnavailableError):
        batch.look([job_id])
    assert batch.look([job_id]) == {job_id: WAITING}


def test_a_lost_answer_leaves_a_job_that_is_found(job: JobSpec) -> None:
    batch = MemoryBatch()
    batch.lose_next_answer()
    with pytest.raises(BatchUnavailableError):
        batch.submit(job)
    job_id = batch.find(job.name)
    assert job_id is not None
    batch.vanish(job_id)
    assert batch.find(job.name) is None
    assert batch.look([job_id]) == {}


def test_a_batch_system_that_stages_asks_for_no_files_here(job: JobSpec) -> None:
    (job.directory / "job.sh").unlink()
    with pytest.raises(JobRefusedError, match=r"its input job\.sh is not in its directory"):
        MemoryBatch().submit(job)
    assert MemoryBatch(stages=True).submit(job)
