"""The numbered schema files: each is applied in a transaction of its own, after a backup."""

import re
import sqlite3
from importlib import resources

from mover.errors import CatalogueError

_MIGRATION = re.compile(r"(\d{4})_\w+\.sql")


def shipped() -> list[tuple[int, list[str]]]:
    """The schema files of this release, in order, each split into statements."""
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
