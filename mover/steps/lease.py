"""How long a claim on a replica may last, and those that last longer than that."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from mover.catalogue.claims import HeldClaim, held_claims, let_go
from mover.catalogue.database import Database
from mover.config import Config, EndpointConfig
from mover.ports import SLOWEST_CHECKSUM_BYTES_PER_SECOND

#: Another engine may have been given other limits than this configuration has.
_MARGIN = 2.0


def needed_lease(place: EndpointConfig, size_bytes: int) -> timedelta:
    """A lease that outlasts the longest call of any step: a checksum of a large bundle.

    It is renewed when a third of it is gone, at the latest.
    """
    return 1.5 * timedelta(seconds=place.checksum_timeout_seconds + size_bytes / SLOWEST_CHECKSUM_BYTES_PER_SECOND)


@dataclass(frozen=True, slots=True)
class OverlongClaim:
    """A claim that ends later than any lease can: the clock of who made it was ahead. `str` is for people."""

    claim: HeldClaim

    def __str__(self) -> str:
        one = self.claim
        until = one.lease_until.strftime("%Y-%m-%d %H:%M:%SZ")
        return (
            f"run {one.run} at {one.endpoint}: an engine on {one.host} holds it until {until}, which is longer than "
            f"any lease: its clock was ahead; if no engine runs there any more, `mover run retry {one.run}` takes it up"
        )


def overlong_claims(database: Database, config: Config, *, now: datetime) -> list[OverlongClaim]:
    """The claims that would hold for longer than any lease, of engines of which it is not known that they run."""
    return [
        OverlongClaim(one)
        for one in held_claims(database)
        if (place := config.places.get(one.endpoint))
        and one.lease_until - now
        > _MARGIN * max(timedelta(seconds=config.engine.lease_seconds), needed_lease(place, one.size_bytes))
    ]


def free_overlong_claims(database: Database, config: Config, run: int, *, now: datetime) -> list[OverlongClaim]:
    """Free those of a run, because a person says that nobody works on them; return them.

    An engine that does so all the same has lost its claim by that, and commits and removes nothing.
    """
    found = [one for one in overlong_claims(database, config, now=now) if one.claim.run == run]
    return [one for one in found if let_go(database, one.claim)]
