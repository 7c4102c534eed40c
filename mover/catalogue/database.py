"""Open the catalogue's SQLite file, bring its schema up to date, and run transactions on it."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

from mover.errors import CatalogueError

_BUSY_SECONDS = 30.0
_MIGRATION = re.compile(r"(\d{4})_\w+\.sql")


class Database:
    """One connection, for one thread. Any number of processes may have the same catalogue open.

    Args:
        path: the file.
        create: make it if it is not there; its folder must exist.

    Raises:
        CatalogueError: it cannot be opened, is damaged, or was written by a newer release.
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        self.path = path
        try:
            # Nothing but SQLite may ever open and close this file: closing it would drop the locks of all the
            # connections of this process (sqlite.org/howtocorrupt.html, section 2.2).
            uri = f"{path.absolute().as_uri()}?mode={'rwc' if create else 'rw'}"
            self._connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None)
            self._connection.row_factory = sqlite3.Row
            self._connection.execute("PRAGMA journal_mode = WAL")
            # A commit is on the disk when it returns: after a power cut no fact may be missing.
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("PRAGMA foreign_keys = ON")
            self._migrate()
        except sqlite3.Error as error:
            raise CatalogueError(
                f"cannot open the catalogue {path}: {error}",
                hint="check `catalogue` in the configuration, its folder's owner and the disk; the engine makes it",
            ) from error

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Everything in the block is committed at its end, or nothing is.

        Raises:
            CatalogueError: SQLite refuses (disk full, locked for too long, damaged).
        """
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
                f"the catalogue {self.path} cannot be written: {error}", hint="check the disk's space and health"
            ) from error

    def query(self, statement: str, *values: object) -> list[sqlite3.Row]:
        """The rows of a SELECT.

        Raises:
            CatalogueError: SQLite refuses.
        """
        try:
            return self._connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise CatalogueError(
                f"the catalogue {self.path} cannot be read: {error}", hint="check the disk's space and health"
            ) from error

    def _migrate(self) -> None:
        migrations = _migrations()
        latest = len(migrations)
        if self._version() == latest:
            return
        with self.transaction() as connection:
            version = self._version()
            if not version and connection.execute("SELECT 1 FROM sqlite_master").fetchone():
                raise CatalogueError(
                    f"{self.path} is a database of something else",
                    hint="mend `catalogue` in the configuration, or move the file away",
                )
            if version > latest:
                raise CatalogueError(
                    f"the catalogue {self.path} has schema {version}, this release knows {latest}",
                    hint="install the newer release again, or restore the backup made before the upgrade",
                )
        if version:
            self._backup(version)
        for number, statements in migrations[version:]:
            with self.transaction() as connection:
                if self._version() >= number:
                    continue
                for statement in statements:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {number}")

    def _version(self) -> int:
        return int(self._connection.execute("PRAGMA user_version").fetchone()[0])

    def _backup(self, version: int) -> None:
        copy = sqlite3.connect(self.path.with_name(f"{self.path.name}.schema-{version}"))
        try:
            self._connection.backup(copy)
        finally:
            copy.close()


def _migrations() -> list[tuple[int, list[str]]]:
    """The numbered schema files, in order, each split into statements."""
    found = sorted(
        (int(named[1]), _statements(file.read_text(encoding="utf-8")))
        for file in resources.files("mover.catalogue").joinpath("schema").iterdir()
        if (named := _MIGRATION.fullmatch(file.name))
    )
    if [number for number, _ in found] != list(range(1, len(found) + 1)):
        raise CatalogueError("the schema files are not numbered 1, 2, 3, …", hint="install the release again")
    return found


def _statements(script: str) -> list[str]:
    # sqlite3's executescript would commit the transaction that a migration must be in.
    statements, pending = [], ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            statements.append(pending)
            pending = ""
    return statements
