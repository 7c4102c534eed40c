"""A storage element by GridFTP (gsiftp://: GFD.20, FTP with GSI); bulk data by gfal2's streams."""

import re
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, ClassVar

from mover.errors import (
    AccessDeniedError,
    EndpointFullError,
    EndpointUnavailableError,
    FileExistsAtEndpointError,
    FileMissingError,
    ForeignFileError,
    StorageError,
)
from mover.ports import MayRemove, always
from mover.storage.cleanup import removed_on_failure
from mover.storage.gfal import Answer, GfalEndpoint, translated
from mover.storage.pieces import pieces, primed

_PIECE_BYTES = 1 << 20
_READ_BYTES = 4 << 20
_FRESH_SECONDS = 30.0
_PLUGIN = "GRIDFTP PLUGIN"
# What a write says when the server has ended the STOR before it.
_OVER = "IDLE not allowed here"
_REFUSALS = 5
# How a server tells of a data connection that the other side ended. Whose answer gfal2 sees first is chance.
_BROKEN = re.compile(
    r"System error in \w+: (?:Connection reset|Broken pipe)|end-of-file|connection closed", re.IGNORECASE
)
# More than what is left in a file's last block on a full disk.
_PROBE = bytes(64 << 10)
_CUT_SHORT = "it is tried again; if it stays so, ask the site"


class GsiFtpEndpoint(GfalEndpoint):
    """A disk, with uploads and reads as one stream each. The data channel has no encryption, and only checksums prove.

    Every wait of gfal2's GridFTP plug-in ends with its operation timeout, also a `write` and a `read`. What ends badly
    when a file is closed is swallowed by gfal2, so that an upload ends with a look at what is there.
    """

    scheme: ClassVar[str] = "gsiftp"
    # STOR replaces (RFC 959, section 4.1.3).
    exclusive_create: ClassVar[bool] = False

    _used = 0.0

    def upload(self, path: str, chunks: Iterable[bytes], size_bytes: int, *, may_remove: MayRemove = always) -> None:
        """Stream `chunks` into a new file, after a look that there is none."""
        stream = primed(pieces(chunks, size_bytes, _PIECE_BYTES))
        self.make_parent(path)
        self.refuse_existing(path)
        put = _Put(self._session, self.url(path), may_remove)
        with removed_on_failure(self.remove, path, ours=lambda: put.begun, may_remove=may_remove):
            put.send(stream)
            found = self.stat(path)
            if found is None or found.size_bytes != size_bytes:
                raise put.reason() or EndpointUnavailableError(
                    f"{self.url(path)}: {found.size_bytes if found else 'none'} of {size_bytes} bytes were stored",
                    hint=_CUT_SHORT,
                )

    def read(self, path: str, *, offset: int = 0, size_bytes: int | None = None) -> Generator[bytes, None, None]:
        """The file's bytes, up to the size that it has now."""
        url = self.url(path)
        found = self.stat(path)
        if found is None:
            raise FileMissingError(f"there is no {url}", hint="look at what the endpoint has")
        end = found.size_bytes if size_bytes is None else min(found.size_bytes, offset + size_bytes)
        if offset >= end:
            return
        with self._session(url) as context:
            file = context.open(url, "r")
        # From the beginning, whatever is asked for: a retrieval from elsewhere (GFD.20, ERET; gfal2's pread) now and
        # then crashes in the Globus library, and takes the whole process with it.
        position = 0
        while position < end:
            with self._session(url):
                piece: bytes = file.read_bytes(min(_READ_BYTES, end - position))
            if not piece:
                raise EndpointUnavailableError(f"{url} ends {end - position} bytes early", hint=_CUT_SHORT)
            if position + len(piece) > offset:
                yield piece[max(0, offset - position) :]
            position += len(piece)

    def refusal(self, url: str, error: StorageError) -> StorageError | None:
        """What the target says of its disk, when the source told first, and only that the connection broke."""
        return _refusal(self._session, url) if _BROKEN.search(error.message) else None

    def _call(self, url: str, call: Callable[[Any], Answer]) -> Answer:
        with self._session(url) as context:
            return call(context)

    @contextmanager
    def _session(self, url: str) -> Iterator[Any]:
        """The context to talk to the server in, with errors translated.

        A login costs both sides the making of a key, so that gfal2 keeps sessions in the context; but it goes on for
        ever with one that has broken, or that the server has ended as servers do with idle ones.
        """
        if time.monotonic() - self._used > _FRESH_SECONDS:
            self._opened = None
        try:
            context = self._context()
            with translated(url):
                yield context
        except EndpointUnavailableError:
            self._opened = None
            raise
        finally:
            self._used = time.monotonic()

    def _new_context(self, proxy_path: str) -> Any:
        context = super()._new_context(proxy_path)
        # Else a file of the machine's (/etc/gfal2.d) could say otherwise.
        context.set_opt_boolean(_PLUGIN, "SESSION_REUSE", True)
        context.set_opt_integer(_PLUGIN, "OPERATION_TIMEOUT", self._stall_seconds)
        return context


