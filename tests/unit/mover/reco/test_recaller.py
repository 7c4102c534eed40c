"""Raw data on tape: asked for ahead of the jobs, together, no more than is needed soon, and not again and again."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from mover.config import Config
from mover.errors import EndpointUnavailableError, FileMissingError, StorageError
from mover.model import Locality
from mover.states import CampaignState, JobState
from mover.steps.wants import apply_policy, plan_policy
from mover.storage.memory import MemoryEndpoint
from tests.unit.mover.auditing import add_safe_runs
from tests.unit.mover.reco.campaignbench import CampaignBench
from tests.unit.mover.reco.recobench import RecoBench
from tests.unit.mover.running import work

RUNS = range(4742, 4752)


def lfn(run: int) -> str:
    """The raw bundle's."""
    return f"MICE/{run:05d}.tar"


class SlowTapeDouble(MemoryEndpoint):
    """A tape whose files come when the test says so; it keeps what was asked for, a list for each request."""

    def __init__(self, name: str = "tape") -> None:
        super().__init__(name=name, tape=True)
        self.requests: list[list[str]] = []
        self.localities: list[str] = []
        self.refused: dict[str, StorageError] = {}

    def locality(self, path: str) -> Locality:
        """Where it is; and that it was asked."""
        self.localities.append(path)
        return super().locality(path)

    def bring_online_many(self, paths: Sequence[str]) -> dict[str, StorageError]:
        """Take note."""
        self._begin("bring_online")
        self.requests.append(list(paths))
        return {path: error for path, error in self.refused.items() if path in paths}


class TapeBench(CampaignBench):
    """Ten runs whose raw data is on a slow tape only."""

    def __init__(self, base: Path, **reco: object) -> None:
        RecoBench.__init__(self, base)
        self.tape = SlowTapeDouble()
        self.tape._files = self.endpoints["tape"]._files
        self.endpoints["tape"] = self.tape
        self.tune_reco(first_run=5000, **reco)
        self.last = 4742
        self.add(RUNS)

    def add(self, runs: range) -> None:
        """Have these runs on tape only."""
        add_safe_runs(self, [run for run in runs if run != 4742])
        self.last = runs[-1]
        with self.catalogue.transaction() as connection:
            connection.execute("UPDATE replica SET state = 'quarantined' WHERE endpoint = 'disk'")
        for run in runs:
            self.endpoints["disk"].remove(lfn(run))
            self.tape.evicted.add(lfn(run))

    def add_tape(self) -> SlowTapeDouble:
        """Have a second tape, "tape2", which has all of them, too."""
        raw = self.config.model_dump(mode="json")
        second = {"name": "tape2", "site": "IC", "kind": "tape", "url": "root://e/f", "source": "local"}
        raw["endpoint"] = [*raw["endpoint"], second]
        for kind in ("reco", "mc"):
            raw["policy"][kind]["endpoints"] = ["tape", "disk"]
        self.config = Config.model_validate(raw)
        tape = self.endpoints["tape2"] = SlowTapeDouble("tape2")
        apply_policy(self.catalogue, plan_policy(self.catalogue, self.config), now=self.clock.now())
        work(self, "tape2", self.clock)
        tape.evicted |= self.tape.evicted
        self.agent = self.start_agent()
        return tape


def test_what_the_next_jobs_need_is_asked_for_together_and_no_more(tmp_path: Path) -> None:
    reco = TapeBench(tmp_path, recall_ahead=4, most_jobs=2)
    reco.create(start=False)
    reco.turns(2)
    assert reco.tape.requests == []
    reco.create(reco.plan(iteration=2))
    reco.turn()
    assert reco.tape.requests == [[lfn(run) for run in RUNS[:4]]]
    # No second request, however often the jobs are looked at meanwhile.
    reco.turns(15, seconds=100)
    assert len(reco.tape.requests) == 1
    assert len(reco.tape.localities) < 15 * 4 + 10
    # When they have come, they are done, and the next ones are asked for.
    reco.tape.evicted -= {lfn(run) for run in RUNS[:2]}
    reco.turns(4)
    assert reco.tape.requests[1:] == [[lfn(run) for run in RUNS[4:6]]]
    assert {job.key.run for job in reco.all_jobs() if job.state is JobState.PROVEN} == set(RUNS[:2])


def test_what_does_not_come_is_asked_for_again_after_a_while(tmp_path: Path) -> None:
    reco = TapeBench(tmp_path, recall_ahead=2, most_jobs=1)
    reco.create()
    reco.turn()
    reco.clock.advance(31 * 60)
    reco.turn()
    assert reco.tape.requests == [[lfn(4742), lfn(4743)]] * 2


def test_what_has_not_come_after_a_day_gives_its_turn_to_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reco = TapeBench(tmp_path, recall_ahead=2, most_jobs=2)
    campaign = reco.create()
    reco.turn()
    reco.tape.evicted -= {lfn(run) for run in RUNS[2:]}
    reco.turns(24, seconds=7200)
    states = {job.key.run: job.state for job in reco.all_jobs()}
    assert {run for run in RUNS if states[run] is JobState.PROVEN} == set(RUNS[2:])
    assert reco.state_of(campaign) is CampaignState.RUNNING
    assert {states[run] for run in RUNS[:2]} == {JobState.WANTED}
    for run in RUNS[:2]:
        assert f"{lfn(run)} has not come from tape within 24 h (asked at tape)" in caplog.text
    reco.tape.evicted.clear()
    reco.turns(6, seconds=3600)
    assert reco.state_of(campaign) is CampaignState.FINISHED


