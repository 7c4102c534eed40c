"""`mover engine`: the daemon."""

import logging
import signal
from concurrent.futures import ThreadPoolExecutor, wait

import click

from mover.cli.context import Context, pass_context
from mover.engine import Engine
from mover.wiring import SystemClock, build_endpoints

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
    endpoints = build_endpoints(context.config)
    # Looked at below, whatever mask we were started with: a handler could interrupt the main thread while it holds a
    # lock that `stop` needs. Threads inherit the mask. (Python 3.11's sigtimedwait reports signals that never were when
    # the process was stopped and continued.)
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
    daemon = Engine(context.config, endpoints, SystemClock())
    logging.getLogger("mover").info(
        "engine started: runs in %s, catalogue %s", context.config.runs.directory, context.config.catalogue
    )
    with ThreadPoolExecutor(1, "engine") as pool:
        running = pool.submit(daemon.run)
        while not wait([running], timeout=_LOOK_SECONDS).done:
            if signal.sigpending() & set(_STOPPING):
                daemon.stop()
    for endpoint in endpoints.values():
        endpoint.close()
    running.result()
    logging.getLogger("mover").info("engine stopped")
