"""Questions about single files by the XRootD protocol, each with a deadline of its own.

gfal2's XRootD plug-in has none but those of the whole process (see `xrdcl`), which are too short for a server that
reads a big file to compute its checksum, and too long for one that hangs.
"""

from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from XRootD.client.flags import QueryCode, StatInfoFlags

from mover.errors import FileMissingError, ForeignFileError, StorageError
from mover.model import ChecksumKind
from mover.storage.gfalerrors import printable
from mover.storage.xrdcl import library, limit_waiting, login, waiting_long
from mover.storage.xrderrors import check

_NOT_A_FILE = StatInfoFlags.IS_DIR | StatInfoFlags.OTHER


class Namespace:
    """The server of one root:// or roots:// URL, and the path there, as whoever the proxy stands for."""

    def __init__(self, url: str, proxy_path: str, stall_seconds: int) -> None:
        """Connects to nothing yet."""
        limit_waiting()
        parts = urlsplit(url)
        self._url = url
        self._path = parts.path.removeprefix("/")
        self._stall_seconds = stall_seconds
        self._server: Any = library.FileSystem(f"{parts.scheme}://{parts.netloc}//{login(proxy_path)}")

    def stat(self) -> tuple[int, datetime] | None:
        """The file's size in bytes and when it was last changed (UTC); None if there is none.

        Raises:
            ForeignFileError: it is no regular file, or one stands where a directory of it is needed.
            StorageError: the server does not answer, or refuses to.
        """
        status, found = self._server.stat(self._path, timeout=self._stall_seconds)
        try:
            check(status, self._url)
        except FileMissingError:
            return None
        if found.flags & _NOT_A_FILE:
            raise ForeignFileError(f"{self._url} is no regular file", hint="find out who made it, and why")
        try:
            return found.size, datetime.fromtimestamp(found.modtime, UTC)
        except (ValueError, OverflowError, OSError) as error:
            raise StorageError(f"{self._url}: impossible time of modification", hint="ask the site") from error

    def unlink(self) -> None:
        """Remove the file; FileMissingError if there is none."""
        status, _ = self._server.rm(self._path, timeout=self._stall_seconds)
        check(status, self._url)

    def checksum(self, kind: ChecksumKind, patience_seconds: int) -> str:
        """The server's checksum, as it writes it; it may have to read the file, for as long as that.

        Raises:
            StorageError: there is none, not in time, or of another kind.
        """
        question = f"{self._path}?cks.type={kind}"
        with waiting_long(patience_seconds):
            status, answer = self._server.query(QueryCode.CHECKSUM, question, timeout=patience_seconds)
        check(status, self._url)
        words = bytes(answer or b"").rstrip(b"\0").decode(errors="replace").split()
        if len(words) != 2 or words[0].lower() != kind:
            raise StorageError(
                f"{self._url}: asked for {kind}, the server says {printable(' '.join(words))!r}",
                hint="ask the site what it means",
            )
        return words[1]
