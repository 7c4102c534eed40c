"""The claims on replicas that are held now, for people to look at."""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from mover.catalogue.database import Database
from mover.catalogue.owner import host_of, is_dead, is_of_this_machine


@dataclass(frozen=True, slots=True)
class HeldClaim:
    """Who works on a replica of a bundle of `size_bytes`, and until when nobody else does."""

    replica_id: int
    run: int
    endpoint: str
    size_bytes: int
    owner: str
    fence: int
    lease_until: datetime

    @property
    def host(self) -> str:
        """The machine of whoever holds it."""
        return host_of(self.owner)


_HELD = (
    "SELECT claim.*, replica.endpoint, bundle.run, bundle.size_bytes FROM claim "
    "JOIN replica ON replica.id = claim.replica_id JOIN bundle ON bundle.id = replica.bundle_id "
    "WHERE claim.owner NOTNULL "
)


def held_claims(database: Database) -> list[HeldClaim]:
    """The claims of engines on other machines: whether those still run cannot be known here."""
    found = _held(database.query(_HELD + "ORDER BY bundle.run, replica.id"))
    return [one for one in found if not is_of_this_machine(one.owner) or is_dead(one.owner)]


def claims_of(database: Database, run: int) -> list[HeldClaim]:
    """All claims on replicas of the run, whoever holds them."""
    return _held(database.query(_HELD + "AND bundle.run = ? ORDER BY replica.id", run))


def _held(rows: Iterable[sqlite3.Row]) -> list[HeldClaim]:
    return [
        HeldClaim(
            row["replica_id"],
            row["run"],
            row["endpoint"],
            row["size_bytes"],
            row["owner"],
            row["fence"],
            datetime.fromisoformat(row["lease_until"]),
        )
        for row in rows
    ]


def let_go(database: Database, claim: HeldClaim) -> bool:
    """Free a claim, unless it has changed hands since; the fence keeps its holder from committing."""
    with database.transaction() as connection:
        return bool(
            connection.execute(
                "UPDATE claim SET owner = NULL WHERE replica_id = ? AND owner = ? AND fence = ?",
                (claim.replica_id, claim.owner, claim.fence),
            ).rowcount
        )
