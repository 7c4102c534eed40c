"""Custody: an append-only, hash-chained record of who found what about which run, and when."""

import hashlib
import json
import os
import pwd
import sqlite3
from dataclasses import dataclass
from datetime import datetime

from mover.catalogue.database import Database
from mover.errors import CatalogueError

_GENESIS = "0" * 64


@dataclass(frozen=True, slots=True)
class CustodyRecord:
    """One fact, and who recorded it (user@host). `hash` covers it and the hash of the record before it."""

    seq: int
    at: datetime
    run: int
    by: str
    event: str
    facts: dict[str, object]
    hash: str


def append(connection: sqlite3.Connection, at: datetime, run: int, event: str, **facts: object) -> None:
    """Add a record, in the transaction that changes the state it speaks of."""
    last = connection.execute("SELECT seq, hash FROM custody ORDER BY seq DESC LIMIT 1").fetchone()
    seq, previous = (last["seq"] + 1, last["hash"]) if last else (1, _GENESIS)
    text = json.dumps(facts, sort_keys=True, ensure_ascii=True, default=str)
    record = (seq, at.isoformat(), run, _who(), event, text)
    connection.execute(
        "INSERT INTO custody (seq, at, run, by, event, facts, hash) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (*record, _hash(previous, record)),
    )


def records(database: Database, run: int) -> list[CustodyRecord]:
    """The records of one run, oldest first."""
    return [_record(row) for row in database.query("SELECT * FROM custody WHERE run = ? ORDER BY seq", run)]


def verify(database: Database) -> int:
    """Check the whole chain.

    Returns:
        The number of records.

    Raises:
        CatalogueError: a record was changed, removed or put in between.
    """
    previous, count = _GENESIS, 0
    for row in database.query("SELECT * FROM custody ORDER BY seq"):
        count += 1
        record = (row["seq"], row["at"], row["run"], row["by"], row["event"], row["facts"])
        if row["seq"] != count or row["hash"] != _hash(previous, record):
            raise CatalogueError(
                f"custody record {row['seq']} does not follow from the one before it",
                hint="somebody changed the catalogue outside the mover; compare with a backup",
            )
        previous = row["hash"]
    return count


def _hash(previous: str, record: tuple[int, str, int, str, str, str]) -> str:
    text = json.dumps([previous, *record], ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _record(row: sqlite3.Row) -> CustodyRecord:
    at = datetime.fromisoformat(row["at"])
    return CustodyRecord(row["seq"], at, row["run"], row["by"], row["event"], json.loads(row["facts"]), row["hash"])


def _who() -> str:
    try:
        user = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        user = str(os.geteuid())
    return f"{user}@{os.uname().nodename}"
