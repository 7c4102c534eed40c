"""What the tests of lanes and of the engine share: a clock to set, lanes that end, an engine to watch."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

from mover.catalogue import custody
from mover.catalogue.database import Database
from mover.catalogue.replicas import Claim, ReplicaRecord, claim_next, replicas_of
from mover.catalogue.runs import RunRecord, find_run
from mover.engine import Engine
from mover.lane import Gate, Lane, Progress, Surroundings
from mover.ports import Clock
from mover.states import ReplicaState, RunState
from mover.steps.close import close_run
from tests.unit.mover.bench import NOW, RUN, Bench

#: What no wait of a test may take; only a broken engine comes near.
DEADLINE_SECONDS = 30.0

#: An engine on a machine of which nothing can be known.
RIVAL = "elsewhere/boot/pid:[1]/1/1"


class SettableClock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: datetime = NOW) -> None:
        self.time = now

    def now(self) -> datetime:
        """The moment that was set."""
        return self.time

    def advance(self, seconds: float) -> None:
        """Move on, or back."""
        self.time += timedelta(seconds=seconds)


class StopWhenIdle(threading.Event):
    """A stop event for a lane that is to do what is due, and then to end instead of waiting.

    One that finds no end, because something is due again and again, is stopped too.
    """

    _looks = 0

    def is_set(self) -> bool:
        """Whether to stop; asked by the lane before each claim and with each chunk."""
        self._looks += 1
        return self._looks > 200 or super().is_set()

    def wait(self, timeout: float | None = None) -> bool:  # noqa: ARG002 - the signature is Event's
        """There is nothing to do: stop."""
        self.set()
        return True


def tune(bench: Bench, table: str, **values: object) -> None:
    """Change values of a table of the configuration; in `endpoint`, of every endpoint. They are not validated."""
    now = getattr(bench.config, table)
    if isinstance(now, tuple):
        changed: object = tuple(one.model_copy(update=values) for one in now)
    else:
        changed = now.model_copy(update=values)
    bench.config = bench.config.model_copy(update={table: changed})


def add_run(bench: Bench, run: int, *, now: datetime = NOW) -> None:
    """Write another run of one part and close it, as `mover run close` does."""
    bench.daq.write_run(run, parts=1, part_bytes=5_000)
    close_run(bench.catalogue, bench.config, run, now=now)


def replica(bench: Bench, run: int, endpoint: str) -> ReplicaRecord:
    """What the catalogue knows of the run's replica there."""
    return next(one for one in replicas_of(bench.catalogue, run) if one.endpoint == endpoint)


def known(database: Database, run: int) -> RunRecord:
    """The run, which must be known."""
    record = find_run(database, run)
    assert record is not None
    return record


def events(bench: Bench, run: int) -> list[str]:
    """What custody says happened to the run, oldest first."""
    return [record.event for record in custody.records(bench.catalogue, run)]


def claim_as_rival(bench: Bench, endpoint: str, now: datetime) -> Claim | None:
    """What another engine would get."""
    lease = timedelta(seconds=bench.config.engine.lease_seconds)
    states = [ReplicaState.WANTED, ReplicaState.COPIED, ReplicaState.VERIFIED]
    return claim_next(bench.catalogue, endpoint, states, owner=RIVAL, lease=lease, now=now)


def work(
    bench: Bench,
    endpoint: str,
    clock: Clock,
    *,
    stop: threading.Event | None = None,
    observe: Callable[[Progress], None] = lambda _: None,
    gate: Gate | None = None,
) -> Lane:
    """Have a lane do, on this thread, all that is due at its endpoint; the lane as it ended."""
    around = Surroundings(bench.config, bench.open_endpoints, clock, stop or StopWhenIdle(), threading.Event(), observe)
    lane = Lane(gate or Gate(bench.config, bench.config.places[endpoint]), around)
    lane.run()
    assert around.wake.is_set()
    return lane


def marker_of(bench: Bench, run: int = RUN) -> Path:
    """The run's end-of-run marker."""
    return bench.config.runs.directory / f"{run:05d}.end"


class News(logging.Handler):
    """What the engine logs. Every fact is logged after its commit: that is when to look at the catalogue again."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.messages: list[str] = []
        self._told = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message and wake whoever waits."""
        with self._told:
            self.messages.append(record.getMessage())
            self._told.notify_all()

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition` holds, looking once for every message."""
        with self._told:
            assert self._told.wait_for(condition, DEADLINE_SECONDS), "\n".join(
                ["it never came to that:", *self.messages]
            )

    def count(self, text: str) -> int:
        """How many messages have `text` in them."""
        return sum(text in message for message in self.messages)


class RunningEngine:
    """An engine on a thread of its own."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait for its end, which must come; raise what it ended with."""
        self._thread.join(DEADLINE_SECONDS)
        assert not self._thread.is_alive(), "the engine does not end"
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            self.engine.run()
        except BaseException as error:
            self.error = error


@contextmanager
def running(
    bench: Bench, clock: Clock | None = None, *, observe: Callable[[Progress], None] = lambda _: None
) -> Iterator[RunningEngine]:
    """An engine on the bench's catalogue and endpoints; at the end of the block it is stopped and must end well."""
    engine = RunningEngine(Engine(bench.config, bench.open_endpoints, clock or SettableClock(), observe=observe))
    try:
        yield engine
    finally:
        engine.engine.stop()
    engine.wait()


LATER_RUN = RUN + 1


def is_in(bench: Bench, run: int, state: RunState) -> Callable[[], bool]:
    """A condition to wait for: the run is in that state."""

    def holds() -> bool:
        record = find_run(bench.catalogue, run)
        return record is not None and record.state is state

    return holds


def end_later_run(bench: Bench, run: int = LATER_RUN) -> None:
    """Write a run that comes after the bench's, and its marker."""
    bench.daq.write_run(run, parts=1, part_bytes=5_000)
    bench.daq.end_run(run)


def look_once_more(bench: Bench, news: News) -> None:
    """End a later run; once that is noticed, all earlier ones have been looked at again."""
    end_later_run(bench)
    news.wait_until(is_in(bench, LATER_RUN, RunState.PLANNED))
