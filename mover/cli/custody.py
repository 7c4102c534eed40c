"""`mover custody`: whether the records are what was written, and the story of a run."""

import textwrap
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import click

from mover.catalogue import custody as records
from mover.catalogue.agreement import disagreements
from mover.catalogue.custody import Chain, CustodyRecord, Head
from mover.catalogue.runs import get_run
from mover.certificate.check import MAX_CERTIFICATE_BYTES, Checked, check_certificate
from mover.certificate.issue import make_statement, sign
from mover.cli.certificate import show_certificate, standing
from mover.cli.context import Context, pass_context
from mover.cli.jsonout import json_option, print_json
from mover.cli.tables import console, moment, printable
from mover.durable import new_file
from mover.errors import CatalogueError
from mover.naming import LARGEST_RUN
from mover.wiring import build_credentials

_RUN = click.argument("number", type=click.IntRange(min=0, max=LARGEST_RUN), metavar="RUN")
_CERTIFICATE = click.File("rb")
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
@click.option(
    "--certificate",
    "certificates",
    type=_CERTIFICATE,
    multiple=True,
    help="A custody certificate that was kept elsewhere: what it has of the chain must be in it.",
)
@json_option
@pass_context
def verify(context: Context, noted: list[Head], certificates: tuple[BinaryIO, ...], *, as_json: bool) -> None:
    """Check that no custody record was changed, removed or put in, and that the catalogue says what they say.

    That the end was cut off shows only against a head that was noted elsewhere: the engine logs 'custody head'.

    \b
    Examples:
      mover custody verify
      mover custody verify --expect 1234:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
      mover custody verify --certificate 4742.certificate
    """
    for file in certificates:
        noted += _heads_of(
            check_certificate(file.read(MAX_CERTIFICATE_BYTES + 1), context.config.credential.ca_directory, now=_now())
        )
    with context.catalogue_to_read() as database, database.snapshot():
        chain = records.verify(database, noted=noted)
        found = list(islice(disagreements(database), _SHOWN))
    if as_json:
        print_json(
            {
                "records": chain.records,
                "first_at": chain.first_at,
                "last_at": chain.last_at,
                "head": str(chain.head),
                "disagreements": found,
            }
        )
    else:
        _say(chain)
    if found:
        raise CatalogueError(
            "the catalogue does not say what its custody records say:"
            + "".join(f"\n  {printable(fault)}" for fault in found)
            + ("\n  and perhaps more" if len(found) == _SHOWN else ""),
            hint="somebody changed the catalogue outside the mover, or this is a bug; compare with a backup",
        )
    if not as_json:
        click.echo("the catalogue's states are what the records say")


def _say(chain: Chain) -> None:
    click.echo(
        f"custody: {chain.records} records" + (f" from {chain.first_at} to {chain.last_at}" if chain.records else "")
    )
    click.echo(f"custody head: {chain.head}")


@custody.command()
@_RUN
@json_option
@click.option(
    "--certificate",
    "file",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="Write a signed certificate of what is known to a new file, or to standard output (-).",
)
@pass_context
def show(context: Context, number: int, as_json: bool, file: Path | None) -> None:
    """Show the custody story of a run.

    A certificate states what the catalogue knows of the run, whether it is safe or not, and is signed with the mover's
    own Grid proxy, so that `mover custody check` can check it later and anywhere.

    \b
    Examples:
      mover custody show 4742
      mover custody show 4742 --json
      mover custody show 4742 --certificate 4742.certificate
    """
    if file is not None:
        _certify(context, number, file, as_json=as_json)
        return
    with context.catalogue_to_read() as database, database.snapshot():
        get_run(database, number)
        story = records.records(database, number)
    if as_json:
        print_json([_plain(one) for one in story])
        return
    out = console()
    for one in story:
        out.print(printable(f"{one.seq} {moment(one.at)} {one.by} {one.hash[:12]}: {one.event}"), soft_wrap=True)
        for fact in _facts(one.facts):
            out.print(textwrap.indent(printable(fact), "    "), soft_wrap=True)


@custody.command()
@click.argument("file", type=_CERTIFICATE)
@click.option(
    "--ca-directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/etc/grid-security/certificates"),
    show_default=True,
    help="The CAs that are trusted, with their revocation lists.",
)
@click.option(
    "--signer", help="The name of the robot that must have signed it, such as '/C=UK/O=Site/CN=Robot - mover'."
)
@json_option
def check(file: BinaryIO, ca_directory: Path, signer: str | None, as_json: bool) -> None:
    """Check a custody certificate, as at the time at which it says that it was signed.

    Neither the catalogue nor the configuration nor the network is needed.

    \b
    Examples:
      mover custody check 4742.certificate
      mover custody check 4742.certificate --ca-directory ca-of-2026 --signer '/C=UK/O=Site/CN=Robot - mover'
    """
    checked = check_certificate(file.read(MAX_CERTIFICATE_BYTES + 1), ca_directory, now=_now(), signer=signer)
    if as_json:
        print_json({"signer": checked.signer.identity, "statement": checked.statement.model_dump()})
    else:
        show_certificate(checked)


def _certify(context: Context, number: int, file: Path, *, as_json: bool) -> None:
    config = context.config
    places = {place.name: (place.site, place.kind.value) for place in config.endpoint}
    with context.catalogue_to_read() as database:
        statement = make_statement(database, number, experiment=config.experiment, places=places, now=_now())
    if file == Path("-"):
        click.echo(sign(statement, build_credentials(config).proxy()), nl=False)
        return
    with new_file(file) as partial:
        proxy = build_credentials(config).proxy()
        partial.write_bytes(sign(statement, proxy))
    if as_json:
        print_json({"file": str(file), "run": number, "state": statement.run.state, "signer": proxy.identity})
        return
    click.echo(f"{file}: {printable(standing(statement))}; signed by {printable(proxy.identity)}")


def _heads_of(checked: Checked) -> list[Head]:
    """What a certificate has of the whole chain."""
    chain = checked.statement.custody
    return [Head(chain.head_seq, chain.head_hash), *(Head(one.seq, one.hash) for one in chain.records)]


def _now() -> datetime:
    return datetime.now(UTC)


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


def _facts(facts: dict[str, object]) -> list[str]:
    return [f"{name} {_short(value)}" for name, value in facts.items() if value not in ([], None)]


def _short(value: object) -> str:
    """Members and parts may be thousands."""
    if isinstance(value, dict):
        return f"{len(value)} of them"
    if isinstance(value, list):
        return ", ".join(str(one) for one in value[:3]) + (f" and {len(value) - 3} more" if len(value) > 3 else "")
    return str(value)
