"""Open the catalogue's SQLite file, bring its schema up to date, and run transactions on it."""

import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mover.catalogue import migrations
from mover.catalogue.backup import back_up_before_upgrade
from mover.catalogue.readonly import read_only_uri
from mover.errors import CatalogueError, OutputError

_BUSY_SECONDS = 30.0


class Database:
    """One connection, for one thread. Any number of processes may have the same catalogue open.

    Args:
        path: the file.
        create: make it if it is not there; its folder must exist.
        read_only: never write to it, nor bring its schema up to date; then it may be on a read-only disk.

    Raises:
        CatalogueError: it cannot be opened, is damaged, or is of another release.
    """

    def __init__(self, path: Path, *, create: bool = False, read_only: bool = False) -> None:
        self.path = path
        #: Which file it is, once SQLite has opened or made it.
        self._file: tuple[int, int] | None = None
        _refuse_special(path)
        mode = "rwc" if create else "rw"
        uri = read_only_uri(path) if read_only else f"{path.absolute().as_uri()}?mode={mode}"
        with _refusals(path, read_only=read_only):
            # Nothing but SQLite may ever open and close this file: closing it would drop the locks of all the
            # connections of this process (sqlite.org/howtocorrupt.html, section 2.2).
            self._connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None)
            try:
                self._prepare(create=create, read_only=read_only)
                self._file = _identity(path)
            except BaseException:
                self._connection.close()
                raise

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Everything in the block is committed at its end, or nothing is.

        Raises:
            CatalogueError: SQLite refuses (disk full, locked for too long, damaged), or the file was removed or
                replaced: SQLite would go on with one that nobody finds any more.
        """
        if self._file is not None and _identity(self.path) != self._file:
            raise CatalogueError(
                f"the catalogue {self.path} was removed or replaced while it was in use",
                hint="stop every mover; put the file or a backup back, or `mover catalogue rebuild`; then start again",
            )
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                # A full disk has rolled back already.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise CatalogueError(
                f"the catalogue {self.path} cannot be written: {error}",
                hint=_remedy(error) or "check the disk's space and health",
            ) from error

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Everything that is read in the block is of one moment; others may write meanwhile.

        The WAL grows until the block ends: keep it to minutes.
        """
        self.query("BEGIN")
        try:
            yield
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def query(self, statement: str, *values: object) -> list[sqlite3.Row]:
        """The rows of a SELECT.

        Raises:
            CatalogueError: SQLite refuses.
        """
        return list(self.iterate(statement, *values))

    def iterate(self, statement: str, *values: object) -> Iterator[sqlite3.Row]:
        """The rows of a SELECT, one at a time, for tables that may be larger than the memory.

        Raises:
            CatalogueError: SQLite refuses.
        """
        try:
            yield from self._connection.execute(statement, values)
        except sqlite3.Error as error:
            raise CatalogueError(
                f"the catalogue {self.path} cannot be read: {error}",
                hint=_remedy(error) or "check the disk's space and health; `mover catalogue check` looks for damage",
            ) from error

    @property
    def schema(self) -> int:
        """The schema's number."""
        return int(self._connection.execute("PRAGMA user_version").fetchone()[0])

    def copy_to(self, target: sqlite3.Connection) -> None:
        """Copy all of it, as it is at this moment, to another open database.

        Raises:
            sqlite3.Error: the copy cannot be written.
        """
        self._connection.backup(target)

    def _prepare(self, *, create: bool, read_only: bool) -> None:
        self._connection.row_factory = sqlite3.Row
        if read_only:
            self._check_schema()
            return
        if not create:
            self._check_not_empty()
        self._connection.execute("PRAGMA journal_mode = WAL")
        # A commit is on the disk when it returns: after a power cut no fact may be missing.
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("PRAGMA foreign_keys = ON")
        self._migrate()

    def _check_not_empty(self) -> None:
        """A file without anything in it is what a full disk or a lost file leaves: nobody but a maker may fill it."""
        if not self.schema and not self._connection.execute("SELECT 1 FROM sqlite_master").fetchone():
            raise CatalogueError(
                f"the catalogue {self.path} is empty",
                hint="restore a backup, or `mover catalogue rebuild`; if there never was one, the engine makes it",
            )

    def _check_schema(self) -> None:
        latest = len(migrations.shipped())
        self._check_ours(latest)
        self._check_not_empty()
        if self.schema < latest:
            raise CatalogueError(
                f"the catalogue {self.path} has schema {self.schema}, this release reads {latest}",
                hint="start the engine of this release: it brings the catalogue up to date, after a backup",
            )

    def _check_ours(self, latest: int) -> None:
        if not self.schema and self._connection.execute("SELECT 1 FROM sqlite_master").fetchone():
            raise CatalogueError(
                f"{self.path} is a database of something else",
                hint="mend `catalogue` in the configuration, or move the file away",
            )
        if self.schema > latest:
            raise CatalogueError(
                f"the catalogue {self.path} has schema {self.schema}, this release knows {latest}",
                hint="install the newer release again, or restore the backup made before the upgrade",
            )

    def _migrate(self) -> None:
        shipped = migrations.shipped()
        if self.schema == len(shipped):
            return
        with self.transaction():
            version = self.schema
            self._check_ours(len(shipped))
        if version:
            self._back_up(version)
        else:
            # At once: what another process sees of a new catalogue is all of it, and nothing to bring up to date.
            with self.transaction() as connection:
                self._apply(connection, shipped)
        for one in shipped[version:]:
            with self.transaction() as connection:
                self._apply(connection, [one])

    def _apply(self, connection: sqlite3.Connection, shipped: list[tuple[int, list[str]]]) -> None:
        """Apply those that nobody else has applied meanwhile."""
        for number, statements in shipped:
            if self.schema >= number:
                continue
            for statement in statements:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number}")

    def _back_up(self, version: int) -> None:
        try:
            with self.snapshot():
                # Another process may have been quicker.
                if self.schema == version:
                    back_up_before_upgrade(self._connection, self.path, version)
        except OutputError as error:
            raise CatalogueError(
                f"the catalogue is not brought up to date, because it cannot be backed up first: {error.message}",
                hint="make space beside it and start again; nothing was changed",
            ) from error


