"""Hypothesis looks for the shortest life of the mover in which a rule does not hold."""

import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.simulation.faults import SCRIPTS, Kind, Script
from tests.simulation.life import ENGINES, Life
from tests.simulation.places import PLACES
from tests.simulation.settling import settle
from tests.simulation.world import World

_ROLES = st.sampled_from(list(ENGINES))
_LANES = st.integers(0, 7)
_RUNS = st.integers(0, 3)
_NAMES = st.sampled_from([name for name, *_ in PLACES])
_TAPES = st.sampled_from([name for name, _, kind, *_ in PLACES if kind == "tape"])
_SHARES = st.floats(0, 1, exclude_max=True, width=16)


class Machine(RuleBasedStateMachine):
    """A few runs, whatever happens to them; at the end the faults stop, and all must become safe."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="mover-simulation-")
        self.world = World(Path(self.folder.name)).__enter__()
        self.life = Life(self.world, random.Random(0))  # noqa: S311 - to be repeated, not to be secret
        self.widened = False

    @initialize(seed=st.integers(0, 2**32 - 1), parts=st.integers(1, 3))
    def begin(self, seed: int, parts: int) -> None:
        self.life.choice.seed(seed)
        self.life.take_run(parts=parts)
        self.life.look_around("engine 1", [])

    @rule(role=_ROLES, lane=_LANES, script=SCRIPTS, again=st.integers(1, 4))
    def work(self, role: str, lane: int, script: Script, again: int) -> None:
        self.life.work(role, lane, script)
        for _ in range(again - 1):
            self.life.work(role, lane, [])

    @rule(role=_ROLES, script=SCRIPTS)
    def look_around(self, role: str, script: Script) -> None:
        self.life.look_around(role, script)

    @rule(role=_ROLES, script=SCRIPTS)
    def release_due(self, role: str, script: Script) -> None:
        self.life.release_due(role, script)

    @rule(role=_ROLES)
    def prosper(self, role: str) -> None:
        self.life.prosper(role)

    @rule(role=_ROLES)
    def kill(self, role: str) -> None:
        self.life.kill(role)

    @precondition(lambda self: self.life.next_run < 4704)
    @rule(parts=st.integers(1, 3), ended=st.booleans(), whole=st.booleans())
    def take_run(self, parts: int, ended: bool, whole: bool) -> None:
        self.life.take_run(parts=parts, ended=ended, whole=whole)

    @rule(number=_RUNS, script=SCRIPTS, force=st.booleans())
    def close_run(self, number: int, script: Script, force: bool) -> None:
        self.life.close(self._run(number), script, force=force)

    @rule(number=_RUNS, script=SCRIPTS)
    def release(self, number: int, script: Script) -> None:
        self.life.release(self._run(number), script)

    @rule(number=_RUNS, script=SCRIPTS, look=st.booleans())
    def retry(self, number: int, script: Script, look: bool) -> None:
        self.life.retry(self._run(number), script, look=look)

    @precondition(lambda self: not self.widened)
    @rule(script=SCRIPTS)
    def widen_policy(self, script: Script) -> None:
        self.widened = True
        self.life.widen_policy(script)

    @rule(number=_RUNS)
    def end_again(self, number: int) -> None:
        self.life.end_again(self._run(number))

    @rule(number=_RUNS)
    def mend(self, number: int) -> None:
        self.life.mend(self._run(number))

    @rule(kind=st.sampled_from([Kind.GONE, Kind.FOREIGN, Kind.CHANGED]), number=_RUNS, place=_NAMES, share=_SHARES)
    def strike(self, kind: Kind, number: int, place: str, share: float) -> None:
        self.life.strike(kind, self._run(number), place, share)

    @rule(number=_RUNS, place=_NAMES)
    def flip(self, number: int, place: str) -> None:
        self.life.flip(self._run(number), place)

    @rule(number=_RUNS, place=_NAMES)
    def remove_foreign(self, number: int, place: str) -> None:
        self.life.remove_foreign(self._run(number), place)

    @rule(place=_NAMES, hours=st.sampled_from([0.25, 1.0, 5.0]))
    def outage(self, place: str, hours: float) -> None:
        self.life.outage(place, hours)

    @rule(place=_TAPES)
    def migrate(self, place: str) -> None:
        self.life.migrate(place)

    @rule(place=_TAPES, broken=st.booleans())
    def drive(self, place: str, broken: bool) -> None:
        self.life.drive(place, broken=broken)

    @rule(number=_RUNS, place=_TAPES)
    def tape_loses(self, number: int, place: str) -> None:
        self.life.tape_loses(self._run(number), place)

    @rule(place=_TAPES)
    def evict(self, place: str) -> None:
        self.life.evict(place)

    @rule(seconds=st.sampled_from([60.0, 3600.0, 50_000.0]))
    def pass_time(self, seconds: float) -> None:
        self.life.pass_time(seconds)

    @rule(hours=st.sampled_from([0, -1, 1, 30]))
    def set_clock(self, hours: int) -> None:
        self.life.set_clock(hours)

    @invariant()
    def rules_hold(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        try:
            if not self.world.failed:
                settle(self.life)
        finally:
            self.world.__exit__()
            self.folder.cleanup()

    def _run(self, number: int) -> int:
        return self.life.runs[number % len(self.life.runs)]


def _search(examples: int, steps: int, *, derandomize: bool) -> None:
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            derandomize=derandomize,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_no_life_breaks_a_rule() -> None:
    _search(120, 60, derandomize=True)


@pytest.mark.long
def test_no_life_of_very_many_breaks_a_rule() -> None:
    """Others each time: hypothesis prints how to repeat what it finds."""
    _search(600, 120, derandomize=False)
