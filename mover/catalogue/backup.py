"""Backups of the catalogue: complete, checked, on the disk, and never in another file's place."""

import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from itertools import count
from pathlib import Path

from mover.durable import new_file
from mover.errors import OutputError

_SUFFIXES = ("-journal", "-wal", "-shm")


def back_up(copy_to: Callable[[sqlite3.Connection], None], target: Path) -> None:
    """Copy an open catalogue to a new file `target`, while others work on it (SQLite's online backup).

    1. Copy. 2. Make the copy one file, without a WAL, so that it can be read from any disk. 3. Check it as a whole.
    4. Flush it, and give it its name.

    Args:
        copy_to: copies the catalogue to the open database that it is given.

    Raises:
        OutputError: the name is taken, there is no space, or what was written does not read back.
    """
    with new_file(target) as partial:
        try:
            with closing(sqlite3.connect(partial, isolation_level=None)) as copy:
                # 1. Nothing of it is used before it is complete, and it is flushed at the end: no journal is needed.
                copy.execute("PRAGMA journal_mode = OFF")
                copy.execute("PRAGMA synchronous = OFF")
                copy_to(copy)
                # 2
                copy.execute("PRAGMA journal_mode = DELETE")
            # 3
            with closing(sqlite3.connect(f"{partial.absolute().as_uri()}?mode=ro", uri=True)) as copy:
                found = copy.execute("PRAGMA integrity_check(1)").fetchone()[0]
        except sqlite3.Error as error:
            raise OutputError(
                f"cannot write the backup {target}: {error}",
                hint="make space on its disk, or give another; `mover catalogue check` looks for damage",
            ) from error
        finally:
            for suffix in _SUFFIXES:
                Path(f"{partial}{suffix}").unlink(missing_ok=True)
        if found != "ok":
            raise OutputError(
                f"the backup {target} does not read back: {found}",
                hint="`mover catalogue check` tells whether it is the catalogue that is damaged",
            )
        # 4 happens as the block ends.


def back_up_before_upgrade(connection: sqlite3.Connection, path: Path, version: int) -> None:
    """Keep the catalogue as it is, with schema `version`, beside it as `<name>.schema-<version>`, or `….2` and so on.

    An earlier upgrade may have failed after its backup: one that ends with the same custody record has the same facts,
    and is not made again.

    Raises:
        OutputError: there is no space, or the folder cannot be written.
    """

    def copy_to(copy: sqlite3.Connection) -> None:
        connection.backup(copy)

    head = _head(connection)
    for number in count(1):
        target = path.with_name(f"{path.name}.schema-{version}" + (f".{number}" if number > 1 else ""))
        if not target.exists():
            try:
                back_up(copy_to, target)
            except OutputError:
                # Another process may have been quicker, with the same facts or not.
                if not target.exists():
                    raise
            else:
                return
        with (
            suppress(sqlite3.Error),
            closing(sqlite3.connect(f"{target.absolute().as_uri()}?mode=ro", uri=True)) as old,
        ):
            if _head(old) == head and _version(old) == version:
                return


def _head(connection: sqlite3.Connection) -> str | None:
    row = connection.execute("SELECT hash FROM custody ORDER BY seq DESC LIMIT 1").fetchone()
    return None if row is None else str(row[0])


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
