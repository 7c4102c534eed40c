"""The daemons that work on a catalogue, and which configuration each goes by."""

from dataclasses import dataclass
from datetime import datetime

from mover.catalogue.database import Database
from mover.catalogue.owner import is_dead, is_of_this_machine, this_process


@dataclass(frozen=True, slots=True)
class ServiceRecord:
    """A daemon. `config` is the digest of the configuration that it was started with."""

    owner: str
    name: str
    started_at: datetime
    config: str


def record_service(database: Database, name: str, config: str, *, now: datetime) -> None:
    """Note that this process works as `name` from now on, and forget those of this machine that have ended."""
    with database.transaction() as connection:
        known = connection.execute("SELECT owner FROM service").fetchall()
        ended = [(row["owner"],) for row in known if is_dead(row["owner"])]
        connection.executemany("DELETE FROM service WHERE owner = ?", ended)
        connection.execute(
            "INSERT INTO service (owner, name, started_at, config) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (owner, name) DO UPDATE SET started_at = excluded.started_at, config = excluded.config",
            (this_process(), name, now.isoformat(), config),
        )


def services_here(database: Database) -> list[ServiceRecord]:
    """The daemons of this machine that run: of others it is not known whether they do."""
    return [one for one in _services(database) if is_of_this_machine(one.owner) and not is_dead(one.owner)]


def services_elsewhere(database: Database) -> list[ServiceRecord]:
    """The daemons that were started on other machines; whether they still run cannot be known here."""
    return [one for one in _services(database) if not is_of_this_machine(one.owner)]


def _services(database: Database) -> list[ServiceRecord]:
    return [
        ServiceRecord(row["owner"], row["name"], datetime.fromisoformat(row["started_at"]), row["config"])
        for row in database.query("SELECT * FROM service ORDER BY started_at, owner, name")
    ]
