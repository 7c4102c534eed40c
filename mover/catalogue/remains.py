"""What batch systems may still keep of attempts that are over: noted with the end of each, until they forget it."""

import sqlite3
from dataclasses import dataclass
from datetime import datetime, timedelta

from mover.catalogue.database import Database
from mover.errors import MoverError

#: Some three days, after which a person has to look.
MOST_TRIES = 20
_FIRST = timedelta(minutes=1)
_LONGEST = timedelta(hours=6)
# Batch systems let go of what is older by themselves.
_SHOWN = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Remains:
    """An attempt of which the batch system may keep something, under its own id."""

    batch: str
    batch_id: str
    name: str
    tries: int
    next_attempt_at: datetime
    problem: str | None

    @property
    def given_up(self) -> bool:
        """Whether it was tried often enough."""
        return self.tries >= MOST_TRIES


def note_remains(connection: sqlite3.Connection, *, batch: str, batch_id: str, name: str, now: datetime) -> None:
    """Note, as a part of a transaction, that an attempt is over. Whoever does so tells the batch system at once.

    Should that one die before, others take it for due a minute later.
    """
    # Slurm may give an id again.
    connection.execute(
        "INSERT OR REPLACE INTO remains (batch, batch_id, name, since, next_attempt_at) VALUES (?, ?, ?, ?, ?)",
        (batch, batch_id, name, now.isoformat(), (now + _FIRST).isoformat()),
    )


def remains_of(database: Database, name: str) -> list[Remains]:
    """Those of the attempt of that name."""
    return [_remains(row) for row in database.query("SELECT * FROM remains WHERE name = ?", name)]


def due_remains(database: Database, batch: str, *, now: datetime, most: int) -> list[Remains]:
    """At most so many that the batch system of that name is to be told of again, the longest due first."""
    rows = database.query(
        "SELECT * FROM remains WHERE batch = ? AND tries < ? AND next_attempt_at <= ? ORDER BY next_attempt_at LIMIT ?",
        batch,
        MOST_TRIES,
        now.isoformat(),
        most,
    )
    return [_remains(row) for row in rows]


def troublesome_remains(database: Database) -> list[Remains]:
    """Those that the batch system did not forget when it was told to, the oldest first."""
    return [_remains(row) for row in database.query("SELECT * FROM remains WHERE tries > 0 ORDER BY since, batch_id")]


def record_forgotten(database: Database, remains: Remains) -> None:
    """Note that nothing is left of it."""
    with database.transaction() as connection:
        connection.execute("DELETE FROM remains WHERE batch = ? AND batch_id = ?", (remains.batch, remains.batch_id))


def record_not_forgotten(database: Database, remains: Remains, error: MoverError, *, now: datetime) -> None:
    """Note why it was not forgotten; the next try is after ever longer times. What is very old is noted no longer."""
    delay = min(_FIRST * 2 ** min(remains.tries, 20), _LONGEST)
    with database.transaction() as connection:
        connection.execute(
            "UPDATE remains SET tries = tries + 1, problem = ?, next_attempt_at = ? WHERE batch = ? AND batch_id = ?",
            (f"{error.message} ({error.hint})", (now + delay).isoformat(), remains.batch, remains.batch_id),
        )
        connection.execute("DELETE FROM remains WHERE since < ?", ((now - _SHOWN).isoformat(),))


def _remains(row: sqlite3.Row) -> Remains:
    values = {name: row[name] for name in Remains.__dataclass_fields__}
    return Remains(**{**values, "next_attempt_at": datetime.fromisoformat(row["next_attempt_at"])})
