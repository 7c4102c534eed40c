"""`mover engine`: the daemon."""

import logging
import signal
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial

import click

from mover.cli.context import Context, pass_context
from mover.config import load_config
from mover.engine import Engine
from mover.wiring import SystemClock, endpoint_factory

_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_LOOK_SECONDS = 0.5


@click.command()
@pass_context
def engine(context: Context) -> None:
    """Notice ended runs and move them, until SIGTERM or Ctrl-C.

    \b
    Example:
      mover --config /etc/mover/mover.toml engine
    """
    # Libraries log every request at INFO, with headers: only ours is told so much.
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    logging.getLogger("mover").setLevel(logging.INFO)
    open_endpoints = endpoint_factory(context.config)
    # A handler interrupts the main thread wherever it is, perhaps holding a lock that `stop` needs: it only takes note.
    received: list[int] = []
    for number in _STOPPING:
        signal.signal(number, lambda number, _frame: received.append(number))
    # Whoever started us may have had them blocked.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)
    read_config = partial(load_config, context.config_path)
    daemon = Engine(context.config, open_endpoints, SystemClock(), read_config=read_config)
    logging.getLogger("mover").info(
        "engine started: runs in %s, catalogue %s", context.config.runs.directory, context.config.catalogue
    )
    with ThreadPoolExecutor(1, "engine") as pool:
        running = pool.submit(daemon.run)
        while not wait([running], timeout=_LOOK_SECONDS).done:
            if received:
                daemon.stop()
    running.result()
    logging.getLogger("mover").info("engine stopped")
