"""What the batch system says of attempts at jobs: facts of the name that each attempt has, which need no claim."""

from datetime import datetime

from mover.catalogue.database import Database
from mover.catalogue.jobs import note_remains_of
from mover.errors import MoverError


def record_batch_id(database: Database, name: str, batch_id: str | None) -> None:
    """Note the batch system's answer to the submission of that name; None: it has nothing of it any more."""
    with database.transaction() as connection:
        connection.execute("UPDATE job SET batch_id = ? WHERE name = ?", (batch_id, name))


def record_look(database: Database, name: str, *, phase: str, status: str, exit_code: int | None, ended: bool) -> None:
    """Note what the batch system says of the attempt of that name."""
    with database.transaction() as connection:
        connection.execute(
            "UPDATE job SET phase = ?, status = ?, exit_code = ?, ended = ?, missing_since = NULL WHERE name = ?",
            (phase, status, exit_code, ended, name),
        )


def record_end(database: Database, name: str, *, phase: str, status: str, exit_code: int | None, now: datetime) -> None:
    """Note that an attempt has ended which nobody wants: nothing is to be done about it, but that it be forgotten."""
    with database.transaction() as connection:
        connection.execute(
            "UPDATE job SET phase = ?, status = ?, exit_code = ?, ended = 1, missing_since = NULL WHERE name = ?",
            (phase, status, exit_code, name),
        )
        for row in connection.execute("SELECT * FROM job WHERE name = ?", (name,)).fetchall():
            note_remains_of(connection, row, now)


def record_missing(database: Database, name: str, *, now: datetime) -> None:
    """Note since when the batch system does not know the attempt."""
    with database.transaction() as connection:
        connection.execute(
            "UPDATE job SET missing_since = coalesce(missing_since, ?) WHERE name = ?", (now.isoformat(), name)
        )


def record_heartbeat(database: Database, name: str, heartbeat: str, *, now: datetime) -> None:
    """Note the attempt's sign of life; its time is when it was first seen so, by our clock."""
    with database.transaction() as connection:
        connection.execute(
            "UPDATE job SET heartbeat = ?, heartbeat_at = ? WHERE name = ? AND heartbeat IS NOT ?",
            (heartbeat, now.isoformat(), name, heartbeat),
        )


def record_job_problem(database: Database, name: str, error: MoverError) -> None:
    """Note what is wrong with the attempt of that name, while it goes on."""
    with database.transaction() as connection:
        connection.execute("UPDATE job SET problem = ?, hint = ? WHERE name = ?", (error.message, error.hint, name))
