"""The simulated world: a run directory, storage elements, processes of the mover, and time that passes between them."""

import json
import os
import re
import sqlite3
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NoReturn
from unittest import mock

from mover.catalogue import custody
from mover.errors import MoverError, StoppedError
from mover.model import EndpointKind
from mover.ports import Clock
from mover.states import REPLICA_TABLE, RUN_TABLE
from mover.storage.memory import _Stored
from tests.simulation.directory import RunDirectory
from tests.simulation.faults import MADE_UP, CrashError, Fault, Kind, Moment, Script
from tests.simulation.ledger import Ledger, lfn_of, run_of
from tests.simulation.places import FIRST_POLICY, LEASE_SECONDS, PLACES, configure
from tests.simulation.process import Process, Touched
from tests.simulation.storage import Storage, down

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
_RUN_MOVES = {(row.before, row.after) for row in RUN_TABLE if row.after}
_REPLICA_MOVES = {(row.before, row.after) for row in REPLICA_TABLE if row.after}
_DEPTH = 2
_SHOWN = 60
_WAITING = 5


class OneThread:
    """A double of `Prefetch`: nothing is read ahead, so that all happens on one thread, in the same order each time."""

    def __init__(self, chunks: Generator[bytes, None, None], waiting: Callable[[], None]) -> None:
        self._chunks = chunks
        self._waiting = waiting

    def __enter__(self) -> Iterator[bytes]:
        self._waiting()
        return self._chunks

    def __exit__(self, *_: object) -> None:
        self._chunks.close()


@dataclass(slots=True)
class Frame:
    """What a process is doing now. `fenced` if it may touch replicas only under its claim."""

    process: Process
    what: str
    since: int
    fenced: bool
    lane: int | None = None
    claim: tuple[int, int] | None = None
    making: _Stored | None = None


