"""A person quarantines a run, lets it go on, or dismisses a slip: nothing moves meanwhile, custody has the reason."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mover.catalogue import custody
from mover.cli.main import cli
from mover.engine import Engine
from mover.errors import NotSafeError, RunChangedError, RunError, StateError
from mover.model import BundleKind
from mover.states import JobState, ReplicaState, RunState
from mover.steps.close import Closed, close_run
from mover.steps.hold import LetGo, hold_run, let_go_run
from mover.steps.release import check_release
from tests.unit.mover.bench import NOW, RUN, Bench
from tests.unit.mover.reco.recobench import RecoBench
from tests.unit.mover.running import SettableClock, add_run, events, known, work

SLIP = 47421
WHY = "the DAQ wrote to the wrong run"

Mover = Callable[..., Result]


@pytest.fixture
def mover(bench: Bench, tmp_path: Path) -> Mover:
    """The command, on the bench's catalogue."""
    config = tmp_path / "mover.toml"
    config.write_text(
        f'experiment = "MICE"\ncatalogue = "{bench.config.catalogue}"\n[runs]\ndirectory = "{tmp_path}/daq"\n'
        '[bundle]\nlfn = "MICE/{run:05d}.tar"\n'
        f'[[endpoint]]\nname = "disk"\nsite = "here"\nkind = "disk"\nurl = "file://{tmp_path}/disk"\n'
        "[policy.raw]\ntapes = 0\ntape_sites = 0\ndisks = 1\n"
    )
    return lambda *arguments: CliRunner().invoke(cli, ["--config", str(config), *arguments])


def _hold(bench: Bench, run: int = RUN) -> None:
    hold_run(bench.catalogue, run, reason=WHY, now=NOW)


def _let_go(bench: Bench, run: int = RUN) -> LetGo:
    return let_go_run(bench.catalogue, bench.config, run, reason="it is right", now=NOW)


def test_nothing_of_a_held_run_is_moved_and_others_go_on(bench: Bench, clock: SettableClock) -> None:
    bench.close_run()
    add_run(bench, RUN + 1)
    _hold(bench)
    work(bench, "tape", clock)
    assert bench.state("tape") is ReplicaState.WANTED
    assert "on tape" in events(bench, RUN + 1) or "size and checksum agree" in events(bench, RUN + 1)
    assert _let_go(bench) is LetGo.PLANNED
    assert known(bench.catalogue, RUN).problem is None
    work(bench, "tape", clock)
    assert bench.state("tape") is not ReplicaState.WANTED


def test_a_safe_run_that_is_held_is_not_released_and_is_safe_again_afterwards(bench: Bench) -> None:
    bench.make_safe()
    _hold(bench)
    with pytest.raises(NotSafeError, match=WHY):
        check_release(bench.catalogue, bench.config, RUN, bench.endpoints)
    _let_go(bench)
    assert known(bench.catalogue, RUN).state is RunState.PLANNED
    Engine(bench.config, bench.open_endpoints, SettableClock()).look_around(bench.catalogue)
    assert known(bench.catalogue, RUN).state is RunState.SAFE


def test_no_job_of_a_held_run_is_submitted(tmp_path: Path) -> None:
    bench = RecoBench(tmp_path)
    bench.agent.look_around(bench.catalogue)
    hold_run(bench.catalogue, RUN, reason=WHY, now=NOW)
    bench.turns(3)
    assert bench.job_state() is JobState.WANTED
    let_go_run(bench.catalogue, bench.config, RUN, reason="it is right", now=NOW)
    bench.turns()
    assert {bench.job_state(kind) for kind in (BundleKind.RECO, BundleKind.MC)} == {JobState.PROVEN}


def test_the_reason_is_in_custody_with_who_gave_it(bench: Bench) -> None:
    bench.close_run()
    _hold(bench)
    _let_go(bench)
    held, let_go = list(custody.records(bench.catalogue, RUN))[-2:]
    assert (held.event, held.facts["reason"], held.by) == ("quarantined by a person", WHY, custody.who())
    assert (let_go.event, let_go.facts["reason"]) == ("let go on by a person", "it is right")


