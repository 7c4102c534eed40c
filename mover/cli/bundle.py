"""`mover bundle`: about bundles."""

import click

from mover.catalogue.runs import list_bundles
from mover.cli.context import Context, pass_context
from mover.cli.tables import console, size, table


@click.group()
def bundle() -> None:
    """Look at bundles."""


@bundle.command("list")
@pass_context
def list_(context: Context) -> None:
    """List the bundles in the catalogue.

    \b
    Example:
      mover bundle list
    """
    with context.catalogue_to_read() as database:
        rows = [
            (
                str(one.run),
                one.lfn,
                size(one.size_bytes),
                one.digest.adler32 if one.digest else "not read yet",
                one.kind.value,
            )
            for one in list_bundles(database)
        ]
    console().print(table(("run", "bundle", "size", "adler32", "kind"), rows))
