"""What is known of the endpoints' health, for people and for the choice of a source."""

import sqlite3
from dataclasses import dataclass
from datetime import datetime

from mover.catalogue.database import Database
from mover.errors import MoverError


@dataclass(frozen=True, slots=True)
class EndpointHealth:
    """An endpoint that does not answer, since when, and when it is asked again."""

    name: str
    since: datetime
    failures: int
    probe_at: datetime
    problem: str
    hint: str


def record_sick(
    database: Database, name: str, error: MoverError, *, failures: int, probe_at: datetime, now: datetime
) -> None:
    """Note that an endpoint is left alone until `probe_at`."""
    with database.transaction() as connection:
        connection.execute(
            "INSERT INTO endpoint (name, since, failures, probe_at, problem, hint) VALUES (?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (name) DO UPDATE SET failures = excluded.failures, probe_at = excluded.probe_at, "
            "problem = excluded.problem, hint = excluded.hint",
            (name, now.isoformat(), failures, probe_at.isoformat(), error.message, error.hint),
        )


def record_well(database: Database, name: str) -> None:
    """Note that an endpoint answers again."""
    with database.transaction() as connection:
        connection.execute("DELETE FROM endpoint WHERE name = ?", (name,))


def sick_endpoints(database: Database) -> dict[str, EndpointHealth]:
    """The endpoints that are left alone now, by name."""
    return {row["name"]: _health(row) for row in database.query("SELECT * FROM endpoint ORDER BY name")}


def _health(row: sqlite3.Row) -> EndpointHealth:
    return EndpointHealth(
        name=row["name"],
        since=datetime.fromisoformat(row["since"]),
        failures=row["failures"],
        probe_at=datetime.fromisoformat(row["probe_at"]),
        problem=row["problem"],
        hint=row["hint"],
    )
