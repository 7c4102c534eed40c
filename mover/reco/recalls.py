"""What workers wait for from tape: noted by them, asked for by the recaller, all together."""

import threading
from collections.abc import Sequence

#: More than anybody can wait for at a time; what is beyond is noted again when its job is looked at again.
_MOST = 10_000


class Recalls:
    """The files that are to be brought online, and which tapes have each; may be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted: dict[str, tuple[str, ...]] = {}

    def want(self, lfn: str, tapes: Sequence[str]) -> None:
        """Note that a file is waited for which is on tape only, at these endpoints, nearest first."""
        with self._lock:
            if len(self._wanted) < _MOST:
                self._wanted[lfn] = tuple(tapes)

    def take(self) -> dict[str, tuple[str, ...]]:
        """What was noted since the last time: LFN → endpoints."""
        with self._lock:
            wanted, self._wanted = self._wanted, {}
        return wanted
