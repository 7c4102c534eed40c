"""`proxyagent pin`: what a person says about PINs that machines use."""

from pathlib import Path

import click

from proxyagent import policy
from proxyagent.cli.words import TIMEOUT_SECONDS
from proxyagent.client import retry_sealed_pin


@click.group("pin", no_args_is_help=False)
def command() -> None:
    """PINs of robots that log in without a person."""


@command.command()
@click.option("--identity", "name", help="Whose PIN; needed where there are several identities.")
@click.pass_obj
def retry(config_path: Path, name: str | None) -> None:
    """Let the agent try a sealed PIN once more, after it failed. Every wrong try brings the dongle nearer to its lock.

    \b
    Example:
      proxyagent pin retry --identity mover
    """
    config = policy.load(config_path)
    seconds = 3 * config.agent.module_timeout_seconds + TIMEOUT_SECONDS
    waited = retry_sealed_pin(config.agent.socket, name, timeout_seconds=seconds)
    click.echo("the sealed PIN is tried again within half a minute" if waited else "no sealed PIN was waiting")
