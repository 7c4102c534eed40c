"""Run a daemon until a signal asks it to end."""

import logging
import signal
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Protocol

from proxyagent.client import Notifier

_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_LOOK_SECONDS = 0.5


class Daemon(Protocol):
    """What works until it is asked to stop."""

    def run(self) -> None:
        """Work until `stop`."""

    def stop(self) -> None:
        """Ask it to stop; from any thread."""


def log_to_stderr() -> None:
    """Log as the journal takes it. Libraries log every request at INFO, with headers: only ours is told so much."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    logging.getLogger("mover").setLevel(logging.INFO)


def run_until_signalled(daemon: Daemon, name: str) -> None:
    """Run it to its end, which SIGTERM, SIGINT and SIGHUP ask for. systemd hears that it runs, lives, and stops.

    The main thread does nothing else, so what its watchdog notices is a library that never lets another thread run.

    Raises:
        MoverError: what it ended with.
    """
    # A handler interrupts the main thread wherever it is, perhaps holding a lock that `stop` needs: it only takes note.
    received: list[int] = []
    for number in _STOPPING:
        signal.signal(number, lambda number, _frame: received.append(number))
    # Whoever started us may have had them blocked.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)
    notifier, told = Notifier(), ""
    with ThreadPoolExecutor(1, name.partition(" ")[0]) as pool:
        running = pool.submit(daemon.run)
        while not wait([running], timeout=_LOOK_SECONDS).done:
            notifier.feed()
            if received:
                daemon.stop()
            # One that cannot even begin ends before this.
            state = "stopping" if received else "ready"
            if state != told:
                told = state
                (notifier.stopping if received else notifier.ready)()
    running.result()
    logging.getLogger("mover").info("%s stopped", name)
