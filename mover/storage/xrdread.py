"""Reads a file by the XRootD protocol in order, with a few reads under way."""

import queue
from collections.abc import Generator
from functools import partial
from typing import Any

from mover.errors import EndpointUnavailableError
from mover.storage.xrderrors import DOWN_HINT, check

_PIECE_BYTES = 4 << 20
_WINDOW = 4


class Reader:
    """Asks for pieces ahead of those that are taken, `_WINDOW` in all, and gives them out in order."""

    def __init__(self, file: Any, url: str, stall_seconds: int) -> None:
        """`file` is an open file of XrdCl's, which is neither opened nor closed here."""
        self._file = file
        self._url = url
        self._stall_seconds = stall_seconds
        self._under_way: set[int] = set()
        self._arrived: dict[int, bytes] = {}
        self._answers: queue.SimpleQueue[tuple[int, Any, bytes | None]] = queue.SimpleQueue()

    def read(self, offset: int, end: int) -> Generator[bytes, None, None]:
        """The bytes from `offset` to before `end`, which the file is known to have.

        Raises:
            StorageError: a read failed, gave fewer bytes than asked for, or none ended for the stall timeout.
        """
        asked = offset
        try:
            while offset < end:
                while asked < end and len(self._under_way) + len(self._arrived) < _WINDOW:
                    size = min(_PIECE_BYTES, end - asked)
                    self._start(asked, size)
                    asked += size
                piece = self._take(offset)
                if len(piece) != min(_PIECE_BYTES, end - offset):
                    raise EndpointUnavailableError(
                        f"{self._url} ends after {offset + len(piece)} bytes, though {end} were to be read",
                        hint="it is tried again; if it stays so, the file was cut short: ask the site",
                    )
                offset += len(piece)
                yield piece
        finally:
            self._drain()

    def _start(self, offset: int, size_bytes: int) -> None:
        # The last of a full window may take as long as the stall timeout allows for all of them.
        timeout = _WINDOW * self._stall_seconds
        check(self._file.read(offset, size_bytes, timeout, partial(self._answered, offset)), self._url)
        self._under_way.add(offset)

    def _answered(self, offset: int, status: Any, data: bytes | None, _hosts: object) -> None:
        """Called in a thread of XrdCl's."""
        self._answers.put((offset, status, data))

    def _take(self, offset: int) -> bytes:
        while offset not in self._arrived:
            try:
                found, status, data = self._answers.get(timeout=self._stall_seconds)
            except queue.Empty:
                raise EndpointUnavailableError(
                    f"{self._url}: nothing came for {self._stall_seconds} s", hint=DOWN_HINT
                ) from None
            self._under_way.remove(found)
            check(status, self._url)
            self._arrived[found] = data or b""
        return self._arrived.pop(offset)

    def _drain(self) -> None:
        """Wait for what is under way, so that the file can be closed; not for long, if nothing comes."""
        while self._under_way:
            try:
                found, _, _ = self._answers.get(timeout=1.0)
            except queue.Empty:
                return
            self._under_way.remove(found)
