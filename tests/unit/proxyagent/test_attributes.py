"""The store of attribute certificates: what is due when, who waits for what, and what is forgotten."""

import threading
from datetime import timedelta

import pytest

from proxyagent.attributes import AttributeStore, Want
from proxyagent.errors import ProxyAgentError, VomsError, VomsRefusedError
from proxyagent.voms.ac import AttributeCertificate
from tests.movable_clock import MovableClock

HOUR = timedelta(hours=1)
WANT = Want("mover", "mice", ("/mice/Role=production",))
OTHER = Want("reco", "mice", ("/mice/Role=reco",))


def granted(clock: MovableClock, lifetime: timedelta, want: Want = WANT) -> AttributeCertificate:
    now = clock.now()
    return AttributeCertificate(want.vo, want.fqans, now, now + lifetime, b"der", "/CN=voms")


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
def store(clock: MovableClock) -> AttributeStore:
    return AttributeStore((WANT, OTHER), clock, lambda name: name == "mover")


def test_only_what_has_a_session_is_due_and_only_once_at_a_time(store: AttributeStore, clock: MovableClock) -> None:
    assert store.take_due(wait_seconds=0) == (WANT,)
    assert store.take_due(wait_seconds=0) == ()
    # A fetcher that died with it in its hands is no obstacle for long.
    clock.advance(timedelta(minutes=2))
    assert store.take_due(wait_seconds=0) == (WANT,)


def test_it_is_fetched_again_past_the_middle_of_the_life_that_was_granted(
    store: AttributeStore, clock: MovableClock
) -> None:
    for lifetime in (12 * HOUR, HOUR, 24 * HOUR):
        assert store.take_due(wait_seconds=0) == (WANT,)
        store.deliver(WANT, granted(clock, lifetime))
        assert store.get(WANT, wait_seconds=0).not_after == clock.now() + lifetime
        clock.advance(lifetime * 0.49)
        assert store.take_due(wait_seconds=0) == ()
        clock.advance(lifetime * 0.12)


def test_failures_are_tried_again_ever_more_rarely_but_for_ever(store: AttributeStore, clock: MovableClock) -> None:
    pauses = []
    for _ in range(12):
        assert store.take_due(wait_seconds=0) == (WANT,)
        store.failed(WANT, VomsError("down", hint="wait"))
        start = clock.boot_seconds()
        while not store.take_due(wait_seconds=0):
            clock.advance(timedelta(seconds=1))
        pauses.append(round(clock.boot_seconds() - start))
        clock.advance(timedelta(minutes=2))
    assert pauses[:4] == [10, 20, 40, 80]
    assert pauses[-1] == max(pauses) == 600


def test_a_success_ends_the_failures(store: AttributeStore, clock: MovableClock) -> None:
    for _ in range(4):
        store.failed(WANT, VomsError("down", hint="wait"))
    store.deliver(WANT, granted(clock, HOUR))
    (state,) = store.states("mover")
    assert state.problem is None
    store.failed(WANT, VomsError("down", hint="wait"))
    clock.advance(timedelta(seconds=10))
    assert store.take_due(wait_seconds=0) == (WANT,)


def test_whoever_asks_wakes_a_fetcher_that_has_not_noticed_that_time_passed(
    store: AttributeStore, clock: MovableClock
) -> None:
    store.deliver(WANT, granted(clock, HOUR))
    found: list[tuple[Want, ...]] = []
    fetching = threading.Thread(target=lambda: found.append(store.take_due(wait_seconds=3600)), daemon=True)
    fetching.start()
    clock.advance(HOUR)
    asking = threading.Thread(target=lambda: store.get(WANT, wait_seconds=3600), daemon=True)
    asking.start()
    fetching.join(30)
    assert found == [(WANT,)]
    store.deliver(WANT, granted(clock, HOUR))
    asking.join(30)
    assert not asking.is_alive()


def test_one_that_is_about_to_end_is_not_handed_out(store: AttributeStore, clock: MovableClock) -> None:
    store.deliver(WANT, granted(clock, HOUR))
    clock.advance(HOUR - timedelta(seconds=61))
    assert store.get(WANT, wait_seconds=0)
    clock.advance(timedelta(seconds=1))
    with pytest.raises(VomsError):
        store.get(WANT, wait_seconds=0)


def test_a_failure_is_told_at_once_unless_an_earlier_one_still_holds(
    store: AttributeStore, clock: MovableClock
) -> None:
    store.failed(WANT, VomsRefusedError("not a member", hint="join the VO"))
    told: list[ProxyAgentError] = []

    def ask() -> None:
        with pytest.raises(VomsRefusedError, match="not a member") as caught:
            store.get(WANT, wait_seconds=3600)
        told.append(caught.value)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(30)
    assert [error.hint for error in told] == ["join the VO"]
    store.deliver(WANT, granted(clock, HOUR))
    store.failed(WANT, VomsError("down", hint="wait"))
    assert store.get(WANT, wait_seconds=0).fqans == WANT.fqans
    clock.advance(HOUR)
    with pytest.raises(VomsError, match="down"):
        store.get(WANT, wait_seconds=60)


def test_whoever_waits_gets_it_when_it_comes(store: AttributeStore, clock: MovableClock) -> None:
    found: list[AttributeCertificate] = []
    waiting = threading.Thread(target=lambda: found.append(store.get(WANT, wait_seconds=60)))
    waiting.start()
    store.deliver(WANT, granted(clock, HOUR))
    waiting.join(60)
    assert [each.fqans for each in found] == [WANT.fqans]
    with pytest.raises(VomsError, match="yet"):
        store.get(OTHER, wait_seconds=0)


def test_a_fetcher_that_waits_is_woken_by_work_and_by_the_end(clock: MovableClock) -> None:
    sessions: set[str] = set()
    store = AttributeStore((WANT,), clock, sessions.__contains__)
    found: list[tuple[Want, ...]] = []
    waiting = threading.Thread(target=lambda: found.append(store.take_due(wait_seconds=60)))
    waiting.start()
    sessions.add("mover")
    store.look()
    waiting.join(60)
    assert found == [(WANT,)]
    waiting = threading.Thread(target=lambda: found.append(store.take_due(wait_seconds=600)))
    waiting.start()
    store.close()
    waiting.join(60)
    assert found == [(WANT,), ()]


def test_what_is_forgotten_is_fetched_again(store: AttributeStore, clock: MovableClock) -> None:
    store.deliver(WANT, granted(clock, HOUR))
    store.deliver(OTHER, granted(clock, HOUR, OTHER))
    store.forget("mover")
    with pytest.raises(VomsError):
        store.get(WANT, wait_seconds=0)
    assert store.get(OTHER, wait_seconds=0).fqans == OTHER.fqans
    assert store.take_due(wait_seconds=0) == (WANT,)
    store.deliver(WANT, granted(clock, HOUR))
    store.refetch()
    assert store.take_due(wait_seconds=0) == (WANT,)
    assert store.get(WANT, wait_seconds=0)
