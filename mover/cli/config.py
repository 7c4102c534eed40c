"""`mover config`: about the configuration file."""

import os
import stat
from collections.abc import Iterator
from itertools import combinations
from os.path import normpath
from urllib.parse import urlsplit

import click

from mover.cli.context import Context, pass_context
from mover.cli.jsonout import json_option, print_json
from mover.config import Config
from mover.errors import ConfigError


@click.group()
def config() -> None:
    """Look at the configuration."""


@config.command()
@click.option("--only-file", is_flag=True, help="Not what it names on this machine, which may come later.")
@json_option
@pass_context
def check(context: Context, only_file: bool, *, as_json: bool) -> None:
    """Say everything that is wrong at once: with the file, and with what it names on this machine.

    \b
    Example:
      mover --config mover.toml config check
    """
    loaded = context.config
    doubts = list(_doubtful(loaded))
    for doubt in doubts:
        click.echo(f"warning: {doubt}", err=True)
    faults = [] if only_file else list(_missing(loaded))
    if as_json:
        print_json(
            {
                "file": str(context.config_path),
                "good": not faults,
                "experiment": loaded.experiment,
                "endpoints": list(loaded.places),
                "warnings": doubts,
                "faults": faults,
            }
        )
    if faults:
        raise ConfigError(
            f"{context.config_path} is well-formed, but on this machine\n" + "\n".join(f"  {one}" for one in faults),
            hint="mend them, or the configuration; run this as the user that the engine runs as",
        )
    if not as_json:
        click.echo(f"{context.config_path} is good: experiment {loaded.experiment}, {len(loaded.endpoint)} endpoints")


def _doubtful(loaded: Config) -> Iterator[str]:
    """Endpoints that may be one storage, reached in two ways: nobody can tell by URLs alone."""
    for one, other in combinations(loaded.endpoint, 2):
        urls = [urlsplit(place.url) for place in (one, other)]
        hosts, paths = {url.hostname for url in urls}, {normpath(f"/{url.path.lstrip('/')}") for url in urls}
        if len(hosts) == len(paths) == 1:
            yield (
                f"{one.name} and {other.name} have the same host and path: if that is one storage, "
                "one copy of a bundle would count as two; keep only one of them"
            )


def _missing(loaded: Config) -> Iterator[str]:
    """What the configuration names and is not there, or not for this user."""
    runs, folder = loaded.runs.directory, loaded.catalogue.parent
    if not runs.is_dir():
        yield f"runs.directory: {runs} is not a folder"
    elif not os.access(runs, os.R_OK | os.W_OK | os.X_OK):
        yield f"runs.directory: {runs} cannot be read and written (released files are removed from it)"
    if not folder.is_dir():
        yield f"catalogue: its folder {folder} is not there"
    elif loaded.catalogue.exists() and not loaded.catalogue.is_file():
        yield f"catalogue: {loaded.catalogue} is no plain file"
    elif not os.access(folder, os.W_OK | os.X_OK):
        yield f"catalogue: {loaded.catalogue} cannot be written"
    if not any(loaded.credential.ca_directory.glob("*.0")):
        yield f"credential.ca_directory: {loaded.credential.ca_directory} has no CA certificate (<hash>.0)"
    try:
        if not stat.S_ISSOCK(loaded.credential.agent.stat().st_mode):
            yield f"credential.agent: {loaded.credential.agent} is not a socket"
    except OSError as error:
        yield f"credential.agent: {loaded.credential.agent}: {error.strerror} (does `proxyagent serve` run?)"
