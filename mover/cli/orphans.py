"""`mover orphans`: what earlier attempts left at the endpoints."""

from datetime import UTC, datetime

import click

from mover.cli.context import Context, pass_context
from mover.cli.tables import console, moment, size, table
from mover.errors import EndpointUnavailableError, MoverError
from mover.steps.orphans import Orphan, find_orphans, remove_orphan


@click.command()
@click.option("--remove", is_flag=True, help="Remove our own; what is not known to be ours is never touched.")
@pass_context
def orphans(context: Context, remove: bool) -> None:
    """Find temporary files of ours that nobody will use again, and files of others in our directories.

    \b
    Examples:
      mover orphans
      mover orphans --remove
    """
    rows, silent = [], []
    with context.catalogue() as database, context.endpoints() as endpoints:
        for endpoint in endpoints.values():
            try:
                for found in find_orphans(database, endpoint):
                    what = "ours, left by an earlier attempt" if isinstance(found, Orphan) else f"not ours: {found.why}"
                    if remove and isinstance(found, Orphan):
                        removed = remove_orphan(database, endpoint, found, now=datetime.now(UTC))
                        what = "ours, removed" if removed else "ours, in use again"
                    file = found.file
                    rows.append((endpoint.name, file.path, size(file.size_bytes), moment(file.modified), what))
            except MoverError as error:
                silent.append(f"{endpoint.name}: {error.message}")
    console().print(table(("endpoint", "file", "size", "modified", "whose"), rows))
    if silent:
        raise EndpointUnavailableError(
            "not everything could be looked at: " + "; ".join(silent), hint="mend that, and run it again"
        )