def test_closing_a_held_run_again_does_not_let_it_go(bench: Bench) -> None:
    bench.close_run()
    _hold(bench)
    for force in (False, True):
        assert bench.close_run(force=force) is Closed.HELD
    (bench.config.runs.directory / "04742.007").touch()
    with pytest.raises(RunChangedError):
        bench.close_run(force=True)
    assert known(bench.catalogue, RUN).state is RunState.QUARANTINED


def test_what_is_held_or_released_is_not_held_again(bench: Bench) -> None:
    bench.close_run()
    with pytest.raises(StateError, match="cannot become 'let go on by a person'"):
        _let_go(bench)
    _hold(bench)
    with pytest.raises(StateError):
        _hold(bench)


def _slip(bench: Bench) -> Engine:
    """A marker of a run that never was, as the engine finds it."""
    bench.daq.end_run(SLIP)
    engine = Engine(bench.config, bench.open_endpoints, SettableClock())
    engine.look_around(bench.catalogue)
    assert known(bench.catalogue, SLIP).state is RunState.QUARANTINED
    return engine


def test_a_slip_is_dismissed_and_stays_so(bench: Bench, mover: Mover) -> None:
    engine = _slip(bench)
    assert f"run {SLIP} has no part" in mover("status").output
    said = mover("run", "unquarantine", str(SLIP), "--reason", "a slip")
    assert said.output == f"run {SLIP}: dismissed: it is no run, and nothing waits for it any more\n"
    engine.look_around(bench.catalogue)
    assert known(bench.catalogue, SLIP).state is RunState.DISMISSED
    assert "needs a person" not in mover("status").output
    assert mover("run", "wait", str(SLIP), "--deadline", "0").exit_code == 4
    assert "it is no run" in mover("why", str(SLIP)).output
    # Nor does another slip of the same number bring it back.
    assert mover("run", "close", str(SLIP)).exit_code == 4
    assert known(bench.catalogue, SLIP).state is RunState.DISMISSED


def test_a_dismissed_number_that_becomes_a_run_is_one(bench: Bench) -> None:
    _slip(bench)
    _let_go(bench, SLIP)
    bench.daq.write_run(SLIP, parts=1, part_bytes=5000)
    assert close_run(bench.catalogue, bench.config, SLIP, now=NOW) is Closed.PLANNED


def test_an_incomplete_run_with_files_is_not_dismissed(bench: Bench) -> None:
    bench.files[0].unlink()
    with pytest.raises(RunError):
        bench.close_run()
    with pytest.raises(RunError, match="there are files of it"):
        _let_go(bench)
    assert known(bench.catalogue, RUN).state is RunState.QUARANTINED


def test_the_commands_say_what_they_did_and_want_a_reason(bench: Bench, mover: Mover) -> None:
    bench.close_run()
    said = mover("run", "quarantine", str(RUN), "--reason", f"  {WHY}\n ")
    assert said.output == f"run {RUN}: quarantined; `mover run unquarantine {RUN}` lets it go on\n"
    refused = mover("run", "retry", str(RUN))
    assert refused.exit_code == 4
    assert f": {WHY}\nhint: when that is settled, `mover run unquarantine {RUN}" in refused.stderr
    assert mover("run", "unquarantine", str(RUN), "--reason", "ok").output == f"run {RUN}: goes on\n"
    for arguments in (("--reason", " "), ("--reason", "x" * 501), ()):
        assert mover("run", "quarantine", str(RUN), *arguments).exit_code == 2
    assert mover("run", "quarantine", "9", "--reason", "x").exit_code == 5


def test_what_an_engine_is_at_goes_on_to_the_end_of_its_step(bench: Bench, clock: SettableClock) -> None:
    bench.close_run()
    work(bench, "disk", clock, stop=_StopAfterHold(bench))
    assert bench.state("disk") is ReplicaState.COPIED


class _StopAfterHold(threading.Event):
    """Holds the run as soon as its upload has begun, and stops the lane when it finds nothing more to do."""

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self._bench = bench

    def is_set(self) -> bool:
        """Asked before each claim and with each chunk."""
        intended = "upload intended" in events(self._bench, RUN)
        if intended and known(self._bench.catalogue, RUN).state is RunState.PLANNED:
            _hold(self._bench)
        return super().is_set()

    def wait(self, timeout: float | None = None) -> bool:  # noqa: ARG002 - the signature is Event's
        """There is nothing to do: stop."""
        self.set()
        return True
