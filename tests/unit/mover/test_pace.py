"""The bandwidth limit. How fast it really is, is for bench/: here its waits are counted."""

import threading
import time

import pytest

from mover.pace import Pace

LIMIT = 1_000_000


class CountedStop(threading.Event):
    """Never set; it counts the seconds that it is waited for, and waits for none of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.waited = 0.0
        monkeypatch.setattr(time, "monotonic", lambda: 1000.0 + self.waited)

    def wait(self, timeout: float | None = None) -> bool:
        """Time goes on by that much."""
        assert timeout is not None
        self.waited += timeout
        return self.is_set()


def test_without_a_limit_nothing_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = CountedStop(monkeypatch)
    Pace(None).spend(10**15, stop)
    assert stop.waited == 0


def test_lanes_together_keep_to_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = CountedStop(monkeypatch)
    pace = Pace(LIMIT)
    for _ in range(10):
        pace.spend(2 * LIMIT, stop)
    # What was not used in the second before is saved up, and no more.
    assert stop.waited == pytest.approx(20 - 1)


def test_idle_time_is_not_saved_up(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = CountedStop(monkeypatch)
    pace = Pace(LIMIT)
    pace.spend(LIMIT, stop)
    stop.wait(3600)
    before = stop.waited
    pace.spend(5 * LIMIT, stop)
    assert stop.waited - before == pytest.approx(4)


def test_a_wait_ends_when_the_engine_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = CountedStop(monkeypatch)
    stop.set()
    Pace(LIMIT).spend(10**12, stop)
    assert stop.waited < 2
