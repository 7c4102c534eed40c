"""The daemon: notices ended runs, has lanes (threads) work the catalogue, and says when a run is safe.

Everything that matters is in the catalogue, so the engine may die anywhere.
"""

import logging
import threading
from collections.abc import Callable

from mover.catalogue.database import Database
from mover.catalogue.endpoints import record_well
from mover.catalogue.replicas import free_dead_claims
from mover.catalogue.runs import find_run, record_safe
from mover.catalogue.services import record_service
from mover.config import Config
from mover.configwatch import ConfigWatch
from mover.errors import CatalogueError, MoverError, RunError, StateError
from mover.headlog import HeadLog
from mover.lane import Gate, Lane, OpenEndpoints, Progress, Surroundings
from mover.model import BundleKind
from mover.ports import Clock
from mover.releaser import Releaser
from mover.states import RunState
from mover.steps.close import close_run
from mover.steps.standing import standings

log = logging.getLogger("mover")


class Engine:
    """Works a catalogue until it is asked to stop.

    Args:
        open_endpoints: makes an adapter for each configured endpoint; called once for each lane, which closes them.
        observe: told of progress, from the lanes' threads; must be quick.
        read_config: reads the configuration anew; by one that has changed since, no run becomes safe and none is
            released.
    """

    def __init__(
        self,
        config: Config,
        open_endpoints: OpenEndpoints,
        clock: Clock,
        *,
        observe: Callable[[Progress], None] = lambda _: None,
        read_config: Callable[[], Config] | None = None,
    ) -> None:
        self._config = config
        self._watch = ConfigWatch(config, read_config)
        self._open_endpoints = open_endpoints
        self._clock = clock
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._trouble = ""
        self._heads = HeadLog(clock)
        # What jobs make is moved by the reco agent, under its own credential.
        kinds = frozenset(BundleKind) if config.reco is None else frozenset({BundleKind.RAW})
        around = Surroundings(config, open_endpoints, clock, self._stop, self._wake, observe, kinds)
        gates = [Gate(config, place) for place in config.endpoint]
        self._lanes = [Lane(gate, around) for gate in gates for _ in range(gate.place.streams)]

    def run(self) -> None:
        """Work until `stop`. Every lane has ended when this returns.

        Raises:
            MoverError: the catalogue cannot be opened or written; the engine has stopped.
        """
        workers: list[Lane | Releaser] = [*self._lanes]
        if self._config.release.automatic:
            workers.append(Releaser(self._config, self._open_endpoints, self._clock, self._stop, self._watch))
        threads = [threading.Thread(target=worker.run, name=worker.name) for worker in workers]
        database = Database(self._config.catalogue, create=True)
        try:
            for place in self._config.endpoint:
                # What an engine before us found out is found out anew.
                record_well(database, place.name)
            record_service(database, "engine", self._config.digest(), now=self._clock.now())
            self._heads.tell(database)
            for thread in threads:
                thread.start()
            while not self._stop.is_set():
                self.look_around(database)
                if self._heads.due:
                    self._heads.tell(database)
                self._wake.wait(self._config.runs.poll_seconds)
                self._wake.clear()
        finally:
            self.stop()
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
            self._heads.tell(database)
            database.close()
        for worker in workers:
            if worker.failure is not None:
                raise worker.failure

    def stop(self) -> None:
        """Ask every lane to stop at the next safe moment; from any thread, but not from a signal handler."""
        self._stop.set()
        self._wake.set()

    def look_around(self, database: Database) -> None:
        """Close runs that have ended, note those that are safe, and free what engines that died had claimed.

        Raises:
            CatalogueError: the catalogue fails.
        """
        free_dead_claims(database)
        try:
            markers = _markers(self._config)
            self._say_of_directory("")
        except OSError as error:
            self._say_of_directory(f"cannot read the run directory {self._config.runs.directory}: {error.strerror}")
            markers = {}
        for run, marker_ns in sorted(markers.items()):
            known = find_run(database, run)
            if known is None or known.marker_ns != marker_ns:
                self._close(database, run, marker_ns)
        self._assess(database)

    def _say_of_directory(self, trouble: str) -> None:
        """Log the trouble once when it begins, and once when it ends."""
        if trouble != self._trouble:
            log.warning("%s", trouble or "the run directory can be read again")
            self._trouble = trouble

    def _close(self, database: Database, run: int, marker_ns: int) -> None:
        try:
            outcome = close_run(database, self._config, run, now=self._clock.now(), marker_ns=marker_ns)
            log.info("run %d: end of run noticed, %s", run, outcome)
        except RunError as error:
            log.error("run %d: needs a person: %s (%s)", run, error.message, error.hint)
        except StateError as error:
            # Another engine, or a person, was quicker; the next look sees what they made of it.
            log.info("run %d: %s", run, error.message)
        except CatalogueError:
            raise
        except MoverError as error:
            log.warning("run %d: cannot be closed now: %s (%s)", run, error.message, error.hint)
        except Exception:
            # One run's odd files must not stop the others.
            log.exception("run %d: cannot be closed", run)

    def _assess(self, database: Database) -> None:
        policy = self._config.raw_policy()
        for run, found in standings(database, self._config, policy, RunState.PLANNED):
            if not found.holds:
                continue
            if self._watch.is_outdated():
                return
            if record_safe(database, run, now=self._clock.now(), found=str(found)):
                log.info("run %d: %s", run, found)


def _markers(config: Config) -> dict[int, int]:
    """The runs that have an end-of-run marker, with its mtime in nanoseconds."""
    naming = config.runs.naming()
    found = {}
    for path in config.runs.directory.iterdir():
        run = naming.marked_run(path.name)
        if run is None:
            continue
        try:
            status = path.lstat()
        except FileNotFoundError:
            # A release removed it just now.
            continue
        except OSError as error:
            log.warning("cannot examine the marker %s: %s", path, error.strerror)
            continue
        # Whatever kind of file it is: closing the run says what is wrong with it.
        found[run] = status.st_mtime_ns
    return found
