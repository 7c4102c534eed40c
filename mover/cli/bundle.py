"""`mover bundle`: about bundles."""

import click

from mover.catalogue.runs import list_bundles
from mover.cli.context import Context, pass_context
from mover.cli.jsonout import json_option, print_json
from mover.cli.tables import console, size, table


@click.group()
def bundle() -> None:
    """Look at bundles."""


@bundle.command("list")
@json_option
@pass_context
def list_(context: Context, *, as_json: bool) -> None:
    """List the bundles in the catalogue.

    \b
    Example:
      mover bundle list
    """
    with context.catalogue_to_read() as database:
        bundles = list_bundles(database)
    if as_json:
        print_json(
            [
                {
                    "run": one.run,
                    "kind": one.kind.value,
                    "lfn": one.lfn,
                    "size_bytes": one.size_bytes,
                    "adler32": one.digest.adler32 if one.digest else None,
                }
                for one in bundles
            ]
        )
        return
    rows = [
        (
            str(one.run),
            one.lfn,
            size(one.size_bytes),
            one.digest.adler32 if one.digest else "not read yet",
            one.kind.value,
        )
        for one in bundles
    ]
    console().print(table(("run", "bundle", "size", "adler32", "kind"), rows))
