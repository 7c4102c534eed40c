"""`proxyagent config`: about the configuration file."""

from collections.abc import Iterator
from pathlib import Path

import click

from proxyagent import policy
from proxyagent.cli.words import printable
from proxyagent.errors import ConfigError
from proxyagent.modules import check_module


@click.group("config", no_args_is_help=False)
def command() -> None:
    """Look at the configuration."""


@command.command()
@click.option("--only-file", is_flag=True, help="Not what it names on this machine, which may come later.")
@click.pass_obj
def check(config_path: Path, only_file: bool) -> None:
    """Say what is wrong with the file, then all that is wrong with what it names on this machine. No dongle is asked.

    \b
    Example:
      proxyagent --config proxyagent.toml config check
    """
    config = policy.load(config_path)
    faults = [] if only_file else list(_missing(config))
    if faults:
        raise ConfigError(
            f"{config_path} is well-formed, but on this machine: {'; '.join(faults)}",
            hint="mend them, or the configuration",
        )
    counts = f"identities: {len(config.identity)}, profiles: {len(config.profile)}"
    click.echo(printable(f"{config_path} is good: {counts}"))


def _missing(config: policy.Config) -> Iterator[str]:
    """What the configuration names and is not there, or may not be used."""
    for identity in config.identity:
        try:
            check_module(identity.module, config.agent.modules)
        except ConfigError as error:
            yield f"identity {identity.name}: {error.message}; {error.hint}"
    if not any(config.trust.ca_directory.glob("*.0")):
        yield f"trust.ca_directory: {config.trust.ca_directory} has no CA certificate (<hash>.0)"
    if config.voms is not None:
        if not config.voms.vomses.exists():
            yield f"voms.vomses: {config.voms.vomses} is not there"
        for vo in sorted({profile.vo for profile in config.profile if profile.vo is not None}):
            if not any((config.voms.vomsdir / vo).glob("*.lsc")):
                yield f"voms.vomsdir: {config.voms.vomsdir} has no .lsc file for {vo}"
