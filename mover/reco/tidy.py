"""Batch systems are told to forget attempts that are over; what they do not forget now, they are told again later."""

import logging
from datetime import datetime

from mover.catalogue.database import Database
from mover.catalogue.remains import Remains, due_remains, record_forgotten, record_not_forgotten, remains_of
from mover.errors import BatchError
from mover.ports import BatchSystem

log = logging.getLogger("mover")

_MOST_AT_ONCE = 10


def forget_attempt(database: Database, batch: BatchSystem, name: str, *, now: datetime) -> None:
    """Let the batch system forget the attempt of that name, whose end is committed."""
    for each in remains_of(database, name):
        _forget(database, batch, each, now=now)


def tidy_up(database: Database, batch: BatchSystem, *, now: datetime) -> None:
    """Let the batch system forget what it did not forget before, as far as that is due again.

    After the first failure the others wait for the next call: each may take as long as an answer may.
    """
    for each in due_remains(database, batch.name, now=now, most=_MOST_AT_ONCE):
        if not _forget(database, batch, each, now=now):
            return


def _forget(database: Database, batch: BatchSystem, remains: Remains, *, now: datetime) -> bool:
    try:
        batch.forget(remains.batch_id)
    except BatchError as error:
        log.warning("%s keeps something of %s: %s (%s)", batch.name, remains.name, error.message, error.hint)
        record_not_forgotten(database, remains, error, now=now)
        return False
    record_forgotten(database, remains)
    return True
