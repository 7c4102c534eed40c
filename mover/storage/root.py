"""A storage element by the XRootD protocol (root:// and roots://, with GSI); bulk data through XrdCl."""

import queue
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar

from XRootD.client.flags import AccessMode, OpenFlags

from mover.errors import EndpointUnavailableError, FileMissingError, StorageError
from mover.model import ChecksumKind, StoredFile
from mover.ports import MayRemove, always
from mover.storage.cleanup import removed_on_failure
from mover.storage.gfal import GfalEndpoint
from mover.storage.gfalerrors import printable
from mover.storage.pieces import pieces, primed
from mover.storage.xrdcl import library, limit_waiting, login
from mover.storage.xrderrors import DOWN_HINT, check
from mover.storage.xrdnamespace import Namespace
from mover.storage.xrdread import Reader

_PIECE_BYTES = 4 << 20
_WINDOW = 4


class RootEndpoint(GfalEndpoint):
    """Uploads and reads by XrdCl with a few requests under way, and looks; everything else by gfal2."""

    scheme: ClassVar[str] = "root"
    exclusive_create: ClassVar[bool] = True

    def stat(self, path: str) -> StoredFile | None:
        """What is stored under `path` now; ForeignFileError if it is a directory."""
        found = self._namespace(path).stat()
        return None if found is None else StoredFile(path, *found)

    def ask_checksum(self, path: str, kind: ChecksumKind, patience_seconds: int) -> str:
        """The server's answer."""
        return self._namespace(path).checksum(kind, patience_seconds)

    def unlink(self, path: str) -> None:
        """Remove the file."""
        self._namespace(path).unlink()

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

    def read(self, path: str, *, offset: int = 0, size_bytes: int | None = None) -> Generator[bytes, None, None]:
        """The file's bytes, up to the size that it has when it is opened."""
        url = self.url(path)
        self.refuse_offline(path)
        file = library.File()
        # A connection that broke fails the read: a file that was opened anew might be another one.
        file.set_property("ReadRecovery", "false")
        try:
            self._open(file, url, OpenFlags.READ)
        except StorageError:
            # XRootD with tape tries to fetch a file that never was, and says that it may not.
            if self.stat(path) is None:
                raise FileMissingError(f"there is no {url}", hint="look at what the endpoint has") from None
            raise
        try:
            status, found = file.stat(timeout=self._stall_seconds)
            check(status, url)
            end: int = found.size if size_bytes is None else min(found.size, offset + size_bytes)
            yield from Reader(file, url, self._stall_seconds).read(offset, end)
        finally:
            # What its answer is matters to nobody: the bytes have come, or an error is on its way.
            file.close(timeout=self._stall_seconds)

    def _namespace(self, path: str) -> Namespace:
        return Namespace(self.url(path), self._credential.current().path, self._stall_seconds)

    @contextmanager
    def _create(self, path: str) -> Iterator[Any]:
        """A new file, closed afterwards: with its errors if the body succeeded, silently if there is one already."""
        url = self.url(path)
        file = library.File()
        # A connection that broke fails the upload: a file that was opened anew would not be ours alone.
        file.set_property("WriteRecovery", "false")
        self._open(file, url, OpenFlags.NEW | OpenFlags.MAKEPATH)
        try:
            yield file
        except BaseException as error:
            status, _ = file.close(timeout=self._stall_seconds)
            if not status.ok:
                error.add_note(f"closing it failed too: {printable(status.message)}")
            raise
        status, _ = file.close(timeout=self._stall_seconds)
        check(status, url)

    def _open(self, file: Any, url: str, flags: OpenFlags) -> None:
        proxy = self._credential.current()
        limit_waiting()
        mode = AccessMode.UR | AccessMode.UW | AccessMode.GR | AccessMode.OR
        status, _ = file.open(url + login(proxy.path), flags, mode, timeout=self._stall_seconds)
        check(status, url)


class RootsEndpoint(RootEndpoint):
    """The same within TLS, and only if a CA of ours stands for the server's certificate; who we are is told by GSI."""

    scheme: ClassVar[str] = "roots"
    # gfal2 only knows how by root://, and then nobody answers for TLS between the storages.
    copies: ClassVar[bool] = False


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
        check(status, self._url)

    def _answered(self, offset: int, status: Any, *_: object) -> None:
        """Called in a thread of XrdCl's."""
        self._answers.put((offset, status))

    def _reap(self) -> None:
        try:
            offset, status = self._answers.get(timeout=self._stall_seconds)
        except queue.Empty:
            raise EndpointUnavailableError(
                f"{self._url}: nothing was taken for {self._stall_seconds} s", hint=DOWN_HINT
            ) from None
        del self._under_way[offset]
        check(status, self._url)
