"""`mover config`: about the configuration file."""

import click

from mover.cli.context import Context, pass_context


@click.group()
def config() -> None:
    """Look at the configuration."""


@config.command()
@pass_context
def check(context: Context) -> None:
    """Say everything that is wrong with the configuration at once.

    \b
    Example:
      mover --config mover.toml config check
    """
    loaded = context.config
    click.echo(f"{context.config_path} is good: experiment {loaded.experiment}, {len(loaded.endpoint)} endpoints")