def test_a_day_is_a_day_and_counts_from_when_it_was_wanted_soon(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reco = TapeBench(tmp_path, recall_ahead=1, most_jobs=1)
    reco.create()
    reco.turn()
    reco.turns(12, seconds=7150)
    reco.clock.advance(500)
    reco.turn()
    assert "has not come" not in caplog.text
    assert {path for request in reco.tape.requests for path in request} == {lfn(4742)}
    reco.clock.advance(200)
    reco.turns(3)
    assert caplog.text.count("has not come from tape within 24 h") == 1
    assert reco.tape.requests[-1] == [lfn(4743)]
    # The second one's day begins now.
    reco.turns(12, seconds=7100)
    assert caplog.text.count("has not come from tape within 24 h") == 1


def test_what_is_late_is_said_once_a_day(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    reco = TapeBench(tmp_path, recall_ahead=len(RUNS), most_jobs=1)
    reco.create()
    reco.turn()
    reco.clock.advance(25 * 3600)
    reco.turns(3)
    assert caplog.text.count("has not come from tape within 24 h") == len(RUNS)


def test_what_was_asked_for_at_one_tape_is_not_asked_for_at_another_before_it_had_its_time(tmp_path: Path) -> None:
    reco = TapeBench(tmp_path, recall_ahead=2, most_jobs=1)
    wanted = [[lfn(4742), lfn(4743)]]
    other = reco.add_tape()
    reco.create()
    reco.turns(5, seconds=300)
    assert (reco.tape.requests, other.requests) == (wanted, [])
    reco.clock.advance(10 * 60)
    reco.turns(5, seconds=300)
    assert (reco.tape.requests, other.requests) == (wanted, wanted)
    reco.clock.advance(10 * 60)
    reco.turn()
    assert (reco.tape.requests, other.requests) == (wanted * 2, wanted)


def test_what_has_come_at_one_tape_is_not_asked_for_at_another(tmp_path: Path) -> None:
    reco = TapeBench(tmp_path, recall_ahead=2, most_jobs=1)
    other = reco.add_tape()
    reco.tape.evicted.clear()
    # The first job never ends, so that the data of the others waits where it is.
    reco.what_becomes = lambda _: None
    reco.create()
    reco.turns(5, seconds=60)
    assert len(reco.tape.localities) > 0
    assert (reco.tape.requests, other.requests, other.localities) == ([], [], [])


def test_what_a_disk_has_is_not_recalled(tmp_path: Path) -> None:
    # Jobs wait, so that there is something to look ahead at.
    reco = CampaignBench(tmp_path, most_jobs=1)
    reco.endpoints["tape"].evicted.update(lfn(run) for run in range(4742, 4747))
    reco.create()
    reco.turn()
    assert JobState.WANTED in reco.states()
    reco.turns(10)
    assert len(reco.endpoints["tape"].evicted) == 5
    assert reco.states() == {JobState.PROVEN}


def test_a_tape_that_does_not_answer_is_left_alone_for_a_while_and_holds_up_no_other_work(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reco = TapeBench(tmp_path, recall_ahead=2, most_jobs=2)
    reco.tape.fail_next(EndpointUnavailableError("tape is down", hint="wait"), "bring_online")
    reco.create()
    reco.turn()
    reco.turn()
    assert reco.tape.requests == []
    assert caplog.text.count("tape is down (wait)") == 1
    reco.clock.advance(61)
    reco.turn()
    assert reco.tape.requests == [[lfn(4742), lfn(4743)]]


def test_a_file_that_is_refused_keeps_no_other_from_coming(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    reco = TapeBench(tmp_path, recall_ahead=2, most_jobs=2)
    reco.tape.refused[lfn(4742)] = FileMissingError("not this one", hint="ask the site")
    reco.create()
    reco.turns(3, seconds=60)
    assert reco.tape.requests == [[lfn(4742), lfn(4743)]]
    assert "not this one (ask the site)" in caplog.text
    reco.clock.advance(16 * 60)
    reco.turn()
    assert reco.tape.requests[1:] == [[lfn(4742)]]


def test_a_live_job_that_finds_its_data_on_tape_has_it_brought_online(tmp_path: Path) -> None:
    reco = TapeBench(tmp_path, recall_ahead=0)
    reco.tune_reco(first_run=4751, endpoint="tape")
    reco.turn()
    # Both jobs wait for the same file: it is asked for once.
    assert reco.tape.requests == [[lfn(4751)]]
    reco.turns(5)
    assert len(reco.tape.requests) == 1
    reco.tape.evicted.clear()
    reco.turns(4)
    assert reco.states() == {JobState.PROVEN}


def test_a_live_job_asks_one_tape_after_the_other(tmp_path: Path) -> None:
    reco = TapeBench(tmp_path, recall_ahead=0)
    other = reco.add_tape()
    reco.tune_reco(first_run=4751, endpoint="tape")
    reco.turns(10, seconds=120)
    assert (reco.tape.requests, other.requests) == ([[lfn(4751)]], [])
    reco.clock.advance(15 * 60)
    reco.turns(2)
    assert (reco.tape.requests, other.requests) == ([[lfn(4751)]], [[lfn(4751)]])
    other.evicted.clear()
    reco.turns(4)
    assert reco.states() == {JobState.PROVEN}
