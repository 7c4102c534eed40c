"""A lane: what is tried again and when, what needs a person, whose turn it is, and leases kept, lost and let go."""

import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from mover.errors import (
    AccessDeniedError,
    CatalogueError,
    CredentialError,
    EndpointUnavailableError,
    ForeignFileError,
    RunChangedError,
    StorageError,
)
from mover.lane import Progress
from mover.model import ChecksumKind, StoredFile
from mover.ports import MayRemove, always
from mover.states import ReplicaEvent, ReplicaState
from mover.storage.memory import Call, MemoryEndpoint
from tests.unit.mover.bench import LFN, NOW, RUN, Bench
from tests.unit.mover.running import (
    SettableClock,
    StopWhenIdle,
    add_run,
    claim_as_rival,
    events,
    replica,
    tune,
    work,
)

LATER_RUN = RUN + 1


class DisturbedEndpoint(MemoryEndpoint):
    """Something happens in every upload, once its first chunk is taken."""

    def __init__(self, happens: Callable[[], None], *, name: str = "tape") -> None:
        super().__init__(name=name, tape=name == "tape")
        self._happens = happens

    def upload(self, path: str, chunks: Iterable[bytes], size_bytes: int, *, may_remove: MayRemove = always) -> None:
        """Store `chunks`, disturbed."""
        super().upload(path, self._disturbed(chunks), size_bytes, may_remove=may_remove)

    def _disturbed(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            yield chunk
            self._happens()


class FailingEndpoint(MemoryEndpoint):
    """Every look fails as long as `error` is set; `looks` counts them."""

    def __init__(self, error: Exception | None = None, *, meanwhile: Callable[[], object] = lambda: None) -> None:
        super().__init__(name="tape", tape=True)
        self.error = error
        self.looks = 0
        self._meanwhile = meanwhile

    def stat(self, path: str) -> StoredFile | None:
        """What is there, if that can be told."""
        self.looks += 1
        if error := self.error:
            self._meanwhile()
            raise error
        return super().stat(path)


class RottenEndpoint(MemoryEndpoint):
    """Every upload comes out with one bit changed."""

    def upload(self, path: str, chunks: Iterable[bytes], size_bytes: int, *, may_remove: MayRemove = always) -> None:
        """Store nearly that."""
        super().upload(path, chunks, size_bytes, may_remove=may_remove)
        self.corrupt(path)


class SlowEndpoint(MemoryEndpoint):
    """An upload takes more than a lease, and another engine looks for work at its end."""

    def __init__(self, bench: Bench, clock: SettableClock) -> None:
        super().__init__(name="tape", tape=True)
        self._bench = bench
        self._clock = clock
        self.rival_got: list[object] = []

    def upload(self, path: str, chunks: Iterable[bytes], size_bytes: int, *, may_remove: MayRemove = always) -> None:
        """Take 0.4 leases to the last chunk, and 0.8 more to the end."""
        lease = self._bench.config.engine.lease_seconds
        super().upload(path, self._slow(chunks, 0.4 * lease), size_bytes, may_remove=may_remove)
        self._clock.advance(0.8 * lease)
        self.rival_got.append(claim_as_rival(self._bench, "tape", self._clock.now()))

    def _slow(self, chunks: Iterable[bytes], seconds: float) -> Iterator[bytes]:
        for chunk in chunks:
            yield chunk
            self._clock.advance(seconds)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A closed run that is wanted everywhere."""
    bench = Bench(tmp_path)
    bench.close_run()
    return bench


def _seconds_to_wait(bench: Bench, clock: SettableClock, run: int = RUN) -> float:
    return (replica(bench, run, "tape").next_attempt_at - clock.now()).total_seconds()


def test_a_lane_takes_a_replica_all_the_way_and_shows_its_progress(bench: Bench, clock: SettableClock) -> None:
    for endpoint, last in (("tape", ReplicaState.ARCHIVED), ("disk", ReplicaState.VERIFIED)):
        seen: list[Progress] = []
        assert work(bench, endpoint, clock, observe=seen.append).failure is None
        assert bench.state(endpoint) is last
        assert {(one.run, one.endpoint) for one in seen} == {(RUN, endpoint)}
        (total,) = {one.bytes_total for one in seen}
        assert list(dict.fromkeys(one.state for one in seen)) == [*ReplicaState][: [*ReplicaState].index(last) + 1]
        sending = [one.bytes_done for one in seen if one.state is ReplicaState.WANTED]
        assert (sending[0], sending[-1]) == (0, total)
        assert (seen[-1].state, seen[-1].bytes_done) == (last, total)


def test_the_wait_after_a_failure_grows_up_to_the_longest(bench: Bench, clock: SettableClock) -> None:
    tune(bench, "engine", first_retry_seconds=10.0, longest_retry_seconds=65.0)
    tape = bench.endpoints["tape"] = FailingEndpoint(EndpointUnavailableError("down", hint="wait"))
    waits = []
    for attempt in range(1, 7):
        assert work(bench, "tape", clock).failure is None
        waits.append(_seconds_to_wait(bench, clock))
        clock.advance(waits[-1] - 1)
        work(bench, "tape", clock)
        assert tape.looks == attempt, "tried before it was due"
        clock.advance(1)
    assert waits == [10, 20, 40, 65, 65, 65]
    assert _problem(bench) == ("down", "wait")
    tape.error = None
    work(bench, "tape", clock)
    assert bench.state("tape") is ReplicaState.ARCHIVED
    assert (replica(bench, RUN, "tape").failures, *_problem(bench)) == (0, None, None)


@pytest.mark.parametrize(
    ("error", "limit"),
    [
        (AccessDeniedError("denied", hint="ask"), "longest_retry_seconds"),
        (EndpointUnavailableError("down", hint="wait"), "longest_probe_seconds"),
    ],
)
def test_what_failed_thousands_of_times_still_waits_the_longest(
    bench: Bench, clock: SettableClock, error: StorageError, limit: str
) -> None:
    with bench.catalogue.transaction() as connection:
        connection.execute("UPDATE replica SET failures = 5000")
    bench.endpoints["tape"] = FailingEndpoint(error)
    assert work(bench, "tape", clock).failure is None
    assert _seconds_to_wait(bench, clock) == getattr(bench.config.engine, limit)


@pytest.mark.parametrize("allowed", [1, 3])
def test_a_bundle_that_is_stored_wrongly_again_and_again_needs_a_person(
    bench: Bench, clock: SettableClock, allowed: int
) -> None:
    tune(bench, "engine", rejections_before_quarantine=allowed)
    bench.endpoints["tape"] = RottenEndpoint(name="tape", tape=True)
    for _ in range(allowed):
        assert bench.state("tape") is ReplicaState.WANTED
        assert work(bench, "tape", clock).failure is None
        clock.advance(bench.config.engine.longest_retry_seconds)
    assert bench.state("tape") is ReplicaState.QUARANTINED
    assert "adler32" in str(_problem(bench)[0])
    work(bench, "tape", clock)
    assert events(bench, RUN).count(ReplicaEvent.UPLOADED) == allowed
    assert bench.endpoints["tape"].list("MICE") == []


def test_a_place_that_is_down_is_not_given_up_for_what_it_stored_wrongly_before(
    bench: Bench, clock: SettableClock
) -> None:
    bench.endpoints["tape"] = RottenEndpoint(name="tape", tape=True)
    work(bench, "tape", clock)
    clock.advance(bench.config.engine.longest_retry_seconds)
    tune(bench, "engine", rejections_before_quarantine=1)
    bench.endpoints["tape"] = FailingEndpoint(EndpointUnavailableError("down", hint="wait"))
    work(bench, "tape", clock)
    left = replica(bench, RUN, "tape")
    assert (left.state, left.rejections, left.problem) == (ReplicaState.WANTED, 1, "down")


@pytest.mark.parametrize("error", [ForeignFileError("theirs", hint="look"), RunChangedError("changed", hint="look")])
def test_what_cannot_be_mended_by_waiting_needs_a_person_and_holds_up_nothing_else(
    bench: Bench, clock: SettableClock, error: StorageError | RunChangedError
) -> None:
    add_run(bench, LATER_RUN)
    bench.endpoints["tape"].fail_next(error, "stat")
    assert work(bench, "tape", clock).failure is None
    assert (bench.state("tape"), *_problem(bench)) == (ReplicaState.QUARANTINED, error.message, "look")
    assert replica(bench, LATER_RUN, "tape").state is ReplicaState.ARCHIVED


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("odd answer"), "unexpected ValueError: odd answer"),
        (MemoryError(), "unexpected MemoryError: "),
        (AccessDeniedError("denied", hint="ask"), "denied"),
        (CredentialError("no Grid proxy", hint="plug the dongle"), "no Grid proxy"),
    ],
)
@pytest.mark.parametrize("call", ["stat", "upload", "checksum", "on_tape"])
def test_any_other_error_is_tried_again_later_and_holds_up_nothing_else(
    bench: Bench, clock: SettableClock, error: Exception, message: str, call: Call
) -> None:
    add_run(bench, LATER_RUN)
    bench.endpoints["tape"].fail_next(error, call)
    assert work(bench, "tape", clock).failure is None
    assert _problem(bench)[0] == message
    assert _problem(bench)[1]
    assert _seconds_to_wait(bench, clock) == bench.config.engine.first_retry_seconds
    assert replica(bench, LATER_RUN, "tape").state is ReplicaState.ARCHIVED
    clock.advance(bench.config.engine.first_retry_seconds)
    work(bench, "tape", clock)
    assert bench.state("tape") is ReplicaState.ARCHIVED


def test_an_error_with_bytes_that_are_no_text_is_recorded_too(
    bench: Bench, clock: SettableClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # pytest-xdist cannot carry such a log from a worker to the terminal.
    monkeypatch.setattr(logging.getLogger("mover"), "propagate", False)
    bench.endpoints["tape"].fail_next(ValueError(b"odd \xff".decode(errors="surrogateescape")), "stat")
    assert work(bench, "tape", clock).failure is None
    assert "unexpected ValueError: odd" in str(_problem(bench)[0])


def test_polling_old_runs_never_keeps_a_new_one_from_its_upload(bench: Bench, clock: SettableClock) -> None:
    """A look at the tape takes longer than the time between two looks, so one of the old runs is always due."""
    tune(bench, "endpoint", archive_poll_seconds=10.0)
    add_run(bench, LATER_RUN)
    tape, polls = bench.endpoints["tape"], 0

    def migrated(_: str) -> bool:
        nonlocal polls
        polls += 1
        clock.advance(15)
        if polls == 1:
            add_run(bench, LATER_RUN + 1, now=clock.now())
        return len(tape.list("MICE")) == 3

    tape.migrated = migrated
    assert work(bench, "tape", clock).failure is None
    assert polls == 1 + 3
    for run in (RUN, LATER_RUN, LATER_RUN + 1):
        assert replica(bench, run, "tape").state is ReplicaState.ARCHIVED


def test_a_clock_that_was_wrong_and_is_put_back_delays_nothing(bench: Bench, clock: SettableClock) -> None:
    clock.time = NOW + timedelta(days=365)
    bench.endpoints["tape"].fail_next(EndpointUnavailableError("down", hint="wait"))
    work(bench, "tape", clock)
    assert replica(bench, RUN, "tape").failures == 1
    clock.time = NOW
    work(bench, "tape", clock)
    assert bench.state("tape") is ReplicaState.ARCHIVED


def test_a_tape_that_is_asked_rarely_is_not_asked_sooner(bench: Bench, clock: SettableClock) -> None:
    """The longest retry is much shorter: what is put off by a poll must not pass for put off by a wrong clock."""
    tune(bench, "engine", first_retry_seconds=1.0, longest_retry_seconds=10.0)
    tune(bench, "endpoint", archive_poll_seconds=86400.0)
    polled: list[str] = []

    def migrated(path: str) -> bool:
        polled.append(path)
        return False

    bench.endpoints["tape"].migrated = migrated
    work(bench, "tape", clock)
    assert polled == [LFN]
    assert _seconds_to_wait(bench, clock) == 86400
    assert (replica(bench, RUN, "tape").failures, *_problem(bench)) == (0, None, None)


def test_a_lease_is_renewed_while_the_upload_goes_on(bench: Bench, clock: SettableClock) -> None:
    tape = bench.endpoints["tape"] = SlowEndpoint(bench, clock)
    assert work(bench, "tape", clock).failure is None
    assert tape.rival_got == [None]
    assert bench.state("tape") is ReplicaState.ARCHIVED


def test_a_lease_outlasts_the_checksum_of_a_large_bundle(bench: Bench, clock: SettableClock) -> None:
    """The longest call of all, and nobody can renew anything while it goes on."""
    hours = 3600.0 * 5
    tune(bench, "endpoint", checksum_timeout_seconds=hours)
    claimed = []

    class ThoroughEndpoint(MemoryEndpoint):
        def checksum(self, path: str, kind: ChecksumKind, *, size_bytes: int = 0) -> str:
            """Take all the time that there is."""
            clock.advance(hours)
            claimed.append(claim_as_rival(bench, "tape", clock.now()))
            return super().checksum(path, kind, size_bytes=size_bytes)

    bench.endpoints["tape"] = ThoroughEndpoint(name="tape", tape=True)
    assert work(bench, "tape", clock).failure is None
    assert bench.state("tape") is ReplicaState.ARCHIVED
    assert claimed
    assert set(claimed) == {None}


def _lose_the_lease(bench: Bench, clock: SettableClock) -> None:
    clock.advance(bench.config.engine.lease_seconds + 1)
    assert claim_as_rival(bench, "tape", clock.now()) is not None


def test_a_lane_whose_lease_was_taken_lets_go_of_the_upload_and_works_on(bench: Bench, clock: SettableClock) -> None:
    lost = 0

    def lose_once() -> None:
        nonlocal lost
        lost += 1
        if lost == 1:
            _lose_the_lease(bench, clock)

    bench.endpoints["tape"] = DisturbedEndpoint(lose_once)
    add_run(bench, LATER_RUN)
    assert work(bench, "tape", clock).failure is None
    left = replica(bench, RUN, "tape")
    assert (left.state, left.failures, left.problem) == (ReplicaState.WANTED, 0, None)
    assert claim_as_rival(bench, "tape", clock.now()) is None, "the rival's claim was freed"
    assert bench.endpoints["tape"].stat(LFN) is not None, "the file may be the rival's by now"
    assert replica(bench, LATER_RUN, "tape").state is ReplicaState.ARCHIVED


@pytest.mark.parametrize(
    "error",
    [EndpointUnavailableError("down", hint="wait"), ForeignFileError("theirs", hint="look"), ValueError("odd answer")],
)
def test_a_failure_after_the_lease_was_taken_is_the_rivals_to_find(
    bench: Bench, clock: SettableClock, error: Exception
) -> None:
    def lose() -> None:
        tape.error = None
        _lose_the_lease(bench, clock)

    tape = bench.endpoints["tape"] = FailingEndpoint(error, meanwhile=lose)
    add_run(bench, LATER_RUN)
    assert work(bench, "tape", clock).failure is None
    left = replica(bench, RUN, "tape")
    assert (left.state, left.failures, left.problem) == (ReplicaState.WANTED, 0, None)
    assert replica(bench, LATER_RUN, "tape").state is ReplicaState.ARCHIVED


def test_to_be_stopped_is_no_failure_and_the_work_is_taken_up_again(bench: Bench, clock: SettableClock) -> None:
    stop = StopWhenIdle()
    bench.endpoints["tape"] = DisturbedEndpoint(stop.set)
    assert work(bench, "tape", clock, stop=stop).failure is None
    left = replica(bench, RUN, "tape")
    assert (left.state, left.failures, left.problem, left.next_attempt_at) == (ReplicaState.WANTED, 0, None, NOW)
    assert bench.endpoints["tape"].list("MICE") == []
    bench.endpoints["tape"] = MemoryEndpoint(name="tape", tape=True)
    work(bench, "tape", clock)
    assert bench.state("tape") is ReplicaState.ARCHIVED


def test_a_catalogue_that_fails_ends_the_lane_with_that_error(bench: Bench, clock: SettableClock) -> None:
    def damage() -> None:
        raw = sqlite3.connect(bench.config.catalogue)
        raw.execute("DROP TABLE member")
        raw.close()

    bench.endpoints["tape"] = DisturbedEndpoint(damage)
    stop = StopWhenIdle()
    lane = work(bench, "tape", clock, stop=stop)
    assert stop.is_set()
    assert isinstance(lane.failure, CatalogueError)
    assert "no such table: member" in lane.failure.message
    assert replica(bench, RUN, "tape").failures == 0


def test_a_lane_that_cannot_open_the_catalogue_says_so(bench: Bench, clock: SettableClock) -> None:
    bench.config = bench.config.model_copy(update={"catalogue": bench.config.catalogue / "no" / "such"})
    lane = work(bench, "tape", clock)
    assert isinstance(lane.failure, CatalogueError)


def _problem(bench: Bench) -> tuple[str | None, str | None]:
    found = replica(bench, RUN, "tape")
    return found.problem, found.hint
