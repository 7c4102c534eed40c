"""What the agent's threads have in common: each has a connection and adapters of its own, and works until the stop."""

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass

from mover.catalogue.database import Database
from mover.config import Config
from mover.errors import CatalogueError, MoverError, StoppedError, UnexpectedError
from mover.ports import BatchSystem, Clock, StorageEndpoint
from mover.reco.recalls import Recalls
from mover.reco.releases import Releases
from mover.recoconfig import RecoConfig

log = logging.getLogger("mover")


@dataclass(frozen=True, slots=True)
class RecoSurroundings:
    """What all threads of an agent share. `batch` may be used from several of them."""

    config: Config
    reco: RecoConfig
    open_endpoints: Callable[[], Mapping[str, StorageEndpoint]]
    batch: BatchSystem
    releases: Releases
    clock: Clock
    stop: threading.Event
    wake: threading.Event
    recalls: Recalls


class AgentThread(ABC):
    """Works until `stop` is set. `failure` is why it ended before that."""

    def __init__(self, name: str, around: RecoSurroundings) -> None:
        self.name = name
        self.failure: BaseException | None = None
        self._around = around

    def run(self) -> None:
        """Work until the agent stops. A catalogue that fails stops the agent."""
        around = self._around
        try:
            with ExitStack() as stack:
                database = stack.enter_context(closing(Database(around.config.catalogue)))
                endpoints = around.open_endpoints()
                for endpoint in endpoints.values():
                    stack.callback(endpoint.close)
                while not around.stop.is_set():
                    if not self.work_once(database, endpoints):
                        around.stop.wait(around.reco.poll_seconds)
        except BaseException as error:  # the agent raises it again when all threads have ended
            self.failure = error
        finally:
            around.stop.set()
            around.wake.set()

    @abstractmethod
    def work_once(self, database: Database, endpoints: Mapping[str, StorageEndpoint]) -> bool:
        """Do one piece of work that is due; False if none is.

        Raises:
            CatalogueError: the catalogue fails.
        """


class HelpfulThread(AgentThread):
    """Work that others can do without: what fails is said once, and tried again."""

    def __init__(self, name: str, around: RecoSurroundings) -> None:
        super().__init__(name, around)
        self._trouble = ""

    def work_once(self, database: Database, endpoints: Mapping[str, StorageEndpoint]) -> bool:
        """Do one piece of work; False if none is due, or it failed."""
        try:
            done = self.help(database, endpoints)
        except (CatalogueError, StoppedError) as error:
            if isinstance(error, StoppedError):
                return False
            raise
        except MoverError as error:
            self.say(f"{error.message} ({error.hint})")
            return False
        except Exception as error:
            log.exception("%s", self.name)
            self.say(UnexpectedError(error).message)
            return False
        return done

    @abstractmethod
    def help(self, database: Database, endpoints: Mapping[str, StorageEndpoint]) -> bool:
        """Do one piece of work that is due; False if none is."""

    def _go_on(self) -> None:
        """Raise StoppedError if the agent stops."""
        if self._around.stop.is_set():
            raise StoppedError("interrupted, to be taken up again", hint="start the agent again")

    def say(self, trouble: str) -> None:
        """Log the trouble once when it begins or changes, and once when it ends ('')."""
        if trouble != self._trouble:
            log.warning("%s: %s", self.name, trouble or "all is well again")
            self._trouble = trouble
