"""A thread for each VO, so that servers that do not answer hold up their own VO only."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from proxyagent.messages import WantedAttributes

_log = logging.getLogger(__name__)

Serve = Callable[[WantedAttributes, int], None]
"""Fetches what is wanted, with a life of so many seconds, and hands it over. It has a deadline of its own."""


class VoWorkers:
    """Serves wants, those of one VO in turn. Its methods may be called from several threads."""

    def __init__(self, serve: Serve, *, max_threads: int) -> None:
        """With more VOs than `max_threads` at once, the others wait."""
        self._serve = serve
        self._max_threads = max_threads
        self._changed = threading.Condition()
        self._queues: dict[str, deque[tuple[WantedAttributes, int]]] = {}
        self._began_seconds: dict[str, float] = {}

    def submit(self, want: WantedAttributes, lifetime_seconds: int) -> None:
        """Have it served; one that is waiting or being served already is not served again.

        Raises:
            RuntimeError: there is no thread to be had. It is served with the next one for which there is.
        """
        with self._changed:
            queue = self._queues.setdefault(want.vo, deque())
            if want not in (each for each, _ in queue):
                queue.append((want, lifetime_seconds))
            self._start()

    def longest_seconds(self) -> float:
        """How long the slowest of those that are served now has been at it; 0 if there is none."""
        with self._changed:
            now = time.monotonic()
            return now - min(self._began_seconds.values(), default=now)

    def wait(self, timeout_seconds: float) -> bool:
        """Wait until all are served; tell whether they are."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._queues, timeout_seconds)

    def _start(self) -> None:
        for vo in self._queues:
            if vo not in self._began_seconds and len(self._began_seconds) < self._max_threads:
                threading.Thread(target=self._work, args=(vo,), name=f"voms-{vo}", daemon=True).start()
                self._began_seconds[vo] = time.monotonic()

    def _work(self, vo: str) -> None:
        while (item := self._next(vo)) is not None:
            try:
                self._serve(*item)
            except Exception as error:
                # The last resort: a bug must not end the fetching for good. The text might hold foreign bytes.
                _log.exception("%s: %s while fetching", vo, type(error).__name__)
            with self._changed:
                self._queues[vo].popleft()

    def _next(self, vo: str) -> tuple[WantedAttributes, int] | None:
        with self._changed:
            if self._queues[vo]:
                self._began_seconds[vo] = time.monotonic()
                return self._queues[vo][0]
            del self._queues[vo], self._began_seconds[vo]
            self._changed.notify_all()
            self._start()
            return None
