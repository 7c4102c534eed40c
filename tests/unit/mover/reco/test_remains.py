"""What a batch system does not forget when it is told to: it is told again, not for ever, and people see it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from mover.catalogue.remains import MOST_TRIES, troublesome_remains
from mover.cli.main import cli
from mover.errors import BatchUnavailableError
from mover.model import BundleKind
from mover.ports import JobPhase, JobStatus
from mover.reco.again import cancel_job, retry_job
from mover.states import JobState
from tests.unit.mover.reco.recobench import RecoBench, write_output

DOWN = BatchUnavailableError("it has its lunch", hint="wait")


@pytest.fixture
def reco(tmp_path: Path) -> RecoBench:
    """Jobs of two kinds, whose outputs are good."""
    return RecoBench(tmp_path)


@pytest.fixture
def status(reco: RecoBench, tmp_path: Path) -> Callable[[], str]:
    """What `mover reco status` says."""
    config = reco.write_config(tmp_path / "mover.toml")

    def run() -> str:
        result = CliRunner().invoke(cli, ["--config", str(config), "reco", "status"])
        assert result.exit_code == 0, result.output
        return result.output

    return run


def known(reco: RecoBench) -> int:
    """Of how many attempts the catalogue knows that the batch system may keep something."""
    (row,) = reco.catalogue.query("SELECT count(*) AS number FROM remains")
    number: int = row["number"]
    return number


def test_what_is_forgotten_at_once_is_noted_no_longer(reco: RecoBench, status: Callable[[], str]) -> None:
    reco.turns()
    assert not reco.batch.jobs
    assert known(reco) == 0
    assert "keeps" not in status()


@pytest.mark.parametrize("exit_code", [0, 1, 2])
def test_what_is_not_forgotten_is_told_again(reco: RecoBench, status: Callable[[], str], exit_code: int) -> None:
    if exit_code:
        reco.what_becomes = lambda job: write_output(job, None, exit_code=exit_code)
    for _ in range(2):
        reco.batch.fail_next(DOWN, "forget")
    reco.turn()
    reco.turn()
    reco.what_becomes = lambda _job: None
    kept = {spec.name for job_id, spec in reco.batch.jobs.items() if reco.batch.statuses[job_id].ended}
    assert kept == {"reco-04742-1-1", "mc-04742-2-1"}
    said = status()
    for name in kept:
        assert f"memory still keeps what it has of {name}" in said
    assert "it has its lunch (wait)" in said
    assert "it is told again at" in said
    reco.clock.advance(61)
    reco.turn()
    assert not kept & {spec.name for spec in reco.batch.jobs.values()}
    assert "keeps" not in status()


class _Death(BaseException):
    """The agent dies here."""


def test_an_agent_that_dies_before_it_tells_leaves_that_to_the_next(reco: RecoBench) -> None:
    reco.batch.fail_next(_Death(), "forget")
    with pytest.raises(_Death):
        reco.turns(2)
    assert known(reco) == 1
    reco.agent = reco.start_agent()
    reco.turns()
    assert not reco.batch.jobs
    assert known(reco) == 0


def test_it_is_told_ever_less_often_and_not_for_ever(reco: RecoBench, status: Callable[[], str]) -> None:
    told: dict[str, list[float]] = {}
    begun = reco.clock.now()

    def refuse(job_id: str) -> None:
        told.setdefault(job_id, []).append((reco.clock.now() - begun).total_seconds())
        raise DOWN

    reco.batch.forget = refuse  # type: ignore[method-assign]
    reco.turns(2)
    for _ in range(400):
        reco.clock.advance(900)
        reco.agent.look_around(reco.catalogue)
    assert {len(times) for times in told.values()} == {MOST_TRIES}
    assert len(told) == 2
    times = told["1"]
    assert times[-1] - times[0] > 2.5 * 86400
    assert times[-1] - times[-2] <= 7 * 3600
    said = " ".join(status().split())
    assert f"it was tried {MOST_TRIES} times: remove it there by that id" in said
    assert {(one.batch_id, one.given_up) for one in troublesome_remains(reco.catalogue)} == {("1", True), ("2", True)}


def test_one_call_waits_for_no_more_than_one_answer_that_does_not_come(reco: RecoBench) -> None:
    for _ in range(2):
        reco.batch.fail_next(DOWN, "forget")
    reco.turns(2)
    told: list[str] = []

    def refuse(job_id: str) -> None:
        told.append(job_id)
        raise DOWN

    reco.batch.forget = refuse  # type: ignore[method-assign]
    reco.clock.advance(61)
    reco.agent.look_around(reco.catalogue)
    assert len(told) == 1


def test_what_is_not_forgotten_of_a_cancelled_attempt_keeps_no_next_one_from_running(reco: RecoBench) -> None:
    reco.what_becomes = lambda _job: JobStatus(JobPhase.RUNNING, "on node 1")
    reco.turn()
    job = reco.jobs()[BundleKind.RECO]
    cancel_job(reco.catalogue, job, now=reco.clock.now())
    retry_job(reco.catalogue, job, now=reco.clock.now())
    reco.batch.fail_next(DOWN, "forget")
    reco.turns(3, seconds=10)
    job = reco.jobs()[BundleKind.RECO]
    assert (job.state, job.attempts) == (JobState.SUBMITTED, 2)
    assert len(reco.batch.jobs) == 3
    reco.clock.advance(60)
    reco.turn()
    assert len(reco.batch.jobs) == 2
    assert known(reco) == 0
