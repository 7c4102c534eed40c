"""A simulated process of the mover: an engine with its lanes, or a person's command. It can die at any moment."""

import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from mover.catalogue.database import Database
from mover.config import Config
from mover.configwatch import ConfigWatch
from mover.engine import Engine
from mover.lane import Gate, Lane, Progress, Surroundings
from mover.ports import Clock, StorageEndpoint
from mover.releaser import Releaser
from tests.simulation.faults import CrashError, Fault, Moment, Script
from tests.simulation.storage import FaultyEndpoint, Storage

#: What is noted of each change: of a replica or run its state, of a bundle its plan, of a claim its owner.
_TRIGGERS = {
    "UPDATE ON main.replica": "'replica', NEW.id, OLD.state, NEW.state, NULL",
    "UPDATE ON main.run": "'run', NEW.number, OLD.state, NEW.state, NULL",
    "INSERT ON main.run": "'run', NEW.number, 'unknown', NEW.state, NULL",
    "UPDATE OF plan ON main.bundle": "'plan', NEW.run, NULL, NEW.plan, NULL",
    "INSERT ON main.bundle": "'plan', NEW.run, NULL, NEW.plan, NULL",
    "UPDATE ON main.claim": "'claim', NEW.replica_id, OLD.owner, NEW.owner, NEW.fence",
    "INSERT ON main.claim": "'claim', NEW.replica_id, NULL, NEW.owner, NEW.fence",
}


def _watch() -> Iterator[str]:
    # No process of the simulation outlives a power cut.
    yield "PRAGMA synchronous = OFF"
    yield "CREATE TEMP TABLE touched (what TEXT, id INTEGER, before TEXT, after TEXT, fence INTEGER)"
    for number, (change, values) in enumerate(_TRIGGERS.items()):
        # The names are those above.
        insert = f"INSERT INTO touched VALUES ({values})"  # noqa: S608
        yield f"CREATE TEMP TRIGGER watch_{number} AFTER {change} BEGIN {insert}; END"


@dataclass(frozen=True, slots=True)
class Touched:
    """A row that a transaction changed: of a replica or run its state, of a bundle its plan, of a claim its owner."""

    what: str
    id: int
    before: str | None
    after: str | None
    fence: int | None


class World(Protocol):
    """What is around a process."""

    clock: Clock
    storages: dict[str, Storage]

    def began(self, process: "Process", storage: Storage, call: str, path: str) -> None:
        """A call of the port begins; raises if the storage is down."""

    def struck(self, process: "Process", fault: Fault, storage: Storage, path: str, *, may_wait: bool) -> None:
        """Something happens around a call."""

    def judge(self, process: "Process", touched: list[Touched], connection: sqlite3.Connection) -> None:
        """A transaction is about to be committed."""

    def committed(self, process: "Process", touched: list[Touched]) -> None:
        """A transaction is committed."""

    def sent(self, path: str, data: bytes) -> None:
        """All of a bundle was sent."""

    def lied(self, storage: Storage, path: str) -> None:
        """A storage said something untrue."""

    def count(self, what: str) -> None:
        """Remember that it happened."""


class WatchedDatabase(Database):
    """The real catalogue. What a transaction changes is judged before its commit; a dead process has none."""

    def __init__(self, path: Path, process: "Process") -> None:
        self._process: Process | None = None
        super().__init__(path, create=True)
        for statement in _watch():
            self.query(statement)
        self._process = process

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """As the real one; the process may die right before the commit, or right after it."""
        process = self._process
        if process is None:
            with super().transaction() as connection:
                yield connection
            return
        process.must_live()
        with super().transaction() as connection:
            process.in_transaction = True
            try:
                yield connection
            finally:
                process.in_transaction = False
            touched = process.judge(connection)
            process.strike_at(Moment.COMMIT)
        process.world.committed(process, touched)
        process.strike_at(Moment.COMMITTED)

    def iterate(self, statement: str, *values: object) -> Iterator[sqlite3.Row]:
        """As the real one."""
        if self._process is not None:
            self._process.must_live()
        return super().iterate(statement, *values)


@dataclass(slots=True)
class Process:
    """One process. `local` is whether the others are on its machine, and so see at once that it is dead."""

    name: str
    world: World
    config: Config
    local: bool
    alive: bool = True
    started: bool = False
    in_transaction: bool = False
    script: Script = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    database: WatchedDatabase = field(init=False)
    engine: Engine = field(init=False)
    lanes: list[Lane] = field(init=False)
    releaser: Releaser = field(init=False)
    endpoints: Mapping[str, StorageEndpoint] = field(init=False)

    def __post_init__(self) -> None:
        self.database = WatchedDatabase(self.config.catalogue, self)
        self.endpoints = {
            place.name: FaultyEndpoint(self.world.storages[place.name], self) for place in self.config.endpoint
        }
        self.engine = Engine(self.config, lambda: self.endpoints, self.world.clock)
        around = Surroundings(
            self.config, lambda: self.endpoints, self.world.clock, self.stop, threading.Event(), _unseen
        )
        self.releaser = Releaser(
            self.config, lambda: self.endpoints, self.world.clock, self.stop, ConfigWatch(self.config)
        )
        gates = [Gate(self.config, place) for place in self.config.endpoint]
        self.lanes = [Lane(gate, around) for gate in gates for _ in range(gate.place.streams)]

    def end(self) -> None:
        """It does nothing any more, whatever the code still tries."""
        self.alive = False

    def must_live(self) -> None:
        """Nothing that a dead process does has an effect."""
        if not self.alive:
            raise CrashError

    def die(self) -> None:
        """Like kill -9."""
        self.alive = False
        raise CrashError

    def strike_at(self, moment: Moment) -> None:
        """Die, if the script says so for this moment."""
        self.must_live()
        if self._next_fault(moment) is not None:
            self.die()

    def begin(self, storage: Storage, call: str, path: str) -> Fault | None:
        """A call of the port begins."""
        self.must_live()
        assert not self.in_transaction, f"{call} while the catalogue is locked"
        self.world.began(self, storage, call, path)
        return self._next_fault(Moment.CALL, call)

    def strike(self, fault: Fault, storage: Storage, path: str, *, may_wait: bool) -> None:
        """Something happens, after which the process may be dead."""
        self.world.struck(self, fault, storage, path, may_wait=may_wait)
        self.must_live()

    def judge(self, connection: sqlite3.Connection) -> list[Touched]:
        """Have the world look at what is about to be committed."""
        touched = [Touched(*row) for row in connection.execute("SELECT * FROM touched")]
        connection.execute("DELETE FROM touched")
        self.world.judge(self, touched, connection)
        return touched

    def sent(self, path: str, data: bytes) -> None:
        """All of a bundle was sent."""
        self.world.sent(path, data)

    def lied(self, storage: Storage, path: str) -> None:
        """A storage said something untrue."""
        self.world.lied(storage, path)

    def _next_fault(self, moment: Moment, call: str = "") -> Fault | None:
        for number, fault in enumerate(self.script):
            if fault.concerns(moment, call):
                if fault.skip:
                    self.script[number] = replace(fault, skip=fault.skip - 1)
                    return None
                self.world.count(f"fault: {fault.kind}")
                return self.script.pop(number)
        return None


def _unseen(_: Progress) -> None:
    """Nobody watches."""
