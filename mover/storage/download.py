"""One GET (RFC 9110, section 9.3.1) of a piece of a file whose size is known, given out as it comes."""

import re
import time
from collections.abc import Callable, Generator
from typing import ClassVar

import pycurl

from mover.errors import EndpointUnavailableError, StorageError
from mover.storage.curlerrors import answer_error, curl_error

_SLOWEST_BYTES_PER_SECOND = 10_000
_BUFFER_BYTES = 512 << 10
_PIECE_BYTES = 1 << 20
_MOST_REDIRECTS = 5
_MOST_ANSWER_BYTES = 4096
_REDIRECTS = {301, 302, 303, 307, 308}  # RFC 9110, section 15.4
_POLL_SECONDS = 1.0


def download(
    new_curl: Callable[[], pycurl.Curl], url: str, *, offset: int, size_bytes: int, stall_seconds: float
) -> Generator[bytes, None, None]:
    """The `size_bytes` (at least one) bytes from `offset` on; redirects are followed, within https.

    Raises:
        StorageError: the server or the connection failed, stood still, or gave fewer or other bytes than asked for.
    """
    target = url
    for _ in range(1 + _MOST_REDIRECTS):
        get = _Get(new_curl(), url, target, offset=offset, size_bytes=size_bytes, stall_seconds=stall_seconds)
        try:
            elsewhere = get.begin()
            if elsewhere is None:
                yield from get.pieces()
                return
            target = elsewhere
        finally:
            get.close()
    raise StorageError(f"{url}: over {_MOST_REDIRECTS} redirects", hint="ask the site where they lead")


class _Get:
    """One request and its answer. curl works only while the next piece is waited for, so little is held in memory."""

    _RANGE: ClassVar = re.compile(r"bytes (\d+)-(\d+)/(?:\d+|\*)")  # RFC 9110, section 14.4

    def __init__(
        self, curl: pycurl.Curl, url: str, target: str, *, offset: int, size_bytes: int, stall_seconds: float
    ) -> None:
        self._url = url
        self._curl = curl
        self._offset = offset
        self._size_bytes = size_bytes
        self._stall_seconds = stall_seconds
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._received_bytes = 0
        self._content_range = ""
        curl.setopt(pycurl.URL, target)
        curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTPS)
        curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        curl.setopt(pycurl.BUFFERSIZE, _BUFFER_BYTES)
        # Time that the taker of the pieces needs is not the server's: standstills are found in `_work`.
        curl.setopt(pycurl.LOW_SPEED_TIME, 0)
        # Always with both ends, which the file has: XrdHttp 5.5.3 answers others with lengths that it does not keep.
        curl.setopt(pycurl.RANGE, f"{offset}-{offset + size_bytes - 1}")
        curl.setopt(pycurl.HEADERFUNCTION, self._header)
        curl.setopt(pycurl.WRITEFUNCTION, self._keep)
        self._multi = pycurl.CurlMulti()
        self._multi.add_handle(curl)

    def begin(self) -> str | None:
        """Wait for the answer's first bytes; where the file is instead, if the server redirects.

        Raises:
            StorageError: the server has no such piece for us.
        """
        self._work(until=lambda: self._held_bytes > 0)
        status = self._curl.getinfo(pycurl.RESPONSE_CODE)
        if status in _REDIRECTS and (elsewhere := self._curl.getinfo(pycurl.REDIRECT_URL)):
            return str(elsewhere)
        if status not in {200, 206}:
            self._work(until=lambda: self._held_bytes > _MOST_ANSWER_BYTES)
            raise answer_error(status, b"".join(self._held)[:_MOST_ANSWER_BYTES].decode(errors="replace"), self._url)
        found = self._RANGE.fullmatch(self._content_range)
        asked = (self._offset, self._offset + self._size_bytes - 1)
        if status == 206 and (found is None or (int(found[1]), int(found[2])) != asked):
            raise EndpointUnavailableError(
                f"{self._url}: asked for the bytes {asked[0]} to {asked[1]}, the server gives {self._content_range!a}",
                hint="it is tried again; if it stays so, ask the site",
            )
        return None

    def pieces(self) -> Generator[bytes, None, None]:
        """The bytes asked for, exactly."""
        # A server need not know ranges: then it sends the whole file (RFC 9110, section 14.2).
        skip = self._offset if self._curl.getinfo(pycurl.RESPONSE_CODE) == 200 else 0
        left = self._size_bytes
        while left:
            self._work(until=lambda: self._held_bytes >= _PIECE_BYTES)
            piece = b"".join(self._held)
            self._held.clear()
            self._held_bytes = 0
            if not piece:
                raise EndpointUnavailableError(
                    f"{self._url}: the answer ends {left} bytes early",
                    hint="it is tried again; if it stays so, the file was cut short: ask the site",
                )
            skipped = min(skip, len(piece))
            skip -= skipped
            part = piece[skipped : skipped + left]
            left -= len(part)
            if part:
                yield part

    def close(self) -> None:
        """End the transfer, wherever it is, and the connection."""
        self._multi.remove_handle(self._curl)
        self._multi.close()
        self._curl.close()

    def _work(self, until: Callable[[], bool]) -> None:
        """Let curl work until `until()` holds or the answer has ended; cut it when too little comes."""
        mark_bytes, mark = self._received_bytes, time.monotonic()
        while not self._perform() and not until():
            if self._received_bytes - mark_bytes >= self._stall_seconds * _SLOWEST_BYTES_PER_SECOND:
                mark_bytes, mark = self._received_bytes, time.monotonic()
            elif time.monotonic() - mark > self._stall_seconds:
                raise EndpointUnavailableError(
                    f"{self._url}: only {self._received_bytes - mark_bytes} bytes came in {self._stall_seconds:g} s",
                    hint="nothing to do if it is a short outage: it is tried again; else ask the site",
                )
            # 0: there are bytes already, below TLS; -1: curl has no opinion.
            timeout: int = self._multi.timeout()
            self._multi.select(min(timeout / 1000, _POLL_SECONDS) if timeout >= 0 else _POLL_SECONDS)

    def _perform(self) -> bool:
        """Let curl do what it can without waiting; whether the answer has ended."""
        _, running = self._multi.perform()
        _, _, failed = self._multi.info_read()
        for _, code, text in failed:
            raise curl_error(code, text, self._url)
        return not running

    def _header(self, line: bytes) -> None:
        if line.startswith(b"HTTP/"):
            self._content_range = ""  # of an interim answer
        name, _, value = line.decode("latin-1").partition(":")
        if name.strip().lower() == "content-range":
            self._content_range = value.strip()

    def _keep(self, data: bytes) -> None:
        self._held.append(data)
        self._held_bytes += len(data)
        self._received_bytes += len(data)
