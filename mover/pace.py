"""A bandwidth limit that the lanes of one endpoint share."""

import threading
import time

_BURST_SECONDS = 1.0
_LOOK_SECONDS = 1.0


class Pace:
    """A token bucket that holds one second's worth. Without a limit it never waits. Any thread may call it."""

    def __init__(self, limit_bytes_per_second: int | None) -> None:
        self._limit = limit_bytes_per_second
        self._lock = threading.Lock()
        #: When what was spent so far will have been earned (time.monotonic, seconds).
        self._earned_at = 0.0

    def spend(self, size_bytes: int, stop: threading.Event) -> None:
        """Wait until so many bytes more may go over the line, or until `stop` is set."""
        if self._limit is None:
            return
        with self._lock:
            now = time.monotonic()
            self._earned_at = max(self._earned_at, now - _BURST_SECONDS) + size_bytes / self._limit
            ready = self._earned_at
        while (wait := ready - time.monotonic()) > 0 and not stop.wait(min(wait, _LOOK_SECONDS)):
            pass
