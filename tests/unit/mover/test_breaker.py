"""The circuit breaker: when it opens, what it lets through, how it closes."""

from datetime import timedelta

from mover.breaker import Admission, Breaker
from mover.config import EngineConfig
from tests.unit.mover.bench import NOW

LIMITS = EngineConfig(failures_before_pause=3, first_probe_seconds=30, longest_probe_seconds=100)


def _later(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)


def _opened() -> Breaker:
    breaker = Breaker(LIMITS)
    assert [breaker.failed(NOW, Admission.WORK) for _ in range(3)] == [False, False, True]
    return breaker


def test_it_opens_after_failures_in_a_row_only() -> None:
    breaker = Breaker(LIMITS)
    for _ in range(5):
        breaker.failed(NOW, Admission.WORK)
        breaker.failed(NOW, Admission.WORK)
        assert breaker.admit(NOW) is Admission.WORK
        assert not breaker.succeeded()
    assert breaker.probe_at is None


def test_open_it_admits_one_probe_when_the_time_has_come() -> None:
    breaker = _opened()
    assert breaker.probe_at == NOW + _later(30)
    assert breaker.admit(NOW + _later(29)) is None
    assert breaker.admit(NOW + _later(30)) is Admission.PROBE
    assert not breaker.admit(NOW + _later(31)), "a second probe beside the first"


def test_a_probe_that_fails_doubles_the_pause_up_to_the_longest() -> None:
    breaker, now = _opened(), NOW
    for pause in (60, 100, 100):
        assert breaker.probe_at is not None
        now = breaker.probe_at
        assert breaker.admit(now) is Admission.PROBE
        assert breaker.failed(now, Admission.PROBE)
        assert breaker.probe_at == now + _later(pause)
    assert breaker.failures == 6


def test_a_probe_that_succeeds_closes_it() -> None:
    breaker = _opened()
    assert breaker.admit(NOW + _later(30))
    assert breaker.succeeded()
    assert (breaker.failures, breaker.probe_at) == (0, None)
    assert breaker.admit(NOW)


def test_a_probe_without_an_answer_leaves_the_turn_to_the_next() -> None:
    breaker = _opened()
    assert breaker.admit(NOW + _later(30))
    breaker.unused(Admission.PROBE)
    assert breaker.admit(NOW + _later(30)) is Admission.PROBE


def test_what_began_before_it_opened_and_fails_after_is_no_news() -> None:
    breaker = _opened()
    assert not breaker.failed(NOW + _later(10), Admission.WORK)
    assert (breaker.failures, breaker.probe_at) == (3, NOW + _later(30))
    assert breaker.admit(NOW + _later(30)) is Admission.PROBE
    assert not breaker.failed(NOW + _later(31), Admission.WORK)
    breaker.unused(Admission.WORK)
    assert breaker.admit(NOW + _later(32)) is None, "a second probe beside the first"
    assert breaker.failed(NOW + _later(33), Admission.PROBE)
    assert breaker.probe_at == NOW + _later(33 + 60)


def test_what_began_before_it_opened_and_succeeds_after_closes_it() -> None:
    breaker = _opened()
    assert breaker.succeeded()
    assert breaker.admit(NOW) is Admission.WORK


def test_a_clock_that_was_wrong_does_not_keep_it_open() -> None:
    breaker = Breaker(LIMITS)
    for _ in range(3):
        breaker.failed(NOW + timedelta(days=365), Admission.WORK)
    assert breaker.admit(NOW)
