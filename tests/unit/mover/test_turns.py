"""Whose turn it is: live runs and backlog, the order of runs, sick endpoints, parallel streams."""

import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager

import pytest

from mover.catalogue.database import Database
from mover.catalogue.endpoints import record_sick, sick_endpoints
from mover.catalogue.replicas import record_intent, release_claim, replicas_of, want_replicas
from mover.catalogue.runs import bundle_of
from mover.errors import AccessDeniedError, CredentialError, EndpointUnavailableError, MoverError
from mover.lane import Gate, Lane, Progress, Surroundings
from mover.model import ChecksumKind, StoredFile
from mover.naming import temporary_path
from mover.pace import Pace
from mover.ports import MayRemove, always
from mover.states import ReplicaState, RunState
from mover.storage.memory import MemoryEndpoint
from tests.unit.mover.bench import LFN, NOW, RUN, Bench
from tests.unit.mover.running import (
    DEADLINE_SECONDS,
    News,
    SettableClock,
    add_run,
    known,
    replica,
    running,
    tune,
    work,
)

LATER = RUN + 1
LATEST = RUN + 2


@pytest.fixture
def bench(bench: Bench) -> Bench:
    """Three runs, closed in an order that is not their numbers'."""
    add_run(bench, LATEST)
    bench.close_run()
    add_run(bench, LATER)
    return bench


class DownEndpoint(MemoryEndpoint):
    """Nothing answers while `error` is set; `asked` are the names that were looked for."""

    def __init__(self, error: MoverError | None) -> None:
        super().__init__(name="tape", tape=True)
        self.error = error
        self.asked: list[str] = []

    def stat(self, path: str) -> StoredFile | None:
        """What is there, if it answers."""
        self.asked.append(path)
        if self.error:
            raise self.error
        return super().stat(path)


class TogetherEndpoint(MemoryEndpoint):
    """An upload ends only when another one is under way."""

    def __init__(self) -> None:
        super().__init__(name="disk")
        self._both = threading.Barrier(2, timeout=DEADLINE_SECONDS)

    def upload(self, path: str, chunks: Iterable[bytes], size_bytes: int, *, may_remove: MayRemove = always) -> None:
        """Wait for the other one."""
        self._both.wait()
        super().upload(path, chunks, size_bytes, may_remove=may_remove)


def _moved(bench: Bench, clock: SettableClock, endpoint: str = "tape") -> list[int]:
    """The runs in the order in which a lane moved them."""
    seen: list[Progress] = []
    assert work(bench, endpoint, clock, observe=seen.append).failure is None
    return list(dict.fromkeys(one.run for one in seen if one.state is ReplicaState.COPIED))


@pytest.mark.parametrize(
    ("order", "runs"), [("oldest-first", [RUN, LATER, LATEST]), ("newest-first", [LATEST, LATER, RUN])]
)
def test_the_order_of_runs_is_a_choice(bench: Bench, clock: SettableClock, order: str, runs: list[int]) -> None:
    tune(bench, "engine", order=order)
    assert _moved(bench, clock) == runs


@pytest.mark.parametrize("order", ["oldest-first", "newest-first"])
def test_live_runs_go_before_backlog(bench: Bench, clock: SettableClock, order: str) -> None:
    tune(bench, "engine", order=order)
    extra = bench.config.places["disk"].model_copy(update={"name": "extra", "url": "davs://e/f"})
    bench.config = bench.config.model_copy(update={"endpoint": (*bench.config.endpoint, extra)})
    bench.endpoints["extra"] = MemoryEndpoint(name="extra")
    for run in (RUN, LATEST):
        bundle = bundle_of(bench.catalogue, run)
        assert bundle is not None
        want_replicas(bench.catalogue, bundle.id, run, bundle.lfn, ["extra"], now=clock.now())
    live = [RUN + 7, RUN + 8, RUN + 9, RUN + 10, RUN + 11]
    for run in live:
        add_run(bench, run)
    moved = _moved(bench, clock, "extra")
    assert set(moved[: len(live)]) == set(live)
    assert set(moved[len(live) :]) == {RUN, LATEST}


