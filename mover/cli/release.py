"""`mover release`: remove the local files of runs that are safe on the storage at this moment."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

import click

from mover.catalogue.database import Database
from mover.catalogue.runs import RunRecord, get_run, list_runs
from mover.cli.context import Context, pass_context
from mover.cli.tables import moment, size
from mover.config import Config
from mover.errors import CatalogueError, MoverError, NotSafeError
from mover.naming import LARGEST_RUN
from mover.ports import StorageEndpoint
from mover.states import RunState
from mover.steps.release import check_release, release_run
from mover.steps.retention import fill_percent, kept_until, why_due
from mover.wiring import SystemClock


@click.command()
@click.argument("numbers", type=click.IntRange(min=0, max=LARGEST_RUN), metavar="[RUN…]", nargs=-1)
@click.option("--dry-run", is_flag=True, help="Ask the storage and say what would go; remove nothing.")
@click.option("--now", "at_once", is_flag=True, help="Do not wait for the end of the retention time of these runs.")
@click.option("--gone", is_flag=True, help="Take note that somebody has removed the local files of these runs.")
@pass_context
def release(context: Context, numbers: tuple[int, ...], dry_run: bool, at_once: bool, gone: bool) -> None:
    """Remove local files of safe runs, if the storage itself says at this moment that they are safe.

    Without RUN: of all runs that have been kept for the retention time, or, if the disk is filling up, of the oldest
    ones. Whatever the reason, no file goes before every endpoint of the policy has been asked.

    \b
    Examples:
      mover release --dry-run
      mover release 4742 --now
    """
    if at_once and not numbers:
        raise click.UsageError("--now is for the runs that you name")
    if gone and not at_once:
        raise click.UsageError("--gone is for runs that you name, with --now")
    refused, tried = 0, 0
    with context.catalogue() as database, context.endpoints() as endpoints:
        # Each once: a second time would only say that it is done.
        for record, why in _due(database, context.config, tuple(dict.fromkeys(numbers)), at_once=at_once):
            tried += 1
            try:
                click.echo(_release(database, context.config, record, endpoints, why, dry_run=dry_run, gone=gone))
            except CatalogueError:
                raise
            except MoverError as error:
                if len(set(numbers)) == 1:
                    raise
                refused += 1
                click.echo(f"run {record.number}: its local files stay: {error.message}", err=True)
    if not tried and not numbers:
        click.echo("no run is due: none is safe, or all of them are still kept")
    if refused:
        raise NotSafeError(
            f"the local files of {refused} runs stay", hint="the lines above say why; `mover run show RUN` says more"
        )


def _due(
    database: Database, config: Config, numbers: tuple[int, ...], *, at_once: bool
) -> Iterator[tuple[RunRecord, str]]:
    """The runs to release, each with the reason."""
    if at_once:
        for record in [get_run(database, number) for number in numbers]:
            yield record, "asked for"
        return
    named = [get_run(database, number) for number in numbers]
    for record in named or list_runs(database, states=[RunState.SAFE]):
        filled = fill_percent(config.runs.directory)
        why = why_due(record, config.release, now=datetime.now(UTC), fill_percent=filled)
        if why or (named and record.state is not RunState.SAFE):
            # Why one that is not safe cannot go is said by the release itself.
            yield record, why or ""
        elif named:
            click.echo(
                f"run {record.number}: kept until {moment(kept_until(record, config.release))}; --now does not wait",
                err=True,
            )


def _release(
    database: Database,
    config: Config,
    record: RunRecord,
    endpoints: Mapping[str, StorageEndpoint],
    why: str,
    *,
    dry_run: bool,
    gone: bool,
) -> str:
    run = record.number
    if dry_run:
        found = check_release(database, config, run, endpoints, gone=gone)
        return f"run {run}: {found.assessment}; {len(found.names)} files, {size(found.size_bytes)} would go ({why})"
    found = release_run(database, config, run, endpoints, clock=SystemClock(), gone=gone)
    return f"run {run}: {found.assessment}; {len(found.names)} files, {size(found.size_bytes)}, are removed ({why})"
