"""A storage element by WebDAV (davs://: HTTP over TLS with a client certificate); bulk data through curl."""

from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import ClassVar

import pycurl

from mover.errors import FileMissingError, StorageError
from mover.model import ChecksumKind
from mover.ports import CredentialSource, MayRemove, always
from mover.storage.cleanup import removed_on_failure
from mover.storage.curlerrors import answer_error, curl_error
from mover.storage.download import download
from mover.storage.gfal import GfalEndpoint
from mover.storage.httpcopy import pull
from mover.storage.pieces import pieces, primed
from mover.storage.thirdparty import Watch

_SLOWEST_BYTES_PER_SECOND = 10_000
_PIECE_BYTES = 4 << 20
_BUFFER_BYTES = 2 << 20  # curl's largest
_MOST_REDIRECTS = 5
_MOST_ANSWER_BYTES = 4096
_READ_ABORT: int = pycurl.READFUNC_ABORT
_REDIRECTS = {301, 302, 307, 308}  # RFC 9110, section 15.4; 303 would make it another method


class DavsEndpoint(GfalEndpoint):
    """Uploads by one PUT of curl's, reads by one GET, third-party copies by COPY; everything else by gfal2."""

    scheme: ClassVar[str] = "davs"
    # HTTP has If-None-Match (RFC 9110, section 13.1.2), which is sent, but XRootD 5 does not look at it.
    exclusive_create: ClassVar[bool] = False

    def __init__(
        self,
        *,
        name: str,
        base_url: str,
        credentials: CredentialSource,
        ca_directory: Path,
        tape: bool = False,
        checksums: frozenset[ChecksumKind] = frozenset({ChecksumKind.ADLER32}),
        stall_timeout_seconds: float = 60.0,
        checksum_timeout_seconds: float = 1800.0,
        third_party_copy: bool = True,
    ) -> None:
        """As `GfalEndpoint`; curl trusts the authorities in `ca_directory` (hashed names) only."""
        super().__init__(
            name=name,
            base_url=base_url,
            credentials=credentials,
            tape=tape,
            checksums=checksums,
            stall_timeout_seconds=stall_timeout_seconds,
            checksum_timeout_seconds=checksum_timeout_seconds,
            third_party_copy=third_party_copy,
        )
        self._ca_directory = ca_directory

    def upload(self, path: str, chunks: Iterable[bytes], size_bytes: int, *, may_remove: MayRemove = always) -> None:
        """Stream `chunks` into a new file, after a look that there is none."""
        stream = primed(pieces(chunks, size_bytes, _PIECE_BYTES))
        self.refuse_existing(path)
        self.make_parent(path)
        put = _Put(self._location.url(path, scheme="https"), stream, size_bytes)
        with removed_on_failure(self.remove, path, ours=lambda: put.begun, may_remove=may_remove):
            put.perform(self._curl)

    def read(self, path: str, *, offset: int = 0, size_bytes: int | None = None) -> Generator[bytes, None, None]:
        """The file's bytes, up to the size that it has now."""
        found = self.stat(path)  # also because a directory would answer with a page of HTML
        if found is None:
            raise FileMissingError(f"there is no {self.url(path)}", hint="look at what the endpoint has")
        self.refuse_offline(path)
        end = found.size_bytes if size_bytes is None else min(found.size_bytes, offset + size_bytes)
        if offset < end:
            url = self._location.url(path, scheme="https")
            yield from download(
                self._curl, url, offset=offset, size_bytes=end - offset, stall_seconds=self._stall_seconds
            )

    def third_party_copy(self, source_url: str, url: str, watch: Watch) -> None:
        """Have this storage fetch the file, by the proxy here and by a macaroon there."""
        source, target = (address.replace("davs://", "https://", 1) for address in (source_url, url))
        pull(source, target, self._curl, watch)

    def _curl(self) -> pycurl.Curl:
        """A new handle, so that no connection of another proxy is used again."""
        proxy = self._credential.current()
        curl = pycurl.Curl()
        curl.setopt(pycurl.SSLCERT, proxy.path)
        curl.setopt(pycurl.SSLKEY, proxy.path)
        curl.setopt(pycurl.CAPATH, str(self._ca_directory))
        curl.unsetopt(pycurl.CAINFO)  # the world's authorities, which curl has compiled in
        curl.setopt(pycurl.SSLVERSION, pycurl.SSLVERSION_TLSv1_2)
        curl.setopt(pycurl.PROXY, "")
        curl.setopt(pycurl.NOSIGNAL, 1)
        curl.setopt(pycurl.CONNECTTIMEOUT, self._stall_seconds)
        curl.setopt(pycurl.LOW_SPEED_LIMIT, _SLOWEST_BYTES_PER_SECOND)
        curl.setopt(pycurl.LOW_SPEED_TIME, self._stall_seconds)
        # A server that never says '100 Continue' gets the body after half of the patience that it has.
        curl.setopt(pycurl.EXPECT_100_TIMEOUT_MS, 500 * self._stall_seconds)
        return curl


