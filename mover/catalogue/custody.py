"""Custody: an append-only, hash-chained record of who found what about which run, and when.

What a record's facts must have, so that the states follow from the records (`mover.catalogue.replay`): `lfn` and
`size_bytes` where a bundle is planned or adopted, with its `kind` if that is not raw; `adler32` and `members` where its
digests become known; `endpoint` where it is about a replica. `lfn` tells which of a run's bundles is meant; without
it, the raw one is.
"""

import hashlib
import json
import os
import pwd
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from mover.catalogue.database import Database
from mover.errors import CatalogueError

GENESIS = "0" * 64
"""What stands for the hash before the first record."""

_HASH_DIGITS = 64


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


class Head(NamedTuple):
    """A record's place in the chain. As the last one it stands for all before it."""

    seq: int
    hash: str

    def __str__(self) -> str:
        """As people note it: 1234:9f86d0…, with all 64 digits."""
        return f"{self.seq}:{self.hash}"

    @classmethod
    def parse(cls, text: str) -> "Head":
        """What `str` made.

        Raises:
            ValueError: it is no such text.
        """
        seq, _, digest = text.strip().partition(":")
        if (
            not seq.isascii()
            or not seq.isdigit()
            or len(digest) != _HASH_DIGITS
            or set(digest) - set("0123456789abcdef")
        ):
            raise ValueError("not of the form SEQ:HASH, such as 1234:9f86d081… with all 64 digits")
        return cls(int(seq), digest)


START = Head(0, GENESIS)
"""The head of a chain without records."""


@dataclass(frozen=True, slots=True)
class Link:
    """A record as it is stored: the texts that its hash covers, and the hash before it."""

    seq: int
    at: str
    run: int
    by: str
    event: str
    facts: str
    previous: str
    hash: str

    def check(self) -> None:
        """See that the hash is that of the record and the hash before it.

        Raises:
            CatalogueError: it is not.
        """
        if self.hash != _hash(self.previous, (self.seq, self.at, self.run, self.by, self.event, self.facts)):
            raise CatalogueError(
                f"custody record {self.seq} does not follow from the one before it",
                hint="somebody changed the catalogue outside the mover; compare with a backup",
            )

    def record(self) -> CustodyRecord:
        """The record as it reads.

        Raises:
            CatalogueError: it is not one that the mover would write.
        """
        try:
            at, facts = datetime.fromisoformat(self.at), json.loads(self.facts)
        except (ValueError, RecursionError) as error:
            raise self._unreadable() from error
        if not isinstance(facts, dict) or at.tzinfo is None:
            raise self._unreadable()
        return CustodyRecord(self.seq, at, self.run, self.by, self.event, facts, self.hash)

    def _unreadable(self) -> CatalogueError:
        return CatalogueError(
            f"custody record {self.seq} is not one that the mover writes",
            hint="somebody changed the catalogue outside the mover; compare with a backup",
        )


@dataclass(frozen=True, slots=True)
class Chain:
    """What a check of the whole chain found: how many records, the times of the first and the last, and the head."""

    records: int
    first_at: str | None
    last_at: str | None
    head: Head


def append(connection: sqlite3.Connection, at: datetime, run: int, event: str, **facts: object) -> None:
    """Add a record, in the transaction that changes the state it speaks of."""
    last = connection.execute("SELECT seq, hash FROM custody ORDER BY seq DESC LIMIT 1").fetchone()
    seq, previous = (last["seq"] + 1, last["hash"]) if last else (1, GENESIS)
    text = json.dumps(facts, sort_keys=True, ensure_ascii=True, default=str)
    record = (seq, at.isoformat(), run, who(), event, text)
    connection.execute(
        "INSERT INTO custody (seq, at, run, by, event, facts, hash) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (*record, _hash(previous, record)),
    )


def head(database: Database) -> Head:
    """The last record's place in the chain. Noted elsewhere, it later shows whether the end was cut off."""
    rows = database.query("SELECT seq, hash FROM custody ORDER BY seq DESC LIMIT 1")
    return Head(rows[0]["seq"], rows[0]["hash"]) if rows else START


def links(database: Database, run: int) -> list[Link]:
    """The records of one run as they are stored, oldest first."""
    statement = (
        "SELECT custody.*, coalesce((SELECT hash FROM custody AS before WHERE before.seq = custody.seq - 1), ?) "
        "AS previous FROM custody WHERE run = ? ORDER BY seq"
    )
    return [_link(row, row["previous"]) for row in database.query(statement, GENESIS, run)]


def records(database: Database, run: int) -> list[CustodyRecord]:
    """The records of one run, oldest first.

    Raises:
        CatalogueError: one was changed so that it cannot be read.
    """
    return [link.record() for link in links(database, run)]


def verify(database: Database, *, noted: Iterable[Head] = ()) -> Chain:
    """Check the whole chain, a record at a time.

    Args:
        noted: heads that were written down elsewhere: they show a cut end, and a chain that was made anew.

    Raises:
        CatalogueError: a record was changed, removed or put in between, or the chain is not the one that was noted.
    """
    wanted = sorted(noted)
    place, first_at, last_at = START, None, None
    while wanted and wanted[0].seq == START.seq:
        _check_noted(wanted.pop(0), START)
    for link in _chain(database):
        if link.seq != place.seq + 1:
            raise CatalogueError(
                f"custody record {place.seq + 1} is missing",
                hint="somebody changed the catalogue outside the mover; compare with a backup",
            )
        link.check()
        place, last_at = Head(link.seq, link.hash), link.at
        first_at = first_at or link.at
        while wanted and wanted[0].seq == place.seq:
            _check_noted(wanted.pop(0), place)
    if wanted:
        raise CatalogueError(
            f"the custody chain ends with record {place.seq}, but record {wanted[-1].seq} was noted",
            hint="its end was cut off, or this is an older copy of the catalogue; compare with a backup",
        )
    return Chain(place.seq, first_at, last_at, place)


def _check_noted(noted: Head, found: Head) -> None:
    if noted != found:
        raise CatalogueError(
            f"custody record {found.seq} has the hash {found.hash}, but {noted.hash} was noted",
            hint="the chain was made anew after it was noted, or this is another catalogue; compare with a backup",
        )


def _chain(database: Database) -> Iterator[Link]:
    previous = GENESIS
    for row in database.iterate("SELECT * FROM custody ORDER BY seq"):
        yield _link(row, previous)
        previous = row["hash"]


def _link(row: sqlite3.Row, previous: str) -> Link:
    return Link(row["seq"], row["at"], row["run"], row["by"], row["event"], row["facts"], previous, row["hash"])


def _hash(previous: str, record: tuple[int, str, int, str, str, str]) -> str:
    text = json.dumps([previous, *record], ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def who() -> str:
    try:
        user = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        user = str(os.geteuid())
    return f"{user}@{os.uname().nodename}"
