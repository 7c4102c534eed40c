"""What the shell completes beside commands and options: endpoints, campaigns, approved releases."""

from collections.abc import Callable
from contextlib import closing
from functools import wraps
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from mover.catalogue.approvals import approved_releases
from mover.catalogue.campaigns import list_campaigns
from mover.catalogue.database import Database
from mover.config import Config, load_config
from mover.errors import MoverError

_MOST = 50

Items = list[CompletionItem[str]]
Complete = Callable[[click.Context, click.Parameter, str], Items]


def _from_config(find: Callable[[Config], Items]) -> Complete:
    """Completion by the configuration that the command line names; nothing where that, or what it names, is no use."""

    @wraps(find)
    def complete(context: click.Context, _parameter: click.Parameter, incomplete: str) -> Items:
        path = context.find_root().params.get("config_path")
        try:
            found = find(load_config(path)) if isinstance(path, Path) else []
        except MoverError:
            # A shell that completes is no place for errors: the command itself tells them.
            return []
        return [one for one in found if str(one.value).startswith(incomplete)]

    return complete


@_from_config
def endpoint_names(config: Config) -> Items:
    """The configured endpoints."""
    return [CompletionItem(one.name, help=f"{one.kind} at {one.site}") for one in config.endpoint]


@_from_config
def campaign_numbers(config: Config) -> Items:
    """The latest campaigns."""
    with closing(Database(config.catalogue, read_only=True)) as database:
        return [
            CompletionItem(str(one.id), help=f"{one.state}: {one.chosen}") for one in list_campaigns(database)[:_MOST]
        ]


@_from_config
def release_names(config: Config) -> Items:
    """The software releases that were approved here."""
    with closing(Database(config.catalogue, read_only=True)) as database:
        return [CompletionItem(name) for name in sorted(approved_releases(database))]