class _Put:
    """One PUT (RFC 9110, section 9.3.4) of a body of known length that can be read once."""

    def __init__(self, url: str, stream: Iterator[bytes], size_bytes: int) -> None:
        self._url = url
        self._stream = stream
        self._size_bytes = size_bytes
        self._sent_bytes = 0
        self._piece = memoryview(b"")
        self._failure: BaseException | None = None
        self._answer = bytearray()
        #: Whether the server has been given any of the body, so that there may be a file, and it is ours.
        self.begun = False

    def perform(self, new_curl: Callable[[], pycurl.Curl]) -> None:
        """Send it, following redirects as long as no byte of the body has been asked for, and check the answer.

        curl would follow them too, but (seen with 8.23) without our certificate.

        Raises:
            BaseException: whatever the stream raised.
            StorageError: the server or the connection failed.
        """
        target = self._url
        for _ in range(1 + _MOST_REDIRECTS):
            status, elsewhere = self._perform(new_curl(), target)
            if status not in _REDIRECTS or elsewhere is None or self.begun:
                break
            target = elsewhere
        else:
            raise StorageError(f"{self._url}: over {_MOST_REDIRECTS} redirects", hint="ask the site where they lead")
        if 400 <= status < 500:
            self.begun = False  # refused: what stands there, if anything, is not ours
        if not 200 <= status < 300:
            raise answer_error(status, self._answer.decode(errors="replace"), self._url)
        if self._sent_bytes != self._size_bytes:
            raise StorageError(
                f"{self._url}: the server says {status} after {self._sent_bytes} of {self._size_bytes} bytes",
                hint="it did not take the whole file: ask the site",
            )

    def _perform(self, curl: pycurl.Curl, target: str) -> tuple[int, str | None]:
        """The status that `target` answers, and where it redirects to."""
        self._prepare(curl, target)
        self._answer.clear()
        try:
            curl.perform()
            return curl.getinfo(pycurl.RESPONSE_CODE), curl.getinfo(pycurl.REDIRECT_URL)
        except pycurl.error as error:
            if self._failure is not None:
                raise self._failure from None
            raise curl_error(error.args[0], str(error.args[1]), self._url) from None
        finally:
            curl.close()

    def _prepare(self, curl: pycurl.Curl, target: str) -> None:
        curl.setopt(pycurl.URL, target)
        curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTPS)
        curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        curl.setopt(pycurl.UPLOAD, 1)
        curl.setopt(pycurl.UPLOAD_BUFFERSIZE, _BUFFER_BYTES)
        curl.setopt(pycurl.INFILESIZE_LARGE, self._size_bytes)
        # XrdHttp never answers a PUT of no bytes that asks for '100 Continue'.
        expect = "Expect: 100-continue" if self._size_bytes else "Expect:"
        curl.setopt(pycurl.HTTPHEADER, [expect, "If-None-Match: *", "Content-Type: application/octet-stream"])
        curl.setopt(pycurl.READFUNCTION, self._read)
        curl.setopt(pycurl.WRITEFUNCTION, self._keep)

    def _read(self, most_bytes: int) -> bytes | int:
        """curl's read callback. An exception cannot cross curl, so that it waits in `_failure`."""
        try:
            self.begun = True
            part = self._take(most_bytes)
        except BaseException as error:  # perform raises it
            self._failure = error
            return _READ_ABORT
        self._sent_bytes += len(part)
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

    def _keep(self, data: bytes) -> int:
        self._answer += data[: _MOST_ANSWER_BYTES - len(self._answer)]
        return len(data)
