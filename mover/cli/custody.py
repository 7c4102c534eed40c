"""`mover custody`: whether the records are what was written, and the story of a run."""

import json
from itertools import islice

import click

from mover.catalogue import custody as records
from mover.catalogue.agreement import disagreements
from mover.catalogue.custody import CustodyRecord, Head
from mover.catalogue.runs import get_run
from mover.cli.context import Context, pass_context
from mover.cli.tables import console, moment, printable, table
from mover.errors import CatalogueError
from mover.naming import LARGEST_RUN

_RUN = click.argument("number", type=click.IntRange(min=0, max=LARGEST_RUN), metavar="RUN")
_SHOWN = 100


def _heads(_ctx: click.Context, _param: click.Parameter, texts: tuple[str, ...]) -> list[Head]:
    try:
        return [Head.parse(text) for text in texts]
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.group()
def custody() -> None:
    """The record of who found what about which run, when and how."""


@custody.command()
@click.option(
    "--expect",
    "noted",
    metavar="SEQ:HASH",
    multiple=True,
    callback=_heads,
    help="A head that was noted elsewhere, such as the last 'custody head' in the journal.",
)
@pass_context
def verify(context: Context, noted: list[Head]) -> None:
    """Check that no custody record was changed, removed or put in, and that the catalogue says what they say.

    That the end was cut off shows only against a head that was noted elsewhere: the engine logs 'custody head'.

    \b
    Examples:
      mover custody verify
      mover custody verify --expect 1234:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    """
    with context.catalogue_to_read() as database, database.snapshot():
        chain = records.verify(database, noted=noted)
        found = list(islice(disagreements(database), _SHOWN))
    click.echo(
        f"custody: {chain.records} records" + (f" from {chain.first_at} to {chain.last_at}" if chain.records else "")
    )
    click.echo(f"custody head: {chain.head}")
    if found:
        raise CatalogueError(
            "the catalogue does not say what its custody records say:"
            + "".join(f"\n  {printable(fault)}" for fault in found)
            + ("\n  and perhaps more" if len(found) == _SHOWN else ""),
            hint="somebody changed the catalogue outside the mover, or this is a bug; compare with a backup",
        )
    click.echo("the catalogue's states are what the records say")


@custody.command()
@_RUN
@click.option("--json", "as_json", is_flag=True, help="For programs: a JSON array of the records.")
@pass_context
def show(context: Context, number: int, as_json: bool) -> None:
    """Show the custody story of a run.

    \b
    Examples:
      mover custody show 4742
      mover custody show 4742 --json
    """
    with context.catalogue_to_read() as database, database.snapshot():
        get_run(database, number)
        story = records.records(database, number)
    if as_json:
        click.echo(json.dumps([_plain(one) for one in story], indent=1))
        return
    rows = [(str(one.seq), moment(one.at), one.by, one.hash[:12], one.event, _facts(one.facts)) for one in story]
    console().print(table(("record", "at", "by", "hash", "what", "facts"), rows))


def _plain(record: CustodyRecord) -> dict[str, object]:
    return {
        "seq": record.seq,
        "at": record.at.isoformat(),
        "run": record.run,
        "by": record.by,
        "event": record.event,
        "facts": record.facts,
        "hash": record.hash,
    }


def _facts(facts: dict[str, object]) -> str:
    said = ((name, value) for name, value in facts.items() if value not in ([], None))
    return "\n".join(f"{name} {_short(value)}" for name, value in said)


def _short(value: object) -> str:
    """Members and parts may be thousands."""
    if isinstance(value, dict):
        return f"{len(value)} of them"
    if isinstance(value, list):
        return ", ".join(str(one) for one in value[:3]) + (f" and {len(value) - 3} more" if len(value) > 3 else "")
    return str(value)