class World:
    """Everything but the mover. `happened` counts what was done, by name."""

    def __init__(self, base: Path) -> None:
        self.runs = base / "daq"
        self.runs.mkdir()
        self._base = base
        self.seconds = 0.0
        self.clock_offset = 0.0
        self.clock: Clock = self
        self.storages = {
            name: Storage(name, tape=kind == "tape", copies=copies, checksums=checksums, told=self)
            for name, _, kind, copies, checksums in PLACES
        }
        self.ledger = Ledger(self.storages, {name: site for name, site, *_ in PLACES})
        self.daq = RunDirectory(self.runs, self.ledger, self)
        self.config = configure(base, self.runs, FIRST_POLICY)
        self.processes: dict[str, Process] = {}
        self.steps = 0
        self.failed = False
        self.happened: dict[str, int] = {}
        self.broken_drives: set[str] = set()
        self.meanwhile: Callable[[str], None] = lambda _place: None
        self._frames: list[Frame] = []
        self._story: deque[str] = deque(maxlen=100_000)
        self._numbers = 0
        self._last_custody = 0
        self._stack = ExitStack()

    def __enter__(self) -> "World":
        patch = self._stack.enter_context
        # Doubles of the kernel's answers: which process this is, which ones live, and that one may die between unlinks.
        patch(mock.patch("mover.lane.this_process", self._this_process))
        patch(mock.patch("mover.catalogue.replicas.is_dead", self._is_dead))
        patch(mock.patch("mover.steps.transfer.Prefetch", OneThread))
        patch(mock.patch("os.unlink", self._unlink(os.unlink)))
        # Small pieces, so that small bundles can be cut.
        patch(mock.patch("mover.storage.memory._PIECE_BYTES", 512))
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            process.database.close()
        self._stack.close()

    # Time.

    def now(self) -> datetime:
        """What the machine's clock says."""
        return BEGIN + timedelta(seconds=self.seconds + self.clock_offset)

    def pass_time(self, seconds: float) -> None:
        """Time passes; drives that are well migrate what has been there for a while."""
        self.seconds += seconds

    # What the storage tells.

    def lost(self, storage: Storage, path: str, stored: _Stored) -> None:
        """A file went."""
        if not self._frames:
            run = run_of(path)
            if run is not None and path == lfn_of(run):
                self.destroy(run, storage.name)
            return
        frame = self._frames[-1]
        self.ledger.lost(storage, path, stored, own_attempt=frame.making is stored)

    def came(self, storage: Storage, path: str, stored: _Stored) -> None:
        """A file came."""
        if self._frames:
            self._frames[-1].making = stored
            self.ledger.came(storage, path)

    @contextmanager
    def nature(self) -> Iterator[None]:
        """What happens in the block is nobody's of ours."""
        frames, self._frames = self._frames, []
        try:
            yield
        finally:
            self._frames = frames

    def destroy(self, run: int, endpoint: str) -> None:
        """Note that nature, not the mover, undid a copy."""
        self.ledger.now += 1
        self.ledger.destroyed.append((self.ledger.now, run, endpoint))

    # What a process is told.

    def began(self, process: Process, storage: Storage, call: str, path: str) -> None:
        """A call takes a moment; a storage that is down takes longer and fails."""
        frame = self._frames[-1]
        assert frame.process is process
        frame.making = None
        self.count(f"call {call}")
        self.tell(f"{process.name} calls {call} of {path} at {storage.name}")
        self.pass_time(1.0)
        if self.seconds < storage.down_until:
            self.pass_time(20.0)
            raise down(storage)

    def struck(self, process: Process, fault: Fault, storage: Storage, path: str, *, may_wait: bool) -> None:
        """Something happens around a call of a process."""
        run = run_of(path)
        self.tell(f"{process.name} meets at {path}: {fault.kind}")
        if fault.kind is Kind.STOP:
            process.stop.set()
        elif fault.kind is Kind.JUMPED and may_wait:
            self.clock_offset += 3600.0 if fault.share < 0.5 else -3600.0
        elif fault.kind in {Kind.STALLED, Kind.TAKEN, Kind.OVERSLEPT}:
            self._stall(fault, storage, may_wait=may_wait)
        elif run is not None and fault.kind in {Kind.GONE, Kind.FOREIGN, Kind.CHANGED}:
            with self.nature():
                self.nature_strikes(fault.kind, run, storage, fault.share)

    def _stall(self, fault: Fault, storage: Storage, *, may_wait: bool) -> None:
        if not may_wait:
            self.pass_time(0.4 * LEASE_SECONDS * fault.share)
        elif fault.kind is Kind.STALLED:
            self.pass_time(LEASE_SECONDS * 2 * fault.share)
        else:
            self.pass_time(LEASE_SECONDS * 1.1)
            if len(self._frames) < _DEPTH + 1:
                self.meanwhile(storage.name)

    def nature_strikes(self, kind: Kind, run: int, storage: Storage, share: float) -> None:
        """Something that no process of ours does."""
        self.tell(f"nature, at {storage.name}, {lfn_of(run)}: {kind}")
        if kind is Kind.GONE:
            storage.files.pop(lfn_of(run), None)
        elif kind is Kind.FOREIGN:
            self.plant(run, storage, share)
        elif kind is Kind.CHANGED:
            self.daq.change_part(run, share)

    def sent(self, path: str, data: bytes) -> None:
        """All of a bundle was sent."""
        self.ledger.sent(path, data)

    def lied(self, storage: Storage, path: str) -> None:
        """A storage said something untrue of a file."""
        if path in storage.files:
            self.ledger.note_lie(storage.files[path])

    # Judging.

    def judge(self, process: Process, touched: list[Touched], connection: sqlite3.Connection) -> None:
        """Hold a transaction against the rules of states, claims and proofs."""
        frame = self._frames[-1]
        for one in touched:
            if one.what == "run":
                if one.before != one.after and (one.before, one.after) not in _RUN_MOVES:
                    self.ledger.violated(f"run {one.id} went from {one.before} to {one.after}")
                if one.after == "safe" != one.before:
                    # The catalogue's word, so that what nature destroyed since does not count.
                    lacking = self.ledger.lacking(one.id, process.config.raw_policy(), since=0)
                    if lacking:
                        self.ledger.violated(f"run {one.id} is said to be safe, but {lacking}")
            elif one.what == "claim":
                if (one.after == process.name and one.before != one.after) or (one.after and not frame.claim):
                    frame.claim = (one.id, one.fence or 0)
            elif one.what == "replica":
                self._judge_replica(frame, one, connection)

    def committed(self, process: Process, touched: list[Touched]) -> None:
        """Note what a run was when it was planned."""
        for one in touched:
            if one.what == "plan":
                names = [part["name"] for part in json.loads(one.after or "{}")["parts"]]
                self.tell(f"{process.name} plans {lfn_of(one.id)} of {names}")
                self.ledger.plan(one.id, names)
                self.daq.note_times(one.id, names)

    def _judge_replica(self, frame: Frame, touched: Touched, connection: sqlite3.Connection) -> None:
        row = connection.execute(
            "SELECT replica.endpoint, replica.problem, replica.hint, bundle.run, claim.owner, claim.fence FROM replica "
            "JOIN bundle ON bundle.id = replica.bundle_id LEFT JOIN claim ON claim.replica_id = replica.id "
            "WHERE replica.id = ?",
            (touched.id,),
        ).fetchone()
        what = f"run {row['run']} at {row['endpoint']}"
        if frame.fenced and ((touched.id, row["fence"]) != frame.claim or row["owner"] != frame.process.name):
            self.ledger.violated(f"{what} was changed by {frame.process.name}, which lost its claim")
        problem = row["problem"] or ""
        if problem.startswith("unexpected ") and MADE_UP not in problem:
            self.ledger.violated(f"{what}: {problem}")
        if touched.after == "quarantined" and not (problem and row["hint"]):
            self.ledger.violated(f"{what} needs a person, and nobody says why")
        self.tell(f"{frame.process.name} records {lfn_of(row['run'])} at {row['endpoint']}: {touched.after} {problem}")
        if touched.before == touched.after:
            return
        if (touched.before, touched.after) not in _REPLICA_MOVES:
            self.ledger.violated(f"{what} went from {touched.before} to {touched.after}")
        if touched.after in {"verified", "archived"}:
            kind = EndpointKind.TAPE if touched.after == "archived" else None
            self.ledger.proven(row["run"], row["endpoint"], kind, since=frame.since)

    def check(self) -> None:
        """Raise if a rule was broken; look at the run directory and at what is said of what needs a person."""
        found = {entry.name: entry.path for entry in os.scandir(self.runs)}
        for name in set(self.ledger.local) - set(found):
            self.ledger.violated(f"{name} is gone from the run directory")
        if self.ledger.violations:
            self.fail("; ".join(self.ledger.violations))

    def fail(self, what: str) -> NoReturn:
        """Say what is wrong, and what happened lately to the runs that it speaks of."""
        self.failed = True
        runs = set(re.findall(r"\b0?(4\d{3})\b", what))
        story = [line for line in self._story if not runs or any(run in line for run in runs)]
        raise AssertionError("\n".join([what, *story[-_SHOWN:]]))

    # Acting.

    def act(
        self,
        process: Process,
        what: str,
        script: Script,
        action: Callable[[], object],
        *,
        fenced: bool,
        lane: int | None = None,
    ) -> bool:
        """Have a process do something, with faults. Returns whether it said that there was something to do."""
        self.steps += 1
        self.count(what)
        # What found nothing to strike waits for it, but not for ever.
        process.script = [*process.script, *script][-_WAITING:]
        self.ledger.now += 1
        self._frames.append(Frame(process, what, self.ledger.now, fenced, lane))
        depth = len(self._frames)
        try:
            return bool(action())
        except CrashError:
            self.count("crashes")
            return True
        except StoppedError:
            return True
        except MoverError as error:
            if fenced:
                self.ledger.violated(f"{what} ended the lane: {type(error).__name__}: {error.message}")
            return True
        except Exception as error:
            if MADE_UP not in str(error):
                self.ledger.violated(f"{what} failed: {type(error).__name__}: {error}")
            return True
        finally:
            assert len(self._frames) == depth
            self._frames.pop()
            if process.stop.is_set() or not process.alive:
                self.retire(process)

    def retire(self, process: Process) -> None:
        """It is no more; another one takes its place when it is needed."""
        process.end()
        for role in [role for role, one in self.processes.items() if one is process]:
            del self.processes[role]
        if all(frame.process is not process for frame in self._frames):
            process.database.close()

    def process(self, role: str, *, local: bool = True) -> Process:
        """The process that has this role, started if there is none."""
        if role not in self.processes:
            self._numbers += 1
            host = "here" if local else "elsewhere"
            name = f"{host}/boot/pid:[1]/{self._numbers}/1"
            self.processes[role] = Process(name, self, self.config, local)
        return self.processes[role]

    def busy(self, process: Process, lane: int | None = None) -> bool:
        """Whether it is in the middle of something, or this lane of it is."""
        return any(frame.process is process and lane in {None, frame.lane} for frame in self._frames)

    def tell(self, what: str) -> None:
        """For the story of a failure."""
        self._story.append(f"{self.steps} {self.now():%d %H:%M:%S} {'  ' * len(self._frames)}{what}")

    def count(self, what: str) -> None:
        """Remember that it happened."""
        self.happened[what] = self.happened.get(what, 0) + 1

    def _this_process(self) -> str:
        return self._frames[-1].process.name

    def _is_dead(self, owner: str) -> bool:
        return owner.startswith("here/") and all(one.name != owner for one in self.processes.values())

    def _unlink(self, real: Callable[..., None]) -> Callable[..., None]:
        def unlink(path: str, *, dir_fd: int | None = None) -> None:
            if self._frames and dir_fd is not None:
                frame = self._frames[-1]
                frame.process.strike_at(Moment.UNLINK)
                if path in self.ledger.local:
                    self.ledger.unlinked(path, frame.process.config.raw_policy(), since=frame.since)
            real(path, dir_fd=dir_fd)

        return unlink

    # Nature.

    def plant(self, run: int, storage: Storage, share: float) -> None:
        """Somebody else's file appears under a run's final name, over whatever is there."""
        content = b"not yours " * int(1 + share * 4000)
        path = lfn_of(run)
        stored = _Stored(bytearray(content), self.now())
        storage.files[path] = stored
        self.ledger.note_foreign(stored, excused=self._looks_like_ours(run, storage.name, len(content)))

    def _looks_like_ours(self, run: int, endpoint: str, size_bytes: int) -> bool:
        """Whether an attempt is under way under that very name, so that it could be a partial file of ours."""
        with sqlite3.connect(self.config.catalogue) as connection:
            rows = connection.execute(
                "SELECT 1 FROM replica JOIN bundle ON bundle.id = replica.bundle_id "
                "LEFT JOIN claim ON claim.replica_id = replica.id "
                "WHERE bundle.run = ? AND replica.endpoint = ? AND replica.endpoint LIKE 'tape%' "
                "AND (claim.owner NOTNULL OR ? <= bundle.size_bytes) "
                "AND (replica.intent_path = bundle.lfn OR (replica.state = 'wanted' AND claim.owner NOTNULL))",
                (run, endpoint, size_bytes),
            ).fetchall()
        connection.close()
        return bool(rows)

    def verify_custody(self) -> None:
        """The chain holds."""
        custody.verify(self.process("person").database)

    def widen_policy(self) -> None:
        """From now on a second disk is wanted; engines know it when they are started again."""
        self.config = configure(self._base, self.runs, tuple(name for name, *_ in PLACES))
