"""`mover release`: remove the local files of runs that are safe on the storage at this moment."""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime

import click

from mover.catalogue.database import Database
from mover.catalogue.runs import RunRecord, get_run, list_runs
from mover.cli.context import Context, pass_context
from mover.cli.jsonout import json_option, print_json
from mover.cli.tables import moment, size
from mover.config import Config
from mover.errors import CatalogueError, MoverError, NotSafeError
from mover.naming import LARGEST_RUN
from mover.ports import StorageEndpoint
from mover.states import RunState
from mover.steps.release import Releasable, check_release, release_run
from mover.steps.retention import fill_percent, kept_until, why_due
from mover.wiring import SystemClock


@click.command()
@click.argument("numbers", type=click.IntRange(min=0, max=LARGEST_RUN), metavar="[RUN…]", nargs=-1)
@click.option("--dry-run", is_flag=True, help="Ask the storage and say what would go; remove nothing.")
@click.option("--now", "at_once", is_flag=True, help="Do not wait for the end of the retention time of these runs.")
@click.option("--gone", is_flag=True, help="Take note that somebody has removed the local files of these runs.")
@json_option
@pass_context
def release(
    context: Context, numbers: tuple[int, ...], dry_run: bool, at_once: bool, gone: bool, *, as_json: bool
) -> None:
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
    say = Said(as_json=as_json, dry_run=dry_run)
    with context.catalogue() as database, context.endpoints() as endpoints:
        # Each once: a second time would only say that it is done.
        for record, why in _due(
            database, context.config, tuple(dict.fromkeys(numbers)), at_once=at_once, kept=say.kept
        ):
            try:
                say.found(
                    record, _release(database, context.config, record, endpoints, dry_run=dry_run, gone=gone), why
                )
            except CatalogueError:
                raise
            except MoverError as error:
                if len(set(numbers)) == 1 and not as_json:
                    raise
                say.refused(record, error)
    say.end(named=bool(numbers))


class Said:
    """What is said of each run: as it comes for people, all at once for programs."""

    def __init__(self, *, as_json: bool, dry_run: bool) -> None:
        self._as_json = as_json
        self._dry_run = dry_run
        self._runs: list[dict[str, object]] = []
        self._errors: list[MoverError] = []

    def found(self, record: RunRecord, found: Releasable, why: str) -> None:
        """Its files went, or would go."""
        run, outcome = record.number, "would go" if self._dry_run else "removed"
        self._note(run, outcome, files=len(found.names), size_bytes=found.size_bytes, why=why)
        if not self._as_json:
            verb = "would go" if self._dry_run else "are removed"
            comma = "" if self._dry_run else ","
            amount = f"{len(found.names)} files, {size(found.size_bytes)}{comma}"
            click.echo(f"run {run}: {found.assessment}; {amount} {verb} ({why})")

    def kept(self, record: RunRecord, until: datetime) -> None:
        """Nobody needs its room yet."""
        self._note(record.number, "kept", until=until.isoformat())
        click.echo(f"run {record.number}: kept until {moment(until)}; --now does not wait", err=True)

    def refused(self, record: RunRecord, error: MoverError) -> None:
        """Its files must stay."""
        self._note(record.number, "stays", message=error.message, hint=error.hint)
        self._errors.append(error)
        click.echo(f"run {record.number}: its local files stay: {error.message}", err=True)

    def end(self, *, named: bool) -> None:
        """Say what is to be said of all of them.

        Raises:
            MoverError: files of some must stay.
        """
        if self._as_json:
            print_json({"dry_run": self._dry_run, "runs": self._runs})
        elif not self._runs and not named:
            click.echo("no run is due: none is safe, or all of them are still kept")
        if len(self._errors) == len(self._runs) == 1 and named:
            raise self._errors[0]
        if self._errors:
            raise NotSafeError(
                f"the local files of {len(self._errors)} runs stay",
                hint="the lines above say why; `mover run show RUN` says more",
            )

    def _note(self, run: int, outcome: str, **facts: object) -> None:
        empty = dict.fromkeys(("files", "size_bytes", "why", "until", "message", "hint"))
        self._runs.append({"run": run, "outcome": outcome, **empty, **facts})


def _due(
    database: Database,
    config: Config,
    numbers: tuple[int, ...],
    *,
    at_once: bool,
    kept: Callable[[RunRecord, datetime], None],
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
            kept(record, kept_until(record, config.release))


def _release(
    database: Database,
    config: Config,
    record: RunRecord,
    endpoints: Mapping[str, StorageEndpoint],
    *,
    dry_run: bool,
    gone: bool,
) -> Releasable:
    if dry_run:
        return check_release(database, config, record.number, endpoints, gone=gone)
    return release_run(database, config, record.number, endpoints, clock=SystemClock(), gone=gone)
