"""`mover catalogue`: is it whole, keep a copy of it, write it out."""

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import click

from mover.catalogue import custody
from mover.catalogue.backup import back_up
from mover.catalogue.check import CHECKS, faults
from mover.catalogue.export import export as export_lines
from mover.cli.context import Context, pass_context
from mover.cli.jsonout import json_option, print_json
from mover.cli.rebuild import rebuild
from mover.cli.tables import printable, size
from mover.durable import new_file
from mover.errors import CatalogueError

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.group()
def catalogue() -> None:
    """Look after the catalogue itself."""


catalogue.add_command(rebuild)


@catalogue.command()
@json_option
@pass_context
def check(context: Context, *, as_json: bool) -> None:
    """Check the catalogue's file, custody chain and states.

    The engine may run meanwhile. What is stored at the endpoints is not looked at.

    \b
    Example:
      mover catalogue check
    """
    found: list[str] = []
    checks: list[dict[str, object]] = []
    with context.catalogue_to_read() as database, database.snapshot():
        for name, one in CHECKS:
            these = faults(database, one)
            checks.append({"check": name, "faults": these})
            if not as_json:
                click.echo(f"{name}: {'ok' if not these else _count(these)}")
            found += [f"{name}: {fault}" for fault in these]
        head = custody.head(database) if not found else custody.START
    if as_json:
        print_json({"whole": not found, "checks": checks, "custody_head": None if found else str(head)})
    if found:
        path = context.config.catalogue
        raise CatalogueError(
            f"the catalogue {path} is not whole:" + "".join(f"\n  {printable(fault)}" for fault in found),
            hint="stop the engine, keep the file as evidence, and restore a backup that is well",
        )
    if not as_json:
        click.echo(f"custody head: {head}")


def _count(faults: list[str]) -> str:
    return "1 fault" if len(faults) == 1 else f"{len(faults)} faults"


@catalogue.command()
@click.argument("file", type=_FILE)
@json_option
@pass_context
def backup(context: Context, file: Path, *, as_json: bool) -> None:
    """Copy the catalogue to a new FILE, complete and checked, while the engine works.

    A backup is a catalogue: to restore it, stop the engine and put it in the catalogue's place.

    \b
    Example:
      mover catalogue backup /backup/catalogue-2026-11-22.sqlite
    """
    with context.catalogue_to_read() as database:
        back_up(database.copy_to, file)
    if as_json:
        print_json({"file": str(file), "size_bytes": file.stat().st_size})
        return
    click.echo(f"{file}: {size(file.stat().st_size)}, checked and on the disk")


@catalogue.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True), default=Path("-"))
@pass_context
def export(context: Context, file: Path) -> None:
    """Write every fact of the catalogue as JSON lines to a new FILE, or to standard output.

    docs/catalogue.md has the format.

    \b
    Examples:
      mover catalogue export /backup/catalogue-2026-11-22.jsonl
      mover catalogue export | gzip > catalogue.jsonl.gz
    """
    with context.catalogue_to_read() as database, closing(export_lines(database, now=datetime.now(UTC))) as lines:
        if file == Path("-"):
            for line in lines:
                click.echo(line)
            return
        with new_file(file) as partial, partial.open("w", encoding="ascii") as out:
            for line in lines:
                out.write(f"{line}\n")
