"""A storage element by the XRootD protocol (root:// with GSI); bulk data through XrdCl."""

import queue
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar

from XRootD.client.flags import AccessMode, OpenFlags

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
from mover.storage.gfal import GfalEndpoint
from mover.storage.gfalerrors import printable
from mover.storage.pieces import pieces, primed
from mover.storage.xrdcl import library, limit_waiting

_PIECE_BYTES = 4 << 20
_WINDOW = 4

_Meaning = tuple[type[StorageError], str]

_DENIED: _Meaning = (AccessDeniedError, "check that the endpoint knows our identity and lets it use this path")
_FULL: _Meaning = (EndpointFullError, "make space, or have the quota raised")
_DOWN: _Meaning = (
    EndpointUnavailableError,
    "nothing to do if it is a short outage: it is tried again; else ask the site",
)

# Errors of the server, XProtocol.hh, XErrorCode. (kXR_FileLocked: somebody, maybe an attempt of ours that the server
# has not given up yet, has the file open for writing.)
_SERVER_ERRORS: dict[int, _Meaning] = {
    3003: (FileExistsAtEndpointError, "somebody is writing it now; it is tried again"),
    3009: _FULL,
    3010: _DENIED,
    3011: (FileMissingError, "look at what the endpoint has"),
    3015: (ForeignFileError, "a file stands where a directory is needed: find out whose it is"),
    3016: (ForeignFileError, "a directory stands where a file is needed: find out whose it is"),
    3018: (FileExistsAtEndpointError, "nothing is overwritten: look whose it is"),
    3021: _FULL,
    3030: _DENIED,
    3000: (StorageError, "the server does not take our request: ask the site"),
    3006: (StorageError, "the server does not take our request: ask the site"),
    3013: (StorageError, "the server does not take our request: ask the site"),
}
_ERR_RESPONSE = 400  # XrdClStatus.hh: errErrorResponse, the server's own answer
_CLIENT_ERRORS = {203: _DENIED, 204: _DENIED}  # errLoginFailed, errAuthFailed


class RootEndpoint(GfalEndpoint):
    """Uploads by XrdCl with a few asynchronous writes under way; everything else by gfal2."""

    scheme: ClassVar[str] = "root"
    exclusive_create: ClassVar[bool] = True

    def upload(self, path: str, chunks: Iterable[bytes], size_bytes: int, *, may_remove: MayRemove = always) -> None:
        """Stream `chunks` into a new file that the server creates exclusively, with its directories."""
        stream = primed(pieces(chunks, size_bytes, _PIECE_BYTES))
        created = False
        with (
            removed_on_failure(self.remove, path, ours=lambda: created, may_remove=may_remove),
            self._create(path) as file,
        ):
            created = True
            _Writer(file, self.url(path), self._stall_seconds).write(stream)

    @contextmanager
    def _create(self, path: str) -> Iterator[Any]:
        """A new file, closed afterwards: with its errors if the body succeeded, silently if there is one already."""
        proxy = self._credential.current()
        url = self.url(path)
        limit_waiting()
        file = library.File()
        # A connection that broke fails the upload: a file that was opened anew would not be ours alone.
        file.set_property("WriteRecovery", "false")
        # Not a secret: it is a name that means something in this process only. XrdCl takes the parameters out.
        login = f"?xrd.wantprot=gsi&xrd.gsiusrpxy={proxy.path}"
        mode = AccessMode.UR | AccessMode.UW | AccessMode.GR | AccessMode.OR
        flags = OpenFlags.NEW | OpenFlags.MAKEPATH
        status, _ = file.open(url + login, flags, mode, timeout=self._stall_seconds)
        _check(status, url)
        try:
            yield file
        except BaseException as error:
            status, _ = file.close(timeout=self._stall_seconds)
            if not status.ok:
                error.add_note(f"closing it failed too: {printable(status.message)}")
            raise
        status, _ = file.close(timeout=self._stall_seconds)
        _check(status, url)


class _Writer:
    """Writes a stream at increasing offsets with at most `_WINDOW` writes under way.

    XrdCl does not copy what it is given: every piece stays in `_under_way`, and this object too, until its callback.
    """

    def __init__(self, file: Any, url: str, stall_seconds: int) -> None:
        self._file = file
        self._url = url
        self._stall_seconds = stall_seconds
        self._under_way: dict[int, bytes] = {}
        self._answers: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()

    def write(self, stream: Iterator[bytes]) -> None:
        """Write all of it; returns when the server has taken the last byte.

        Raises:
            StorageError: a write failed, or none ended for the stall timeout.
        """
        offset = 0
        for piece in stream:
            if len(self._under_way) == _WINDOW:
                self._reap()
            self._start(offset, piece)
            offset += len(piece)
        while self._under_way:
            self._reap()

    def _start(self, offset: int, piece: bytes) -> None:
        self._under_way[offset] = piece
        # The last of a full window may take as long as the stall timeout allows for all of them.
        timeout = _WINDOW * self._stall_seconds
        status = self._file.write(piece, offset, len(piece), timeout, partial(self._answered, offset))
        if not status.ok:
            del self._under_way[offset]
        _check(status, self._url)

    def _answered(self, offset: int, status: Any, *_: object) -> None:
        """Called in a thread of XrdCl's."""
        self._answers.put((offset, status))

    def _reap(self) -> None:
        try:
            offset, status = self._answers.get(timeout=self._stall_seconds)
        except queue.Empty:
            raise EndpointUnavailableError(
                f"{self._url}: nothing was taken for {self._stall_seconds} s", hint=_DOWN[1]
            ) from None
        del self._under_way[offset]
        _check(status, self._url)


def _check(status: Any, url: str) -> None:
    """Raise what a status of XrdCl's means, unless it is good. What is not known counts as a passing failure."""
    if status.ok:
        return
    if status.code == _ERR_RESPONSE:
        kind, hint = _SERVER_ERRORS.get(status.errno, _DOWN)
    else:
        kind, hint = _CLIENT_ERRORS.get(status.code, _DOWN)
    raise kind(f"{url}: {printable(status.message)}", hint=hint)
