"""Raw bundles that appear at the endpoint without us are found, adopted after the same checks, and reconstructed."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from mover.catalogue.database import Database
from mover.catalogue.runs import find_run
from mover.errors import AdoptionError, CatalogueError, FileMissingError
from mover.model import StoredFile
from mover.ports import StorageEndpoint
from mover.reco.threads import HelpfulThread, RecoSurroundings
from mover.steps.adopt import adopt
from mover.steps.stored import Patience, Sites
from mover.steps.walk import walk_bundles

log = logging.getLogger("mover")

#: In one look, `[reco] poll_seconds` apart.
_MOST_REQUESTS = 20
#: What is younger may still be written.
_SETTLED = timedelta(minutes=10)
#: What was refused is not read again for so long, unless it changed.
_REFUSED_FOR = timedelta(days=1)
#: After a walk that failed.
_TRY_AGAIN = timedelta(minutes=10)
_MOST_REFUSED = 10_000
_STAGE_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class _Refused:
    """A bundle that was not adopted, as it was then."""

    file: StoredFile
    until: datetime


class Finder(HelpfulThread):
    """Walks through the listings of `[reco] endpoint` every so often, a bounded number of requests at a time.

    What it finds it reads, one bundle after the other; runs of which there are files here are left to the engine.
    """

    def __init__(self, around: RecoSurroundings, every: timedelta) -> None:
        super().__init__("finder", around)
        self._every = every
        self._next_walk: datetime | None = None
        self._walk: Iterator[dict[int, StoredFile]] | None = None
        self._new: dict[int, StoredFile] = {}
        self._refused: dict[int, _Refused] = {}

    def help(self, database: Database, endpoints: Mapping[str, StorageEndpoint]) -> bool:
        """Adopt the next bundle that was found, or go on looking; False if it is not the time for either."""
        if not self._new:
            try:
                self._look(database, endpoints[self._around.reco.endpoint])
            except BaseException:
                self._walk = None
                self._next_walk = self._around.clock.now() + min(self._every, _TRY_AGAIN)
                raise
        if not self._new:
            return False
        run, file = next(iter(self._new.items()))
        del self._new[run]
        self._adopt(database, endpoints, run, file)
        return True

    def _look(self, database: Database, endpoint: StorageEndpoint) -> None:
        """Go on with the walk, until something new is found or so many requests were made."""
        now = self._around.clock.now()
        if self._walk is None:
            if self._next_walk is not None and now < self._next_walk:
                return
            self._next_walk = now + self._every
            self._walk = walk_bundles(endpoint, self._around.config.bundle.naming())
        for _ in range(_MOST_REQUESTS):
            self._go_on()
            found = next(self._walk, None)
            if found is None:
                self._walk = None
                self.say("")
                return
            self._new = {run: file for run, file in found.items() if self._is_new(database, run, file, now)}
            if self._new:
                return

    def _is_new(self, database: Database, run: int, file: StoredFile, now: datetime) -> bool:
        refused = self._refused.get(run)
        if refused is not None and refused.file == file and now < refused.until:
            return False
        settled = now - file.modified >= _SETTLED
        return settled and run >= self._around.reco.first_run and find_run(database, run) is None

    def _adopt(self, database: Database, endpoints: Mapping[str, StorageEndpoint], run: int, file: StoredFile) -> None:
        patience = Patience(_STAGE_SECONDS, self._wait, lambda _: self._go_on())
        now = self._around.clock.now()
        try:
            adopted = adopt(
                database, self._around.config, Sites(self._around.config, endpoints, patience), run, now=now
            )
        except (AdoptionError, FileMissingError) as error:
            log.warning("%s: run %d is not adopted: %s (%s)", self.name, run, error.message, error.hint)
            self._refused.pop(run, None)
            self._refused[run] = _Refused(file, now + _REFUSED_FOR)
            if len(self._refused) > _MOST_REFUSED:
                del self._refused[next(iter(self._refused))]
        except CatalogueError:
            # The engine or a person was quicker.
            if find_run(database, run) is None:
                raise
        else:
            log.info("%s: run %d was stored by others: %s is adopted", self.name, run, adopted.lfn)

    def _wait(self, seconds: float) -> None:
        self._around.stop.wait(seconds)
        self._go_on()
