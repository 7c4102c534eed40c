"""The requests of WebDAV that change something, PUT and MOVE, by curl; redirects are followed by hand."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import ClassVar

import pycurl

from mover.errors import EndpointUnavailableError, StorageError
from mover.storage.curlerrors import answer_error, curl_error

_BUFFER_BYTES = 2 << 20  # curl's largest
_MOST_REDIRECTS = 5
_MOST_ANSWER_BYTES = 4096
_READ_ABORT: int = pycurl.READFUNC_ABORT
_REDIRECTS = {301, 302, 307, 308}  # RFC 9110, section 15.4; 303 would make it another method


class Request(ABC):
    """One request, over https only."""

    #: The statuses that say that it is done.
    done: ClassVar[frozenset[int]]

    def __init__(self, url: str) -> None:
        self.url = url
        #: Whether the server has been given any of the body, so that it cannot be sent again.
        self.begun = False
        self._failure: BaseException | None = None
        self._answer = bytearray()

    @abstractmethod
    def prepare(self, curl: pycurl.Curl) -> None:
        """Set the method, the headers, and the body."""

    def perform(self, new_curl: Callable[[], pycurl.Curl]) -> None:
        """Send it, following redirects as long as no byte of the body has been asked for, and check the answer.

        curl would follow them too, but (seen with 8.23) without our certificate.

        Raises:
            BaseException: whatever the body's source raised.
            StorageError: the server or the connection failed.
        """
        target = self.url
        for _ in range(1 + _MOST_REDIRECTS):
            status, elsewhere = self._perform(new_curl(), target)
            if status not in _REDIRECTS or elsewhere is None or self.begun:
                break
            target = elsewhere
        else:
            raise StorageError(f"{self.url}: over {_MOST_REDIRECTS} redirects", hint="ask the site where they lead")
        if status not in self.done:
            if 400 <= status < 500:
                self.begun = False  # refused: what stands there, if anything, is not ours
            raise answer_error(status, self._answer.decode(errors="replace"), self.url)

    def fail(self, error: BaseException) -> None:
        """Have `perform` raise `error`, which cannot cross curl by itself."""
        self._failure = error

    def _perform(self, curl: pycurl.Curl, target: str) -> tuple[int, str | None]:
        """The status that `target` answers, and where it redirects to."""
        curl.setopt(pycurl.URL, target)
        curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTPS)
        curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        curl.setopt(pycurl.WRITEFUNCTION, self._keep)
        self.prepare(curl)
        self._answer.clear()
        try:
            curl.perform()
            return curl.getinfo(pycurl.RESPONSE_CODE), curl.getinfo(pycurl.REDIRECT_URL)
        except pycurl.error as error:
            if self._failure is not None:
                raise self._failure from None
            raise curl_error(error.args[0], str(error.args[1]), self.url) from None
        finally:
            curl.close()

    def _keep(self, data: bytes) -> int:
        self._answer += data[: _MOST_ANSWER_BYTES - len(self._answer)]
        return len(data)


class Move(Request):
    """One MOVE (RFC 4918, section 9.9) that asks the server not to replace anything."""

    done = frozenset({200, 201, 204})

    def __init__(self, url: str, target_url: str) -> None:
        super().__init__(url)
        self._target_url = target_url

    def prepare(self, curl: pycurl.Curl) -> None:
        """No body."""
        curl.setopt(pycurl.CUSTOMREQUEST, "MOVE")
        curl.setopt(pycurl.HTTPHEADER, [f"Destination: {self._target_url}", "Overwrite: F"])


class Put(Request):
    """One PUT (RFC 9110, section 9.3.4) of a body of known length that can be read once."""

    done = frozenset(range(200, 207))

    def __init__(self, url: str, stream: Iterator[bytes], size_bytes: int) -> None:
        super().__init__(url)
        self._stream = stream
        self._size_bytes = size_bytes
        self._piece = memoryview(b"")
        #: How much of the body has been given away.
        self.sent_bytes = 0

    def perform(self, new_curl: Callable[[], pycurl.Curl]) -> None:
        """As `Request.perform`; a success before the whole body was taken is an error."""
        super().perform(new_curl)
        if self.sent_bytes != self._size_bytes:
            raise EndpointUnavailableError(
                f"{self.url}: the server says that it is done after {self.sent_bytes} of {self._size_bytes} bytes",
                hint="it did not take the whole file: it is tried again; if this repeats, ask the site",
            )

    def prepare(self, curl: pycurl.Curl) -> None:
        """The body, when the server has said that it wants it."""
        curl.setopt(pycurl.UPLOAD, 1)
        curl.setopt(pycurl.UPLOAD_BUFFERSIZE, _BUFFER_BYTES)
        curl.setopt(pycurl.INFILESIZE_LARGE, self._size_bytes)
        # XrdHttp never answers a PUT of no bytes that asks for '100 Continue'.
        expect = "Expect: 100-continue" if self._size_bytes else "Expect:"
        curl.setopt(pycurl.HTTPHEADER, [expect, "If-None-Match: *", "Content-Type: application/octet-stream"])
        curl.setopt(pycurl.READFUNCTION, self._read)

    def _read(self, most_bytes: int) -> bytes | int:
        """curl's read callback."""
        try:
            self.begun = True
            part = self._take(most_bytes)
        except BaseException as error:  # perform raises it
            self.fail(error)
            return _READ_ABORT
        self.sent_bytes += len(part)
        return part

    def _take(self, most_bytes: int) -> bytes:
        """The next `most_bytes` bytes; fewer at the end of the stream only.

        That is not for speed: XrdHttp 5.5.3 reads no further when a short TLS record stands before much data.
        """
        parts: list[bytes] = []
        while most_bytes:
            if not self._piece:
                self._piece = memoryview(next(self._stream, b""))
            part = bytes(self._piece[:most_bytes])
            if not part:
                break
            self._piece = self._piece[len(part) :]
            most_bytes -= len(part)
            parts.append(part)
        return b"".join(parts)
