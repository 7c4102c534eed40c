"""A week of the mover's life, in which nearly everything goes wrong, from one seed: nothing is lost."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.simulation.faults import Fault, Kind, random_script
from tests.simulation.ledger import lfn_of
from tests.simulation.life import ENGINES, Life
from tests.simulation.places import PLACES
from tests.simulation.settling import settle
from tests.simulation.world import World

_WEEK_SECONDS = 7 * 86400.0
_STEPS = 10_000
_TAPES = [name for name, _, kind, *_ in PLACES if kind == "tape"]


def live(life: Life, choice: random.Random, *, until_steps: int, until_seconds: float) -> None:
    """Let things happen at random, until both are reached."""
    world = life.world
    widen_at = until_seconds * 0.6
    actions: dict[Callable[[], object], float] = {
        lambda: life.work(_engine(choice), choice.randrange(8), random_script(choice, 0.25)): 60,
        lambda: life.look_around(_engine(choice), random_script(choice, 0.1)): 12,
        lambda: life.release_due(_engine(choice), random_script(choice, 0.3)): 0.5,
        lambda: life.take_run(
            parts=choice.randint(1, 3), ended=choice.random() < 0.9, whole=choice.random() < 0.95
        ): 1.2,
        lambda: life.migrate(choice.choice(_TAPES)): 5,
        lambda: life.release(choice.choice(life.runs), random_script(choice, 0.3)): 2,
        lambda: life.retry(_run(life, choice), random_script(choice, 0.2), look=choice.random() < 0.5): 1,
        lambda: life.close(_run(life, choice), random_script(choice, 0.2), force=choice.random() < 0.3): 0.6,
        lambda: life.end_again(_run(life, choice)): 0.3,
        lambda: life.mend(_run(life, choice)): 0.4,
        lambda: life.kill(_engine(choice)): 0.5,
        lambda: life.strike(
            choice.choice([Kind.GONE, Kind.FOREIGN, Kind.CHANGED]), _run(life, choice), _place(choice), choice.random()
        ): 1,
        lambda: life.flip(_run(life, choice), _place(choice)): 0.1,
        lambda: life.remove_foreign(_run(life, choice), _place(choice)): 1,
        lambda: life.outage(_place(choice), choice.expovariate(1.0)): 0.15,
        lambda: life.drive(choice.choice(_TAPES), broken=choice.random() < 0.3): 0.2,
        lambda: life.tape_loses(_run(life, choice), choice.choice(_TAPES)): 0.1,
        lambda: life.evict(choice.choice(_TAPES)): 0.3,
        lambda: life.set_clock(choice.choice([0, 0, -1, 1, 30])): 0.1,
    }
    life.take_run(parts=1)
    while world.steps < until_steps or world.seconds < until_seconds:
        (action,) = choice.choices(list(actions), list(actions.values()))
        action()
        world.check()
        life.pass_time(choice.expovariate(1 / 30))
        if widen_at < world.seconds:
            life.widen_policy([])
            widen_at = float("inf")


def _engine(choice: random.Random) -> str:
    return choice.choice(list(ENGINES))


def _place(choice: random.Random) -> str:
    return choice.choice(PLACES)[0]


def _run(life: Life, choice: random.Random) -> int:
    """Rather a late one than an early one."""
    back = min(int(choice.expovariate(1 / 10)), life.next_run - 4701)
    return life.next_run - 1 - back


def live_a_week(base: Path, seed: int, *, steps: int = _STEPS, seconds: float = _WEEK_SECONDS) -> World:
    """A world that has lived through it, and settled."""
    choice = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    with World(base) as world:
        life = Life(world, choice)
        live(life, choice, until_steps=steps, until_seconds=seconds)
        world.count(f"runs {len(life.runs)}, released {len(world.ledger.released)}")
        settle(life)
    return world


def test_a_week_in_which_nearly_everything_goes_wrong(tmp_path: Path) -> None:
    world = live_a_week(tmp_path, seed=4742)
    assert world.steps >= _STEPS
    assert world.seconds >= _WEEK_SECONDS
    struck = {name.removeprefix("fault: ") for name in world.happened if name.startswith("fault: ")}
    assert struck >= set(Kind) - {Kind.UNLINKED}, world.happened
    assert len(world.ledger.released) > 10


def test_the_same_seed_gives_the_same_day(tmp_path: Path) -> None:
    days = []
    for name in ("once", "again"):
        (tmp_path / name).mkdir()
        days.append(live_a_week(tmp_path / name, seed=6008, steps=1000, seconds=86400.0))
    assert days[0].happened == days[1].happened
    assert days[0].seconds == days[1].seconds


@pytest.mark.long
@pytest.mark.parametrize("seed", range(20))
def test_many_such_weeks(tmp_path: Path, seed: int) -> None:
    live_a_week(tmp_path, seed)


def test_an_empty_file_has_no_bit_to_flip(tmp_path: Path) -> None:
    """An upload may be cut before its first byte, and answered as complete."""
    with World(tmp_path) as world:
        life = Life(world, random.Random(0))  # noqa: S311 - to be repeated, not to be secret
        life.take_run(parts=1)
        life.look_around("engine 1", [])
        names = [lane.name for lane in world.process("engine 1").lanes]
        tape = world.storages[_TAPES[0]]
        life.work("engine 1", names.index(tape.name), [Fault(Kind.SHORT, 0, 0.0, 0)])
        assert tape.content(lfn_of(4700)) == b""
        life.flip(4700, tape.name)
        assert tape.content(lfn_of(4700)) == b""
