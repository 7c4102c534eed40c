"""Software releases that a person has approved here, beside those that CVMFS says are."""

from datetime import datetime

from mover.catalogue.custody import who
from mover.catalogue.database import Database


def approved_releases(database: Database) -> frozenset[str]:
    """Their names."""
    return frozenset(row["name"] for row in database.query("SELECT name FROM approved_release WHERE NOT withdrawn"))


def approve_release(database: Database, name: str, *, now: datetime) -> None:
    """Approve a release, with who did so and when."""
    with database.transaction() as connection:
        connection.execute(
            "INSERT INTO approved_release (name, at, by) VALUES (?, ?, ?) "
            "ON CONFLICT (name) DO UPDATE SET at = excluded.at, by = excluded.by, withdrawn = 0",
            (name, now.isoformat(), who()),
        )


def withdraw_release(database: Database, name: str, *, now: datetime) -> None:
    """Approve a release no longer."""
    with database.transaction() as connection:
        connection.execute(
            "UPDATE approved_release SET withdrawn = 1, at = ?, by = ? WHERE name = ?", (now.isoformat(), who(), name)
        )
