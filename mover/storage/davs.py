"""A storage element by WebDAV (davs://: HTTP over TLS with a client certificate); bulk data through curl."""

import re
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any, ClassVar

import pycurl

from mover.errors import EndpointUnavailableError, FileMissingError, ForeignFileError, StorageError
from mover.gridtls import new_curl
from mover.model import ChecksumKind, StoredFile
from mover.ports import CredentialSource, MayRemove, always
from mover.storage.cleanup import removed_on_failure
from mover.storage.davsrequest import Move, Put
from mover.storage.download import download
from mover.storage.gfal import Answer, GfalEndpoint
from mover.storage.httpcopy import pull
from mover.storage.httpdigest import Digest
from mover.storage.pieces import pieces, primed
from mover.storage.thirdparty import Watch

_SLOWEST_BYTES_PER_SECOND = 10_000
_PIECE_BYTES = 4 << 20
# Apache's answers, and XrdHttp's.
_ENDED = re.compile(r"unexpected eof while reading|connection was closed by server", re.IGNORECASE)
_MAYBE_BELOW_A_FILE = re.compile(r"\bHTTP (?:400|405|409|500)\b")


class DavsEndpoint(GfalEndpoint):
    """PUT, GET, MOVE, COPY, and HEAD for checksums, by curl; everything else by gfal2."""

    scheme: ClassVar[str] = "davs"
    # If-None-Match (RFC 9110, section 13.1.2) is sent, but XRootD 5 does not look at it, and Apache looks only when the
    # upload begins: of two at a time, the one that ends last replaces the other. So with Overwrite (RFC 4918, section
    # 10.6): XRootD does not look. Where they are honoured they are one look more; nothing relies on them.
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

    def stat(self, path: str) -> StoredFile | None:
        """What is stored under `path` now; ForeignFileError if it, or a name above it, is of the wrong kind."""
        try:
            return super().stat(path)
        except StorageError as error:
            self._refuse_file_above(path, error)
            raise

    def ask_checksum(self, path: str, kind: ChecksumKind, patience_seconds: int) -> str:
        """The server's answer."""
        digest = Digest(self._location.url(path, scheme="https"), kind, patience_seconds)
        digest.perform(self._curl)
        return digest.value()

    def look(self, url: str, call: Callable[[Any], Answer]) -> Answer:
        """As `GfalEndpoint.look`; once more after a kept connection that the server has ended meanwhile.

        davix finds out only by using it. It knows what to do with a connection that was closed, but OpenSSL 3 tells one
        that was closed without a TLS alert (close_notify, RFC 8446, section 6.1) as another error.
        """
        try:
            return super().look(url, call)
        except EndpointUnavailableError as error:
            if not _ENDED.search(error.message):
                raise
        return super().look(url, call)

    def upload(self, path: str, chunks: Iterable[bytes], size_bytes: int, *, may_remove: MayRemove = always) -> None:
        """Stream `chunks` into a new file, after a look that there is none."""
        stream = primed(pieces(chunks, size_bytes, _PIECE_BYTES))
        self.refuse_existing(path)
        self.make_parent(path)
        put = Put(self._location.url(path, scheme="https"), stream, size_bytes)
        with removed_on_failure(self.remove, path, ours=lambda: put.begun, may_remove=may_remove):
            try:
                put.perform(self._curl)
            except FileMissingError:
                if put.sent_bytes:
                    raise
                # Somebody removed the directory, which was empty, in between.
                self.make_parent(path)
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

    def move(self, source: str, target: str) -> None:
        """Rename by one request, which asks the server to look itself that the target is free."""
        source_url, target_url = (self._location.url(path, scheme="https") for path in (source, target))
        Move(source_url, target_url).perform(self._curl)

    def make_parent(self, path: str) -> None:
        """Make the directory of `path`, and those above it; ForeignFileError if a file is in the way."""
        try:
            super().make_parent(path)
        except StorageError as error:
            self._refuse_file_above(path, error)
            raise

    def _refuse_file_above(self, path: str, error: StorageError) -> None:
        """Raise ForeignFileError if that is the reason of `error`: a file stands where a directory of `path` is needed.

        RFC 4918 has no answer for it.
        """
        if not _MAYBE_BELOW_A_FILE.search(error.message):
            return
        names = path.split("/")
        for depth in range(1, len(names)):
            above = "/".join(names[:depth])
            try:
                found = super().stat(above)
            except ForeignFileError:
                continue  # a directory, as it should be
            if found is None:
                return
            raise ForeignFileError(
                f"{self.url(above)} is a file where a directory is needed", hint="find out who made it, and why"
            )

    def _curl(self) -> pycurl.Curl:
        """A new handle, which gives up when nothing moves."""
        proxy = self._credential.current()
        curl = new_curl(proxy.path, self._ca_directory, stall_seconds=self._stall_seconds)
        curl.setopt(pycurl.LOW_SPEED_LIMIT, _SLOWEST_BYTES_PER_SECOND)
        curl.setopt(pycurl.LOW_SPEED_TIME, self._stall_seconds)
        # A server that never says '100 Continue' gets the body after half of the patience that it has.
        curl.setopt(pycurl.EXPECT_100_TIMEOUT_MS, 500 * self._stall_seconds)
        return curl
