"""What workers wait for from tape: noted by them, asked for by the recaller, all together."""

import threading

#: More than anybody can wait for at a time; what is beyond is noted again when its job is looked at again.
_MOST = 10_000


class Recalls:
    """The files that are to be brought online, by endpoint; may be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted: dict[tuple[str, str], None] = {}

    def want(self, endpoint: str, lfn: str) -> None:
        """Note that a file is waited for which is on tape only."""
        with self._lock:
            if len(self._wanted) < _MOST:
                self._wanted[endpoint, lfn] = None

    def take(self) -> list[tuple[str, str]]:
        """What was noted since the last time: endpoint and LFN."""
        with self._lock:
            wanted, self._wanted = list(self._wanted), {}
        return wanted
