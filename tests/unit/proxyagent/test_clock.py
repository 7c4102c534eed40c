"""Steps of the clock are noticed, slewing is not."""

from datetime import UTC, datetime, timedelta

import pytest

from proxyagent.clock import StepWatch, SystemClock
from tests.movable_clock import MovableClock


def test_the_system_clock_is_utc_and_goes_on() -> None:
    clock = SystemClock()
    assert abs(clock.now() - datetime.now(UTC)) < timedelta(minutes=1)
    assert clock.boot_seconds() <= clock.boot_seconds()


@pytest.mark.parametrize("step", [timedelta(hours=1), timedelta(hours=-1), timedelta(seconds=31)])
def test_a_step_is_told_once(step: timedelta) -> None:
    clock = MovableClock()
    watch = StepWatch(clock)
    clock.advance(timedelta(days=1))
    assert watch.step() == timedelta(0)
    clock.step(step)
    assert abs(watch.step() - step) < timedelta(milliseconds=1)
    assert watch.step() == timedelta(0)


def test_slewing_is_no_step_however_long_it_goes_on() -> None:
    clock = MovableClock()
    watch = StepWatch(clock)
    for _ in range(100):
        clock.advance(timedelta(minutes=1))
        clock.step(timedelta(milliseconds=500))
        assert watch.step() == timedelta(0)
