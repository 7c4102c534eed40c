"""Tells the log the custody chain's head now and then: kept elsewhere, it shows later whether the chain was cut off."""

import logging
from datetime import UTC, datetime, timedelta

from mover.catalogue import custody
from mover.catalogue.database import Database
from mover.errors import CatalogueError
from mover.ports import Clock

log = logging.getLogger("mover")

_EVERY = timedelta(hours=1)


class HeadLog:
    """Logs `custody head SEQ:HASH`, but the same one only once."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._told = custody.START
        self._told_at = datetime.min.replace(tzinfo=UTC)

    @property
    def due(self) -> bool:
        """Whether an hour has passed; a clock that was set back makes it due too."""
        return not timedelta(0) <= self._clock.now() - self._told_at < _EVERY

    def tell(self, database: Database) -> None:
        """Log the head as it is now, if it is another than the last that was logged."""
        self._told_at = self._clock.now()
        try:
            head = custody.head(database)
        except CatalogueError as error:
            # Told at the engine's end too, which has its own reason by then.
            log.warning("no custody head: %s (%s)", error.message, error.hint)
            return
        if head != self._told:
            log.info("custody head %s", head)
            self._told = head
