"""Removes the local files of safe runs when they are due, if the configuration leaves that to the engine."""

import logging
import threading
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import datetime, timedelta

from mover.catalogue.database import Database
from mover.catalogue.runs import RunRecord, list_runs
from mover.config import Config
from mover.configwatch import ConfigWatch
from mover.errors import CatalogueError, MoverError, StateError, StoppedError
from mover.lane import OpenEndpoints
from mover.ports import Clock, StorageEndpoint
from mover.states import RunState
from mover.steps.release import release_run
from mover.steps.retention import fill_percent, why_due

log = logging.getLogger("mover")

_LOOK_SECONDS = 60.0
_LONGEST_PAUSE_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why a run's files had to stay, when that was found out, and for how long nobody is asked again."""

    message: str
    at: datetime
    pause_seconds: float

    def lasts(self, now: datetime) -> bool:
        # A time that is still to come was set by a clock that was wrong.
        return timedelta() <= now - self.at < timedelta(seconds=self.pause_seconds)


class Releaser:
    """Looks every minute, on a thread of its own: storage that does not answer holds up nothing else.

    For a run that may not go, it is asked again after a minute, and then ever less often, up to once an hour. Nothing
    goes while `watch` says that the configuration has changed: a policy that asks for more by now must hold.

    `failure` is why it ended before it was asked to.
    """

    name = "release"

    def __init__(
        self,
        config: Config,
        open_endpoints: OpenEndpoints,
        clock: Clock,
        stop: threading.Event,
        watch: ConfigWatch,
    ) -> None:
        self.failure: BaseException | None = None
        self._config = config
        self._open_endpoints = open_endpoints
        self._clock = clock
        self._stop = stop
        self._watch = watch
        self._refusals: dict[int, _Refusal] = {}

    def run(self) -> None:
        """Work until `stop`. A catalogue that fails stops the engine."""
        try:
            with ExitStack() as stack:
                database = stack.enter_context(closing(Database(self._config.catalogue)))
                endpoints = self._open_endpoints()
                for endpoint in endpoints.values():
                    stack.callback(endpoint.close)
                while not self._stop.is_set():
                    self.look(database, endpoints)
                    self._stop.wait(_LOOK_SECONDS)
        except BaseException as error:  # the engine raises it again when all threads have ended
            self.failure = error
            self._stop.set()

    def look(self, database: Database, endpoints: Mapping[str, StorageEndpoint]) -> None:
        """Release what is due, oldest run first; a full disk hurries no longer than it is full.

        Raises:
            CatalogueError: the catalogue cannot be read or written.
        """
        if self._watch.is_outdated():
            return
        for record in list_runs(database, states=[RunState.SAFE]):
            if self._stop.is_set():
                return
            try:
                filled = fill_percent(self._config.runs.directory)
                now = self._clock.now()
                why = why_due(record, self._config.release, now=now, fill_percent=filled)
                refusal = self._refusals.get(record.number)
                if why and not (refusal and refusal.lasts(now)):
                    self._release(database, endpoints, record, why)
            except (StateError, StoppedError) as error:
                log.info("run %d: %s", record.number, error.message)
            except CatalogueError:
                raise
            except MoverError as error:
                self._refused(record.number, error)
            except Exception:
                # One run's odd files must not keep the others on a disk that fills up.
                log.exception("run %d: cannot be released", record.number)

    def _release(
        self, database: Database, endpoints: Mapping[str, StorageEndpoint], record: RunRecord, why: str
    ) -> None:
        found = release_run(database, self._config, record.number, endpoints, clock=self._clock, alive=self._alive)
        self._refusals.pop(record.number, None)
        log.info("run %d: released, %s; %s", record.number, why, found.assessment)

    def _alive(self, _bytes_done: int) -> None:
        if self._stop.is_set():
            raise StoppedError("interrupted", hint="start the engine again")

    def _refused(self, run: int, error: MoverError) -> None:
        """Log it once, and again when it is for another reason."""
        before = self._refusals.get(run)
        pause = min(2 * before.pause_seconds, _LONGEST_PAUSE_SECONDS) if before else _LOOK_SECONDS
        self._refusals[run] = _Refusal(error.message, self._clock.now(), pause)
        if before is None or before.message != error.message:
            log.warning("run %d: its local files stay: %s (%s)", run, error.message, error.hint)