def test_a_sick_endpoint_is_left_alone_but_for_one_probe(bench: Bench, clock: SettableClock) -> None:
    tune(bench, "engine", failures_before_pause=2, first_probe_seconds=100.0, first_retry_seconds=1.0)
    tape = DownEndpoint(EndpointUnavailableError("down", hint="wait"))
    bench.endpoints["tape"] = tape
    gate = Gate(bench.config, bench.config.places["tape"])
    work(bench, "tape", clock, gate=gate)
    assert len(tape.asked) == 2
    sick = sick_endpoints(bench.catalogue)["tape"]
    assert (sick.failures, sick.problem, sick.hint) == (2, "down", "wait")
    assert (sick.probe_at - clock.now()).total_seconds() == 100
    clock.advance(99)
    work(bench, "tape", clock, gate=gate)
    assert len(tape.asked) == 2
    assert replica(bench, LATEST, "tape").failures == 0, "a run that was not tried has not failed"
    clock.advance(1)
    work(bench, "tape", clock, gate=gate)
    assert len(tape.asked) == 3
    assert len(set(tape.asked)) == 3, "one file stands for the whole endpoint"
    tape.error = None
    clock.advance(200)
    work(bench, "tape", clock, gate=gate)
    assert sick_endpoints(bench.catalogue) == {}
    assert {replica(bench, run, "tape").state for run in (RUN, LATER, LATEST)} == {ReplicaState.ARCHIVED}


def test_an_endpoint_that_refuses_answers_and_is_not_sick(bench: Bench, clock: SettableClock) -> None:
    tune(bench, "engine", failures_before_pause=1)
    bench.endpoints["tape"] = DownEndpoint(AccessDeniedError("denied", hint="ask"))
    work(bench, "tape", clock)
    assert sick_endpoints(bench.catalogue) == {}
    assert {replica(bench, run, "tape").problem for run in (RUN, LATER, LATEST)} == {"denied"}


def test_a_sick_endpoint_holds_up_no_other(bench: Bench, news: News) -> None:
    tune(bench, "runs", poll_seconds=0.05)
    bench.endpoints["tape"] = DownEndpoint(EndpointUnavailableError("down", hint="wait"))
    with running(bench):
        runs = (RUN, LATER, LATEST)
        news.wait_until(lambda: all(replica(bench, run, "disk").state is ReplicaState.VERIFIED for run in runs))


def test_streams_of_an_endpoint_work_at_the_same_time(bench: Bench, news: News) -> None:
    add_run(bench, LATEST + 1)
    tune(bench, "runs", poll_seconds=0.05)
    tune(bench, "endpoint", streams=2)
    bench.endpoints["disk"] = TogetherEndpoint()
    runs = (RUN, LATER, LATEST, LATEST + 1)
    with running(bench):
        news.wait_until(lambda: all(known(bench.catalogue, run).state is RunState.SAFE for run in runs))
    assert [len([one for one in replicas_of(bench.catalogue, run) if one.failures]) for run in runs] == [0] * 4
    assert LFN in [file.path for file in bench.endpoints["disk"].list("MICE")]


def test_tapes_are_looked_at_while_new_runs_keep_coming(bench: Bench, clock: SettableClock) -> None:
    coming = iter(range(LATEST + 1, LATEST + 20))

    class BusyEndpoint(MemoryEndpoint):
        def upload(
            self, path: str, chunks: Iterable[bytes], size_bytes: int, *, may_remove: MayRemove = always
        ) -> None:
            """By the time that one is uploaded the next has ended."""
            super().upload(path, chunks, size_bytes, may_remove=may_remove)
            if (run := next(coming, None)) is not None:
                clock.advance(1)
                add_run(bench, run, now=clock.now())

    bench.endpoints["tape"] = BusyEndpoint(name="tape", tape=True)
    seen: list[Progress] = []
    assert work(bench, "tape", clock, observe=seen.append).failure is None
    done = [(one.run, one.state) for one in seen]
    assert done.index((RUN, ReplicaState.ARCHIVED)) < done.index((LATEST + 10, ReplicaState.COPIED))


def test_backlog_waits_in_every_turn(bench: Bench, clock: SettableClock) -> None:
    """In the turn of what is due longest, too: it was wanted long before the live ones."""
    with bench.catalogue.transaction() as connection:
        connection.execute(
            "UPDATE replica SET backlog = 1, next_attempt_at = '2000-01-01T00:00:00+00:00' WHERE endpoint = 'disk'"
        )
    live = [RUN + 7, RUN + 8, RUN + 9, RUN + 10, RUN + 11]
    for run in live:
        add_run(bench, run)
    assert _moved(bench, clock, "disk")[: len(live)] == live


def test_an_agent_without_a_session_says_nothing_of_the_endpoint(bench: Bench, clock: SettableClock) -> None:
    tune(bench, "engine", failures_before_pause=2)
    down = EndpointUnavailableError("down", hint="wait")
    for error in (down, CredentialError("no session", hint="plug the dongle"), down):
        bench.endpoints["tape"].fail_next(error, "stat")
    gate = Gate(bench.config, bench.config.places["tape"])
    work(bench, "tape", clock, gate=gate)
    assert sick_endpoints(bench.catalogue)["tape"].failures == 2


