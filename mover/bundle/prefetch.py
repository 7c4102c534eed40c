"""Run a generator on a thread of its own, a few chunks ahead, so that reading goes on while the consumer sends."""

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from types import TracebackType

_AHEAD_CHUNKS = 3
_LOOK_AT_STOP_SECONDS = 0.1
_WAIT_SECONDS = 1.0
_END_SECONDS = 10.0


class Prefetch:
    """A context manager around `chunks`; iterate over it inside the block. Leaving the block ends the generator.

    An error that `chunks` raises comes out of the iteration, in its place. While there is nothing to give, `waiting` is
    called every second: it may raise to end the wait for a disk that does not answer.
    """

    def __init__(self, chunks: Generator[bytes, None, None], waiting: Callable[[], None] = lambda: None) -> None:
        self._chunks = chunks
        self._waiting = waiting
        self._ahead: queue.Queue[bytes | BaseException | None] = queue.Queue(_AHEAD_CHUNKS)
        self._stop = threading.Event()
        self._producer = threading.Thread(target=self._produce, name="prefetch", daemon=True)

    def __enter__(self) -> "Prefetch":
        self._producer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        # One that hangs in a read of a dead disk is left behind: it holds nothing but its chunk.
        self._producer.join(_END_SECONDS)

    def __iter__(self) -> Iterator[bytes]:
        while (item := self._next()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    def _next(self) -> bytes | BaseException | None:
        while True:
            try:
                return self._ahead.get(timeout=_WAIT_SECONDS)
            except queue.Empty:
                self._waiting()

    def _produce(self) -> None:
        try:
            for chunk in self._chunks:
                if not self._put(chunk):
                    return
            self._put(None)
        except BaseException as error:
            self._put(error)
        finally:
            self._chunks.close()

    def _put(self, item: bytes | BaseException | None) -> bool:
        while not self._stop.is_set():
            try:
                self._ahead.put(item, timeout=_LOOK_AT_STOP_SECONDS)
            except queue.Full:
                continue
            return True
        return False
