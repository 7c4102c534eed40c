"""`mover engine`: the daemon."""

import logging
import signal

import click

from mover.cli.context import Context, pass_context
from mover.engine import Engine
from mover.wiring import SystemClock, build_endpoints


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
    daemon = Engine(context.config, endpoints, SystemClock())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: daemon.stop())
    logging.getLogger("mover").info(
        "engine started: runs in %s, catalogue %s", context.config.runs.directory, context.config.catalogue
    )
    try:
        daemon.run()
    finally:
        for endpoint in endpoints.values():
            endpoint.close()
    logging.getLogger("mover").info("engine stopped")