def test_what_an_engine_before_found_sick_is_found_out_anew(bench: Bench, news: News) -> None:
    down = EndpointUnavailableError("down", hint="wait")
    record_sick(bench.catalogue, "tape", down, failures=9, probe_at=NOW, now=NOW)
    with running(bench):
        news.wait_until(lambda: known(bench.catalogue, RUN).state is RunState.SAFE)
    assert sick_endpoints(bench.catalogue) == {}


class HeldDatabase(Database):
    """A catalogue that is slow to write what has just been found: `before` comes first."""

    before: Callable[[], None] | None = None

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """As ever, late."""
        if self.before is not None:
            self.before()
        with super().transaction() as connection:
            yield connection


def test_of_two_streams_the_last_to_be_told_is_the_last_that_was_true(bench: Bench, clock: SettableClock) -> None:
    """One fails and opens the breaker; before it has said so, the other, which was at work before, succeeds."""
    tune(bench, "engine", failures_before_pause=1)
    gate = Gate(bench.config, bench.config.places["disk"])
    begun, opened = threading.Event(), threading.Event()

    def until_opened(_: Progress) -> None:
        begun.set()
        assert opened.wait(DEADLINE_SECONDS)

    def lane(observe: Callable[[Progress], None]) -> Lane:
        stop, wake = threading.Event(), threading.Event()
        return Lane(gate, Surroundings(bench.config, bench.open_endpoints, clock, stop, wake, observe))

    def succeed() -> None:
        with closing(Database(bench.config.catalogue)) as database:
            assert lane(until_opened).work_once(database, bench.endpoints)

    other = threading.Thread(target=succeed)
    other.start()
    assert begun.wait(DEADLINE_SECONDS)

    def let_the_other_succeed() -> None:
        if gate.breaker.probe_at is not None:
            database.before = None
            opened.set()
            # It cannot end before us: if it does, it has told of its success before we tell of the failure.
            other.join(0.5)

    bench.endpoints["disk"].fail_next(EndpointUnavailableError("down", hint="wait"), "stat")
    with closing(HeldDatabase(bench.config.catalogue)) as database:
        database.before = let_the_other_succeed
        assert lane(lambda _: None).work_once(database, bench.endpoints)
    opened.set()
    other.join(DEADLINE_SECONDS)
    assert gate.breaker.probe_at is None
    assert sick_endpoints(bench.catalogue) == {}


class CountingPace(Pace):
    """A limit that is never reached, and how much was spent of it."""

    def __init__(self) -> None:
        super().__init__(None)
        self.spent = 0

    def spend(self, size_bytes: int, stop: threading.Event) -> None:
        """As ever, counted."""
        self.spent += size_bytes
        super().spend(size_bytes, stop)


def _paced(bench: Bench, clock: SettableClock, endpoint: str) -> int:
    """How many bytes a lane says went over the line, when it has done what is due."""
    gate = Gate(bench.config, bench.config.places[endpoint])
    gate.pace = pace = CountingPace()
    work(bench, endpoint, clock, gate=gate)
    return pace.spent


def _size(bench: Bench, *runs: int) -> int:
    bundles = [bundle_of(bench.catalogue, run) for run in runs]
    return sum(bundle.size_bytes for bundle in bundles if bundle)


def test_every_byte_that_goes_over_the_line_is_paced(bench: Bench, clock: SettableClock) -> None:
    assert _paced(bench, clock, "disk") == _size(bench, RUN, LATER, LATEST)


def test_what_is_read_back_is_paced_too_and_so_is_what_is_sent_after_it(bench: Bench, clock: SettableClock) -> None:
    disk = bench.endpoints["disk"] = MemoryEndpoint(name="disk", checksums=frozenset[ChecksumKind]())
    attempt = bench.work("disk")
    left = temporary_path(attempt.lfn, 1)
    record_intent(bench.catalogue, attempt.claim, left, now=clock.now())
    release_claim(bench.catalogue, attempt.claim)
    disk.upload(left, [bytes(attempt.bundle.size_bytes)], attempt.bundle.size_bytes)
    # What an attempt left is read back and is wrong; then all are sent, and read back before and after the rename.
    assert _paced(bench, clock, "disk") == attempt.bundle.size_bytes + 3 * _size(bench, RUN, LATER, LATEST)


def test_a_third_party_copy_does_not_use_our_line(bench: Bench, clock: SettableClock) -> None:
    tune(bench, "endpoint", source="tpc")
    assert _paced(bench, clock, "tape") == _size(bench, RUN, LATER, LATEST)
    assert _paced(bench, clock, "disk") == 0
    assert {replica(bench, run, "disk").state for run in (RUN, LATER, LATEST)} == {ReplicaState.VERIFIED}
