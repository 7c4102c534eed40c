"""The whole catalogue as JSON lines, for other programs and for ever: see docs/catalogue.md for the format."""

import json
from collections.abc import Generator
from datetime import datetime

from mover.catalogue import custody
from mover.catalogue.database import Database

FORMAT = "mover-catalogue"
VERSION = 1


def export(database: Database, *, now: datetime) -> Generator[str, None, None]:
    """A header, then a line a row, of every table, in an order that the same facts always have.

    All of it is of one moment. Each line is ASCII without a line feed.

    Raises:
        CatalogueError: the catalogue cannot be read.
    """
    with database.snapshot():
        tables = _tables(database)
        counts = {table: database.query(f"SELECT count(*) FROM {_quoted(table)}")[0][0] for table in tables}  # noqa: S608 - quoted
        yield _line(
            {
                "format": FORMAT,
                "version": VERSION,
                "schema": database.schema,
                "exported_at": now.isoformat(),
                "custody_head": str(custody.head(database)),
                "rows": counts,
            }
        )
        for table in tables:
            for row in database.iterate(f"SELECT * FROM {_quoted(table)} ORDER BY {_key(database, table)}"):  # noqa: S608 - quoted
                yield _line({"table": table, "row": dict(row)})


def _tables(database: Database) -> list[str]:
    rows = database.query(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%' ORDER BY name"
    )
    return [row["name"] for row in rows]


def _key(database: Database, table: str) -> str:
    """The columns of the primary key; every table of ours has one."""
    rows = database.query("SELECT name FROM pragma_table_info(?) WHERE pk > 0 ORDER BY pk", table)
    return ", ".join(_quoted(row["name"]) for row in rows)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _line(value: dict[str, object]) -> str:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
