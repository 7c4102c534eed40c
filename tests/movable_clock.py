"""A clock that the test moves: a double of the kernel's."""

from datetime import UTC, datetime, timedelta


class MovableClock:
    """Starts at the real time; `advance` lets time pass, `step` sets the time of day only."""

    def __init__(self) -> None:
        self._now = datetime.now(UTC)
        self._boot_seconds = 1000.0

    def now(self) -> datetime:
        return self._now

    def boot_seconds(self) -> float:
        return self._boot_seconds

    def advance(self, time: timedelta) -> None:
        self._now += time
        self._boot_seconds += time.total_seconds()

    def step(self, time: timedelta) -> None:
        self._now += time
