"""When the faults stop: whether what can become safe does, and whether what a person must do is said."""

from datetime import timedelta

from mover.catalogue.check import CHECKS, faults
from mover.catalogue.replicas import ReplicaRecord, replicas_of
from mover.catalogue.runs import RunRecord, find_run, list_runs
from mover.model import EndpointKind
from mover.states import ReplicaState, RunState
from mover.steps.standing import final_state
from tests.simulation.life import ENGINES, PERSON, Life
from tests.simulation.world import World

_ROUND = timedelta(minutes=10)
_ROUNDS = 250
_BUSY = 300


def settle(life: Life) -> None:
    """No more faults. 1. Engines work until nothing moves; what is not done then, says why. 2. A person mends
    everything. 3. Engines work again: every closed run is safe, and the storage bears it out.

    Raises:
        AssertionError: a rule does not hold.
    """
    world = life.world
    for role in (*ENGINES, PERSON):
        life.kill(role)
    for storage in world.storages.values():
        storage.down_until = 0
    world.broken_drives.clear()
    # Engines that did not know the new policy may have closed runs after it was applied.
    life.apply_policy([])
    # 1
    _rest(life)
    for run, replicas in _catalogue(world):
        _is_said(world, run, replicas)
    # 2
    _mend(life)
    # 3
    _rest(life)
    for run, replicas in _catalogue(world):
        _is_done(world, run, replicas)
    for name, check in CHECKS:
        found = [one for one in faults(world.process(PERSON).database, check) if not _is_lost(world, one)]
        assert not found, (name, found)
    world.check()


def _rest(life: Life) -> None:
    """Engines work until every replica is where it can come without a person, or for longer than clocks are wrong."""
    for _ in range(_ROUNDS):
        for storage in life.world.storages.values():
            storage.migrate()
        for role in ENGINES:
            life.look_around(role, [])
            process = life.world.process(role)
            for lane in range(len(process.lanes)):
                for _ in range(_BUSY):
                    if not life.work(role, lane, []):
                        break
                    life.world.check()
        life.world.check()
        life.pass_time(_ROUND.total_seconds())
        if all(_rests(life.world, one) for _, replicas in _catalogue(life.world) for one in replicas):
            life.look_around("engine 1", [])
            return


def _rests(world: World, replica: ReplicaRecord) -> bool:
    return replica.state is ReplicaState.QUARANTINED or _is_final(world, replica)


def _is_final(world: World, replica: ReplicaRecord) -> bool:
    kind = EndpointKind.TAPE if world.storages[replica.endpoint].capabilities.tape else EndpointKind.DISK
    return replica.state is final_state(kind)


def _is_said(world: World, run: RunRecord, replicas: list[ReplicaRecord]) -> None:
    """What does not go on by itself has a problem and a hint."""
    if run.state in {RunState.SAFE, RunState.RELEASED} or (run.problem and run.hint):
        return
    if not any(one.problem and one.hint for one in replicas):
        world.fail(f"run {run.number} is {run.state}, and nobody says what it waits for: {replicas}")


def _mend(life: Life) -> None:
    world = life.world
    life.set_clock(0)
    for run in life.runs:
        for place in world.storages:
            life.remove_foreign(run, place)
        life.mend(run)
        _restore_half_released(life, run)
        if run not in world.ledger.released:
            life.close(run, [], force=False)
        life.retry(run, [], look=True)
        world.check()


def _restore_half_released(life: Life, run: int) -> None:
    """A release was cut short, and then the files that are left were changed: a person fetches them from a replica."""
    world = life.world
    record = find_run(world.process(PERSON).database, run)
    if run in world.ledger.released and record and record.state is not RunState.RELEASED:
        del world.ledger.released[run]
        world.daq.restore(run)


def _is_lost(world: World, finding: str) -> bool:
    """Whether it is of a run of which nature destroyed every copy after its release: then it is only true."""
    return any(
        finding == f"run {run} is released, but has no verified replica"
        and not any(world.ledger.is_right(storage, run) for storage in world.storages.values())
        for run in world.ledger.released
    )


def _is_done(world: World, run: RunRecord, replicas: list[ReplicaRecord]) -> None:
    policy = world.config.raw_policy()
    state = {one.endpoint: (str(one.state), one.problem) for one in replicas}
    if run.number in world.ledger.released:
        # Copies that nature destroyed after the release do not come back by themselves.
        if run.state is RunState.PLANNED:
            world.fail(f"run {run.number} is half released, and does not go on: {state}")
        return
    if run.state is not RunState.SAFE or not all(_is_final(world, one) for one in replicas):
        world.fail(f"run {run.number} is {run.state}, and not everywhere: {state}")
    if lacking := world.ledger.lacking(run.number, policy, since=world.ledger.now):
        world.fail(f"run {run.number} is said to be safe, but {lacking}")


def _catalogue(world: World) -> list[tuple[RunRecord, list[ReplicaRecord]]]:
    database = world.process(PERSON).database
    return [(run, replicas_of(database, run.number)) for run in list_runs(database)]
