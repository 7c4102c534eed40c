"""The boundaries of the mover's steps, counted, and a death at a chosen one: a hook, not luck.

A boundary is a moment before or after something that the world can see: a call of the storage port, a chunk of an
upload, a commit that changes the catalogue, the removal of a local file.
"""

import os
import re
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from sqlite3 import Connection
from typing import Any, cast

from mover.catalogue.database import Database
from mover.ports import StorageEndpoint

#: Calls that ask nothing of the storage.
_LOCAL_CALLS = {"url", "close"}


class Boundaries:
    """Writes each boundary that is crossed into a file, and kills this process at the first that matches `deadly`.

    A boundary's name is that of its thread, what happens, and how often it has happened there: ``ral-tape: after stat
    at ral-tape #2``. Threads take turns as they like, so only those of one thread come in the same order each time.
    """

    def __init__(self, journal: Path, deadly: str | None) -> None:
        self._journal = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._deadly = re.compile(deadly) if deadly else None
        self._crossed: Counter[str] = Counter()
        self._lock = threading.Lock()

    def cross(self, what: str) -> None:
        """Note that `what` is about to happen, or has happened, on this thread."""
        with self._lock:
            kind = f"{threading.current_thread().name}: {what}"
            self._crossed[kind] += 1
            name = f"{kind} #{self._crossed[kind]}"
            os.write(self._journal, f"{name}\n".encode())
            if self._deadly and self._deadly.fullmatch(name):
                os.kill(os.getpid(), signal.SIGKILL)

    @contextmanager
    def around(self, what: str) -> Iterator[None]:
        """Two boundaries: one before the block, one after it has ended well."""
        self.cross(f"before {what}")
        yield
        self.cross(f"after {what}")

    def watch_catalogue(self) -> None:
        """Count the commits that change something, by the function that makes them, in the whole process."""
        original, boundaries = Database.transaction, self

        @contextmanager
        def transaction(self: Database) -> Iterator[Connection]:
            # 0 is this generator, 1 the context manager's __enter__, 2 whose transaction it is.
            caller = sys._getframe(2)
            what = f"commit of {caller.f_code.co_name} {caller.f_locals.get('event', '')}".rstrip()
            with original(self) as connection:
                before = _version(connection)
                yield connection
                changed = _version(connection) != before
                if changed:
                    boundaries.cross(f"before {what}")
            if changed:
                boundaries.cross(f"after {what}")

        Database.transaction = transaction  # type: ignore[method-assign]

    def watch_removals(self) -> None:
        """Count the removals of files of this machine, in the whole process."""
        unlink = os.unlink

        def counted(path: Any, *, dir_fd: int | None = None) -> None:
            with self.around("removal of a local file"):
                unlink(path, dir_fd=dir_fd)

        os.unlink = counted

    def watch_endpoint(self, endpoint: StorageEndpoint) -> StorageEndpoint:
        """The endpoint, with every call and every chunk counted."""
        return cast("StorageEndpoint", _Counted(endpoint, self))

    def chunks(self, chunks: Iterable[bytes], what: str) -> Iterator[bytes]:
        """The chunks, with a boundary before each."""
        for chunk in chunks:
            self.cross(f"in {what}")
            yield chunk


def _version(connection: Connection) -> tuple[int, int]:
    """Something that differs after every change of rows or of the schema."""
    return connection.total_changes, connection.execute("PRAGMA schema_version").fetchone()[0]


class _Counted:
    """An endpoint whose calls are counted. Whatever the port has, now or later, is passed on."""

    def __init__(self, endpoint: StorageEndpoint, boundaries: Boundaries) -> None:
        self._endpoint = endpoint
        self._boundaries = boundaries

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._endpoint, name)
        return self._counted(name, value) if callable(value) and name not in _LOCAL_CALLS else value

    def _counted(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        what = f"{name} at {self._endpoint.name}"

        def call(*arguments: Any, **keywords: Any) -> Any:
            # An endpoint that copies from another must see the other one itself.
            arguments = tuple(one._endpoint if isinstance(one, _Counted) else one for one in arguments)
            if name == "upload":
                path, chunks, *rest = arguments
                arguments = (path, self._boundaries.chunks(chunks, what), *rest)
            with self._boundaries.around(what):
                result = method(*arguments, **keywords)
            return self._boundaries.chunks(result, what) if name == "read" else result

        return call
