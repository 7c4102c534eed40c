"""The agent's clock: the time of day, the time since boot, and the difference that betrays a step."""

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

SKEW = timedelta(minutes=5)
"""How far other computers' clocks may be off."""

_STEP = timedelta(seconds=30)


class Clock(Protocol):
    """Where the agent takes the time from."""

    def now(self) -> datetime:
        """The time of day (UTC, aware). It may step."""

    def boot_seconds(self) -> float:
        """Seconds that never step and go on while the computer sleeps."""


class SystemClock:
    """The kernel's clocks."""

    def now(self) -> datetime:
        """CLOCK_REALTIME."""
        return datetime.now(UTC)

    def boot_seconds(self) -> float:
        """CLOCK_BOOTTIME."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)


class StepWatch:
    """Notices that the time of day was set: it then differs from the time since boot. For several threads."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._offset = self._measure()

    def step(self) -> timedelta:
        """How far the clock was set forward since the last call; zero if it was only slewed a little."""
        with self._lock:
            offset = self._measure()
            step, self._offset = offset - self._offset, offset
        return step if abs(step) >= _STEP else timedelta(0)

    def _measure(self) -> timedelta:
        return self._clock.now() - datetime.fromtimestamp(self._clock.boot_seconds(), UTC)