@contextmanager
def _refusals(path: Path, *, read_only: bool) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        hint = "check `catalogue` in the configuration, its folder's owner and the disk; the engine makes it"
        remedy = _remedy(error)
        if read_only and path.exists() and _code(error) in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}:
            remedy = "read it as its owner, or while the engine runs, or copy it, with its -wal, to where you may write"
        raise CatalogueError(f"cannot open the catalogue {path}: {error}", hint=remedy or hint) from error


def _remedy(error: sqlite3.Error) -> str | None:
    """What to do about an error that has one remedy only (sqlite.org/rescode.html); None about the others."""
    match _code(error):
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return "it is damaged: stop the engine, keep the file as evidence, and restore a backup that is well"
        case sqlite3.SQLITE_READONLY:
            return "do this as the user that the engine runs as, and see that its disk is not mounted read-only"
        case sqlite3.SQLITE_BUSY:
            return "another program holds its lock for too long: see which, and try again"
        case _:
            return None


def _code(error: sqlite3.Error) -> int:
    """The primary result code: extended ones add more above its byte."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF


def _refuse_special(path: Path) -> None:
    """Refuse what is no plain file, such as /dev/null: SQLite would hang at it, or seem to write."""
    try:
        is_plain = stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return  # it is not there, or SQLite says why it cannot be looked at
    if not is_plain:
        raise CatalogueError(f"the catalogue {path} is no plain file", hint="mend `catalogue` in the configuration")


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file has this name now; None if none has. It is not opened for that: see `Database.__init__`."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