class _Put:
    """One STOR of a stream (RFC 959, section 4.1.3)."""

    def __init__(
        self,
        session: Callable[[str], AbstractContextManager[Any]],
        url: str,
        may_remove: MayRemove,
    ) -> None:
        self._session = session
        self._url = url
        self._may_remove = may_remove
        # Nothing else may hold it: it is closed when it is let go, and a traceback would hold what is on the stack.
        self._file: Any = None
        #: Whether there may be a file of ours now.
        self.begun = False

    def send(self, stream: Iterator[bytes]) -> None:
        """Send all of it and close the file. Whether it is all there is to be looked at afterwards.

        Raises:
            BaseException: whatever the stream raised.
            StorageError: the server or the connection failed.
        """
        try:
            self._open()
            for piece in stream:
                if self.begun:
                    self._write(piece)
                else:
                    self._write_first(piece)
        finally:
            self._file = None

    def _open(self) -> None:
        with self._session(self._url) as context:
            self._file = context.open(self._url, "w")

    def _write_first(self, piece: bytes) -> None:
        """The same, but STOR may have been refused by now. Then gfal2 says only that it is over: ask again for why."""
        for _ in range(_REFUSALS - 1):
            try:
                self._write(piece)
            except EndpointUnavailableError as error:
                if _OVER not in error.message:
                    raise
                self._open()
            else:
                return
        self._write(piece)

    def _write(self, piece: bytes) -> None:
        try:
            with self._session(self._url):
                self._file.write(piece)
        except (AccessDeniedError, FileExistsAtEndpointError, ForeignFileError):
            raise  # at the first piece, STOR itself was refused: what stands there, if anything, is not ours
        except StorageError as error:
            self.begun = self.begun or _OVER not in error.message
            self._file = None
            if self.begun and isinstance(error, EndpointUnavailableError):
                raise self.reason() or error from None
            raise
        self.begun = True

    def reason(self) -> StorageError | None:
        """Why the server does not take more, if it says so and the file is still ours to ask with."""
        return _refusal(self._session, self._url) if self._may_remove() else None


def _refusal(session: Callable[[str], AbstractContextManager[Any]], url: str) -> StorageError | None:
    """Why the server takes no more of a file, which is to be removed anyway, if it says so.

    It does when a stream ends, but gfal2 tells only that the data connection broke or stood still. The end of a second
    and small one, behind what is there, is not swallowed.
    """
    try:
        try:
            with session(url) as context:
                size_bytes = context.stat(url).st_size
        except FileMissingError:  # gfal2 removes what a copy left
            size_bytes = 0
            _make_empty(session, url)
        with session(url) as context:
            # Opened for writing, it would be truncated, and the reason swallowed.
            context.open(url, "r").pwrite(_PROBE, size_bytes)
    except (AccessDeniedError, EndpointFullError) as reason:
        return reason
    except StorageError:
        return None  # it was only to tell more about an error that is raised anyway
    return None


def _make_empty(session: Callable[[str], AbstractContextManager[Any]], url: str) -> None:
    """A file, though its server may take no byte for it: that shows when it is written to again."""
    with suppress(EndpointUnavailableError), session(url) as context:
        context.open(url, "w").write(b"\0")
