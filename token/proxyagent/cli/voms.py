"""`proxyagent voms`: the process with a network, beside the agent that has none."""

from pathlib import Path
from typing import NoReturn

import click

from proxyagent import policy
from proxyagent.cli.words import log_to_stderr
from proxyagent.errors import ConfigError
from proxyagent.hardening import harden_process
from proxyagent.systemd import Notifier
from proxyagent.voms.service import VomsFetcher


@click.command("voms")
@click.pass_obj
def command(config_path: Path) -> NoReturn:
    """Fetch VOMS attribute certificates for the agent, in the foreground until SIGTERM.

    \b
    Example:
      proxyagent voms
    """
    config = policy.load(config_path)
    if config.voms is None:
        raise ConfigError("there is no [voms] section", hint="add one with the uid of this process's user")
    harden_process()
    log_to_stderr()
    notifier = Notifier()
    notifier.ready()
    click.echo("proxyagent voms serves the agent")
    VomsFetcher(config, config.voms).run(notifier.feed)
