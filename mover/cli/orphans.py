"""`mover orphans`: what earlier attempts left at the endpoints."""

from datetime import UTC, datetime

import click

from mover.catalogue.database import Database
from mover.cli.context import Context, pass_context
from mover.cli.jsonout import json_option, print_json
from mover.cli.tables import console, moment, printable, size, table
from mover.errors import CredentialError, EndpointUnavailableError, MoverError, StorageError
from mover.model import StoredFile
from mover.ports import StorageEndpoint
from mover.steps.orphans import Orphan, Stranger, Unlisted, find_orphans, remove_orphan


@click.command()
@click.option("--remove", is_flag=True, help="Remove our own; what is not known to be ours is never touched.")
@json_option
@pass_context
def orphans(context: Context, remove: bool, *, as_json: bool) -> None:
    """Find temporary files of ours that nobody will use again, and files of others in our directories.

    \b
    Examples:
      mover orphans
      mover orphans --remove
    """
    files: list[tuple[str, StoredFile, bool, str]] = []
    silent: list[tuple[str, MoverError]] = []
    with context.catalogue() as database, context.endpoints() as endpoints:
        for endpoint in endpoints.values():
            try:
                for found in find_orphans(database, endpoint):
                    if isinstance(found, Unlisted):
                        silent.append((f"{endpoint.name}: {found.folder} (but for what may be ours)", found.error))
                        continue
                    whose = _deal_with(database, endpoint, found, remove=remove)
                    files.append((endpoint.name, found.file, isinstance(found, Orphan), whose))
            except (StorageError, CredentialError) as error:
                silent.append((endpoint.name, error))
    if as_json:
        print_json(_document(files, silent))
    elif files:
        rows = [
            (name, file.path, size(file.size_bytes), moment(file.modified), whose) for name, file, _, whose in files
        ]
        console().print(table(("endpoint", "file", "size", "modified", "whose"), rows))
    elif not silent:
        click.echo("there is nothing but bundles")
    if silent:
        _refuse(silent)


def _document(
    files: list[tuple[str, StoredFile, bool, str]], silent: list[tuple[str, MoverError]]
) -> dict[str, object]:
    return {
        "files": [
            {
                "endpoint": name,
                "path": file.path,
                "size_bytes": file.size_bytes,
                "modified": file.modified.isoformat(),
                "ours": ours,
                "whose": whose,
            }
            for name, file, ours, whose in files
        ],
        "not_looked_at": [{"where": where, "message": error.message, "hint": error.hint} for where, error in silent],
    }


def _deal_with(database: Database, endpoint: StorageEndpoint, found: Orphan | Stranger, *, remove: bool) -> str:
    """Remove what is ours, if that is wanted; whose it is, and what became of it."""
    if isinstance(found, Stranger):
        return f"not ours: {found.why}"
    if not remove:
        return "ours, left by an earlier attempt"
    removed = remove_orphan(database, endpoint, found, now=datetime.now(UTC))
    return "ours, removed" if removed else "ours, in use again"


def _refuse(silent: list[tuple[str, MoverError]]) -> None:
    """Say what could not be looked at, and exit with what is to be mended first.

    Raises:
        CredentialError: there is no proxy to ask with.
        EndpointUnavailableError: an endpoint does not answer, or does not list a directory.
    """
    for where, error in silent:
        click.echo(printable(f"not looked at: {where}: {error.message}"), err=True)
    for _, error in silent:
        if isinstance(error, CredentialError):
            raise error
    raise EndpointUnavailableError(
        "not everything could be looked at: the lines above say why", hint="mend that, and run it again"
    )
