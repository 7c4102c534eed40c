"""A circuit breaker for an endpoint: after failures in a row it is left alone, but for one probe from time to time."""

import threading
from datetime import datetime, timedelta
from enum import Enum, auto

from mover.config import EngineConfig


class Admission(Enum):
    """As what a piece of work was admitted."""

    WORK = auto()
    PROBE = auto()


class Breaker:
    """Shared by the lanes of one endpoint; any thread may call anything.

    Closed: all work is admitted. Open: none is, until `probe_at`. Half-open: one piece of work is admitted, and its
    outcome decides. Each probe that fails doubles the pause, up to the longest one.
    """

    def __init__(self, limits: EngineConfig) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._failures = 0
        self._probe_at: datetime | None = None
        self._probing = False

    @property
    def failures(self) -> int:
        """Failures in a row."""
        return self._failures

    @property
    def probe_at(self) -> datetime | None:
        """When the next probe is due (UTC, aware); None while it is closed."""
        return self._probe_at

    def admit(self, now: datetime) -> Admission | None:
        """Whether work may begin. Whoever is admitted says afterwards how it went, by one of the other methods."""
        with self._lock:
            if self._probe_at is None:
                return Admission.WORK
            # A time that is farther off than any pause was set by a clock that was wrong.
            farthest = now + timedelta(seconds=self._limits.longest_probe_seconds)
            if self._probing or now < self._probe_at <= farthest:
                return None
            self._probing = True
            return Admission.PROBE

    def unused(self, admitted: Admission) -> None:
        """There was nothing to do, or its outcome says nothing of the endpoint."""
        with self._lock:
            if admitted is Admission.PROBE:
                self._probing = False

    def succeeded(self) -> bool:
        """The endpoint did what it was asked. Returns whether that closed the breaker."""
        with self._lock:
            was_open = self._probe_at is not None
            self._failures, self._probe_at, self._probing = 0, None, False
            return was_open

    def failed(self, now: datetime, admitted: Admission) -> bool:
        """The endpoint did not answer. Returns whether that opened the breaker, anew or for longer."""
        limits = self._limits
        with self._lock:
            if admitted is Admission.PROBE:
                self._probing = False
            elif self._probe_at is not None:
                # What began before it opened, and ends now, is no news: all streams of a sick endpoint end so.
                return False
            self._failures += 1
            beyond = self._failures - limits.failures_before_pause
            if beyond < 0:
                return False
            pause = min(limits.first_probe_seconds * 2 ** min(beyond, 20), limits.longest_probe_seconds)
            self._probe_at = now + timedelta(seconds=pause)
            return True
