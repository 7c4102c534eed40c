"""Whether the configuration file still says what a daemon was started with."""

import logging
import threading
from collections.abc import Callable

from mover.config import Config
from mover.errors import ConfigError

log = logging.getLogger("mover")


class ConfigWatch:
    """Asked before anything that a policy must allow: a new one may ask for more. Any thread may ask."""

    def __init__(
        self,
        config: Config,
        read: Callable[[], Config] | None = None,
        *,
        daemon: str = "engine",
        stopped: str = "no run becomes safe, and no local file is released",
    ) -> None:
        """`read` reads the file anew; without it, the configuration never changes.

        `stopped` says what the `daemon` does not do when it does.
        """
        self._config = config
        self._read = read
        self._daemon = daemon
        self._stopped = stopped
        self._lock = threading.Lock()
        self._why = ""

    def is_outdated(self) -> bool:
        """Whether the file says something else by now, or nothing that can be read; the log has each reason once."""
        if self._read is None:
            return False
        why = ""
        try:
            if self._read() != self._config:
                why = "the configuration has changed"
        except ConfigError as error:
            why = f"{error.message} ({error.hint})"
        with self._lock:
            if why and why != self._why:
                log.warning("%s: %s; restart the %s", self._stopped, why, self._daemon)
            self._why = why
        return bool(why)
