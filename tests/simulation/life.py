"""What can happen in the simulated world, one step at a time: what engines and persons do, and what nature does."""

import random
from collections.abc import Callable

from mover.catalogue.endpoints import record_well
from mover.catalogue.replicas import retry_replicas
from mover.steps.close import close_run
from mover.steps.look import look_again
from mover.steps.release import release_run
from mover.steps.wants import apply_policy, plan_policy
from tests.simulation.faults import Kind, Script, random_script
from tests.simulation.ledger import lfn_of
from tests.simulation.places import PLACES
from tests.simulation.process import Process
from tests.simulation.world import World

#: Two engines on one machine, which see each other die, and one on another, of which nothing is known but its lease.
ENGINES = {"engine 1": True, "engine 2": True, "engine 3": False}
PERSON = "person"


class Life:
    """The steps. `choice` decides what rivals do while somebody stalls."""

    def __init__(self, world: World, choice: random.Random) -> None:
        self.world = world
        self.choice = choice
        self.next_run = 4700
        world.meanwhile = self._meanwhile

    @property
    def runs(self) -> list[int]:
        """All runs that the DAQ ever wrote."""
        return list(range(4700, self.next_run))

    # Engines.

    def look_around(self, role: str, script: Script) -> None:
        """An engine looks for ended and safe runs; the first time, it starts."""
        process = self._engine(role)

        def action() -> None:
            for place in () if process.started else process.config.endpoint:
                record_well(process.database, place.name)
            process.started = True
            process.engine.look_around(process.database)

        self.world.act(process, "look around", script, action, fenced=True)

    def release_due(self, role: str, script: Script) -> None:
        """An engine removes the local files of runs that have been safe for long enough."""
        process = self._engine(role)
        self.world.act(
            process,
            "release due",
            script,
            lambda: process.releaser.look(process.database, process.endpoints),
            fenced=True,
        )

    def work(self, role: str, lane: int, script: Script) -> bool:
        """One lane of an engine does one piece of work."""
        process = self._engine(role)
        lane %= len(process.lanes)
        if self.world.busy(process, lane):
            return False
        one = process.lanes[lane]
        return self.world.act(
            process, "work", script, lambda: one.work_once(process.database, process.endpoints), fenced=True, lane=lane
        )

    def prosper(self, role: str) -> None:
        """For an hour or two all goes well: what nobody holds up comes as far as it can."""
        for _ in range(6):
            self.look_around(role, [])
            for lane in range(len(self._engine(role).lanes)):
                for _ in range(4):
                    self.work(role, lane, [])
            for place, _, kind, *_ in PLACES:
                if kind == "tape":
                    self.migrate(place)
            self.pass_time(900.0)
        self.look_around(role, [])

    def kill(self, role: str) -> None:
        """An engine dies between two pieces of work."""
        process = self.world.processes.get(role)
        if process is not None and not self.world.busy(process):
            self.world.retire(process)

    def _engine(self, role: str) -> Process:
        return self.world.process(role, local=ENGINES[role])

    def _meanwhile(self, place: str) -> None:
        """While one stalls, others work, mostly where it does; they have troubles of their own."""
        for _ in range(self.choice.randint(1, 8)):
            role = self.choice.choice(list(ENGINES))
            lanes = self._engine(role).lanes
            there = [number for number, lane in enumerate(lanes) if lane.name == place]
            choices = there if there and self.choice.random() < 0.8 else range(len(lanes))
            self.work(role, self.choice.choice(choices), random_script(self.choice, 0.2))

    # Persons.

    def close(self, run: int, script: Script, *, force: bool) -> None:
        """`mover run close`."""
        self._person(
            "close",
            script,
            lambda person: close_run(person.database, person.config, run, now=self.world.now(), force=force),
        )

    def release(self, run: int, script: Script) -> None:
        """`mover run release`."""
        self._person(
            "release",
            script,
            lambda person: release_run(person.database, person.config, run, person.endpoints, clock=self.world),
        )

    def retry(self, run: int, script: Script, *, look: bool) -> None:
        """`mover run retry`, perhaps with --look."""

        def action(person: Process) -> None:
            retry_replicas(person.database, run, now=self.world.now())
            if look:
                look_again(person.database, person.config, run, person.endpoints, clock=self.world)

        self._person("retry", script, action)

    def widen_policy(self, script: Script) -> None:
        """A second disk is wanted, for old runs too."""
        self.world.widen_policy()
        self.kill(PERSON)
        self.apply_policy(script)

    def apply_policy(self, script: Script) -> None:
        """`mover policy apply`."""

        def action(person: Process) -> None:
            apply_policy(person.database, plan_policy(person.database, person.config), now=self.world.now())

        self._person("policy", script, action)

    def _person(self, what: str, script: Script, action: Callable[[Process], object]) -> None:
        process = self.world.process(PERSON)
        self.world.act(process, what, script, lambda: action(process), fenced=False)

    # The DAQ.

    def take_run(self, *, parts: int, ended: bool = True, whole: bool = True) -> None:
        """The next run."""
        self.world.daq.take_run(self.next_run, parts=parts, ended=ended, whole=whole)
        self.next_run += 1
        self._natural("run taken")

    def end_again(self, run: int) -> None:
        """The DAQ ends a run, perhaps once more."""
        self.world.daq.write(f"{run:05d}.end", b"")
        self._natural("ended again")

    def mend(self, run: int) -> None:
        """A person puts the parts back that were there when the run was closed, or completes one that never was."""
        world = self.world
        planned = world.ledger.planned.get(run)
        if planned is None:
            for name in [one for one in world.ledger.local if one.startswith(f"{run:05d}.")]:
                world.daq.remove(name)
            world.daq.take_run(run, parts=1)
        elif run not in world.ledger.released:
            world.daq.restore(run)
        self._natural("mended")

    # Nature.

    def strike(self, kind: Kind, run: int, place: str, share: float) -> None:
        """Something happens at rest."""
        self.world.nature_strikes(kind, run, self.world.storages[place], share)
        self._natural(str(kind))

    def flip(self, run: int, place: str) -> None:
        """A bit changes at rest; an empty file, which an upload that was cut short may have left, has none."""
        storage = self.world.storages[place]
        if lfn_of(run) in storage.files and storage.content(lfn_of(run)):
            storage.corrupt(lfn_of(run))
            self.world.destroy(run, place)
        self._natural("bit flipped")

    def remove_foreign(self, run: int, place: str) -> None:
        """A person has somebody else's file, or what went bad, removed."""
        storage = self.world.storages[place]
        stored = storage.files.get(lfn_of(run))
        if stored is not None and not self.world.ledger.is_right(storage, run):
            del storage.files[lfn_of(run)]
        self._natural("wrong file removed by a person")

    def outage(self, place: str, hours: float) -> None:
        """A storage element answers nothing for a while."""
        self.world.storages[place].down_until = self.world.seconds + 3600 * hours
        self._natural("outage")

    def migrate(self, place: str) -> None:
        """The tape drive gets its turn."""
        if place not in self.world.broken_drives:
            self.world.storages[place].migrate()
        self._natural("migrated")

    def drive(self, place: str, *, broken: bool) -> None:
        """A tape drive breaks, or is mended."""
        (self.world.broken_drives.add if broken else self.world.broken_drives.discard)(place)
        self._natural("drive broken" if broken else "drive mended")

    def tape_loses(self, run: int, place: str) -> None:
        """What was on tape is not any more."""
        if self.world.storages[place].tape.pop(lfn_of(run), None):
            self.world.destroy(run, place)
        self._natural("tape lost a file")

    def evict(self, place: str) -> None:
        """The disk before the tape is cleared."""
        storage = self.world.storages[place]
        storage.evicted |= set(storage.tape)
        self._natural("evicted")

    def pass_time(self, seconds: float) -> None:
        """Time passes."""
        self.world.pass_time(seconds)

    def set_clock(self, hours: float) -> None:
        """The machine's clock is set to another time than it is, or back to the right one."""
        self.world.clock_offset = hours * 3600.0
        self._natural("clock set")

    def _natural(self, what: str) -> None:
        self.world.steps += 1
        self.world.count(what)
