"""`mover engine`: the daemon."""

import logging
from functools import partial

import click

from mover.cli.context import Context, pass_context
from mover.cli.daemon import log_to_stderr, run_until_signalled
from mover.cli.metrics import collector_of
from mover.config import load_config
from mover.engine import Engine
from mover.metrics.collector import served
from mover.wiring import SystemClock, endpoint_factory


@click.command()
@pass_context
def engine(context: Context) -> None:
    """Notice ended runs and move them, until SIGTERM or Ctrl-C.

    \b
    Example:
      mover --config /etc/mover/mover.toml engine
    """
    log_to_stderr()
    open_endpoints = endpoint_factory(context.config)
    read_config = partial(load_config, context.config_path)
    daemon = Engine(context.config, open_endpoints, SystemClock(), read_config=read_config)
    logging.getLogger("mover").info(
        "engine started: runs in %s, catalogue %s", context.config.runs.directory, context.config.catalogue
    )
    with served(context.config, collector_of(context.config)):
        run_until_signalled(daemon, "engine")
