"""The adapter of Slurm where Slurm differs from other batch systems: what it forgets, and what it takes or refuses."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mover.batch.slurm import SlurmBatch
from mover.errors import BatchUnavailableError, JobRefusedError
from mover.ports import JobPhase
from mover.sandbox.slurm import PARTITION, SlurmCluster
from tests.conformance.batches import SlurmSubject
from tests.conformance.subjects import eventually
from tests.conftest import need_slurm


@pytest.fixture
def subject(tmp_path: Path, slurm: SlurmCluster) -> Iterator[SlurmSubject]:
    made = SlurmSubject(tmp_path, slurm)
    yield made
    made.close()


@pytest.fixture(scope="module")
def accounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    """A cluster with accounting."""
    need_slurm(("slurmdbd", "slurmdbd"), ("mariadbd", "mariadb-server-core"))
    cluster = SlurmCluster(tmp_path_factory.mktemp("accounted") / "cluster", accounting=True)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


def test_a_job_that_the_controller_has_forgotten_is_left_out(subject: SlurmSubject, slurm: SlurmCluster) -> None:
    job = subject.job("exit", "0")
    job_id = subject.batch.submit(job)
    subject.wait(job_id, lambda status: status.ended)
    slurm.lose_state()
    assert subject.batch.look([job_id]) == {}
    assert subject.batch.find(job.name) is None
    assert subject.batch.read(job_id, "ran.txt", limit_bytes=10) is None


def test_a_number_that_is_given_again_is_not_the_earlier_job(subject: SlurmSubject, slurm: SlurmCluster) -> None:
    slurm.lose_state()
    first = subject.batch.submit(subject.job("exit", "0"))
    slurm.lose_state()
    second = subject.hold()
    assert first.partition(":")[0] == second.partition(":")[0]
    assert subject.batch.look([first, second]).keys() == {second}
    subject.batch.cancel(first)
    assert subject.batch.look([second])[second].phase is JobPhase.RUNNING


def test_accounting_knows_what_the_controller_has_forgotten(tmp_path: Path, accounted: SlurmCluster) -> None:
    subject = SlurmSubject(tmp_path, accounted)
    ends = {("exit", "0"): 0, ("exit", "3"): 3, ("kill", "SEGV"): None}
    jobs = {arguments: subject.job(*arguments) for arguments in ends}
    ids = {arguments: subject.batch.submit(job) for arguments, job in jobs.items()}
    before = {arguments: subject.wait(job_id, lambda status: status.ended) for arguments, job_id in ids.items()}
    lost_id = subject.hold()
    with subject.lose_worker(lost_id):
        subject.wait(lost_id, lambda status: status.phase is JobPhase.FAILED)

    def told() -> bool:
        states = accounted.command("sacct", "-nPX", "-o", "State").split()
        return sorted(states) == ["COMPLETED", "FAILED", "FAILED", "NODE_FAIL"]

    assert eventually(told, seconds=120)
    accounted.lose_state()
    after = subject.batch.look([*ids.values(), lost_id])
    assert {arguments: after[job_id].exit_code for arguments, job_id in ids.items()} == ends
    assert {arguments: after[job_id].phase for arguments, job_id in ids.items()} == {
        arguments: status.phase for arguments, status in before.items()
    }
    assert after[lost_id].phase is JobPhase.FAILED
    assert {arguments: subject.batch.find(job.name) for arguments, job in jobs.items()} == ids
    assert subject.text(ids["exit", "3"], "ran.txt") == "ran\n"

    # What cannot be asked has not vanished.
    accounted.accountant.stop()
    for call in (
        lambda: subject.batch.look([lost_id]),
        lambda: subject.batch.find(jobs["exit", "0"].name),
        lambda: subject.batch.read(lost_id, "ran.txt", limit_bytes=10),
    ):
        with pytest.raises(BatchUnavailableError):
            call()
    # The controller's own knowledge is enough for what it knows.
    running = subject.hold()
    assert subject.batch.look([running])[running].phase is JobPhase.RUNNING
    accounted.start_accounting()
    subject.close()


@pytest.mark.parametrize(
    "change", [{"wall_seconds": 31 * 60}, {"memory_mib": 10_000_000}, {"memory_mib": 2001}], ids=str
)
def test_what_the_partition_never_gives_is_refused(subject: SlurmSubject, change: dict[str, Any]) -> None:
    with pytest.raises(JobRefusedError):
        subject.batch.submit(replace(subject.job("exit", "0"), **change))


@pytest.mark.parametrize("name", ["a%j", "a\\b"])
def test_a_directory_that_slurm_would_not_find_is_refused(subject: SlurmSubject, name: str) -> None:
    subject.directory /= name
    subject.directory.mkdir()
    with pytest.raises(JobRefusedError, match="Slurm replaces"):
        subject.batch.submit(subject.job("exit", "0"))


def test_a_partition_that_is_not_there_is_an_error_before_anything_is_submitted(
    subject: SlurmSubject, slurm: SlurmCluster
) -> None:
    with pytest.raises(JobRefusedError, match="no partition other"):
        SlurmBatch("other", config=slurm.config).submit(subject.job("exit", "0"))


def test_the_controller_keeps_nothing_of_our_environment(
    subject: SlurmSubject, slurm: SlurmCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("X509_USER_PROXY", "our-secret")
    subject.batch = subject.open()
    number = subject.hold().partition(":")[0]
    kept = [path.read_bytes() for path in slurm.directory.glob(f"state/hash.*/job.{number}/environment")]
    assert len(kept) == 1
    assert b"PATH=" in kept[0]
    assert b"our-secret" not in kept[0]


@pytest.mark.parametrize("state", ["inactive", "drain"])
def test_a_partition_that_is_closed_may_open_again(subject: SlurmSubject, slurm: SlurmCluster, state: str) -> None:
    slurm.command("scontrol", "update", f"partitionname={PARTITION}", f"state={state}")
    try:
        with pytest.raises(BatchUnavailableError):
            subject.batch.submit(subject.job("exit", "0"))
    finally:
        slurm.command("scontrol", "update", f"partitionname={PARTITION}", "state=up")


@pytest.mark.parametrize("answer", ["", "nonsense", "12x"])
def test_an_answer_that_is_no_number_is_no_answer(
    subject: SlurmSubject, answer: str, tmp_path: Path, program: Callable[[str, str], Path]
) -> None:
    batch = subject.open(program("sbatch", f"echo '{answer}'"))
    with pytest.raises(BatchUnavailableError, match="sbatch answered"):
        batch.submit(subject.job("exit", "0"))


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str, str], Path]:
    """Makes a directory with a program of that name that runs these commands of the shell's."""

    def make(name: str, text: str) -> Path:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
        return tmp_path / "bin"

    return make
