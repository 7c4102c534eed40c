"""`mover catalogue rebuild`: the catalogue again, from the storage alone."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click

from mover.catalogue.database import Database
from mover.catalogue.jobs import JobKey
from mover.cli.completion import endpoint_names
from mover.cli.context import Context, pass_context
from mover.cli.jobdocument import key_document
from mover.cli.jsonout import json_option, print_json
from mover.cli.ranges import Number, each_run, parse_runs
from mover.cli.tables import printable
from mover.config import Config
from mover.durable import new_file
from mover.errors import AuditError, AuditIncompleteError, ConfigError, OutputError
from mover.model import BundleKind
from mover.steps.here import check_runs_are_here
from mover.steps.rebuild import Rebuilt, rebuild_run
from mover.steps.rebuildoutput import RebuiltOutput, rebuild_output
from mover.steps.stored import Patience, Sites
from mover.steps.walk import stored_outputs, stored_runs
from mover.wiring import build_endpoints

_Say = Callable[[Rebuilt | RebuiltOutput], None]
_JOB_KINDS = (BundleKind.RECO, BundleKind.MC)
_BESIDE = ("-wal", "-shm", "-journal")


@click.command()
@click.option(
    "--into",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    metavar="FILE",
    help="The new catalogue, which must not exist yet.",
)
@click.option("--deep", is_flag=True, help="Read every replica back and hold each byte against its manifest.")
@click.option(
    "--endpoint",
    "endpoints",
    multiple=True,
    metavar="NAME",
    shell_complete=endpoint_names,
    help="Ask there only (may be repeated).",
)
@click.option(
    "--runs",
    "ranges",
    multiple=True,
    metavar="RUN|A-B",
    help="Look for these by name too: a file that is on tape only may be in no listing (may be repeated).",
)
@click.option(
    "--stage-hours",
    type=Number(min=0, max=24 * 14),
    default=4.0,
    show_default=True,
    metavar="HOURS",
    help="How long to wait for a file to come from tape.",
)
@click.option(
    "--no-local-files", is_flag=True, help="The run directory is empty because no run has local files any more."
)
@json_option
@pass_context
def rebuild(
    context: Context,
    *,
    into: Path,
    deep: bool,
    endpoints: tuple[str, ...],
    ranges: tuple[str, ...],
    stage_hours: float,
    no_local_files: bool,
    as_json: bool,
) -> None:
    """Make the catalogue again from the manifests in the stored bundles. The old one is not touched.

    Every bundle that the endpoints list under the LFNs of the configuration is entered in the state that is proven now.
    The history is not stored: the new custody chain begins with what was found. Outputs of jobs are entered as
    collected, and the reco agent proves them again before they count. Exits with 7 if something does not fit together,
    with 13 if an endpoint could not be asked for something; the new catalogue is made all the same.
    A run without local files counts as released: a run directory without any run's files is refused.

    \b
    Examples:
      mover catalogue rebuild --into /var/lib/mover/new.sqlite
      mover catalogue rebuild --into new.sqlite --deep --runs 4000-5999
    """
    config = context.config
    if unknown := set(endpoints) - config.places.keys():
        raise ConfigError(f"there is no endpoint {min(unknown)!r}", hint=f"there are {', '.join(config.places)}")
    if not no_local_files:
        check_runs_are_here(config.runs.directory, config.runs.naming())
    named = _named(ranges)
    adapters = build_endpoints(config)
    sites = Sites(config, adapters, Patience(stage_hours * 3600, time.sleep), names=endpoints)
    say = _say_nothing if as_json else _say
    try:
        with _new_catalogue(into) as database:
            rebuilt = _rebuild_runs(database, config, sites, named, deep=deep, say=say)
            known = {one.run for one in rebuilt if one.state is not None}
            outputs = _rebuild_outputs(database, config, sites, named & known, say=say)
    finally:
        for adapter in adapters.values():
            adapter.close()
    if as_json:
        runs, made = [_document(one) for one in rebuilt], [_output_document(one) for one in outputs]
        print_json({"into": str(into), "entered": len(known), "runs": runs, "outputs": made})
    else:
        click.echo(f"{len(known)} runs are in {into}")
        if new := sum(one.is_new for one in outputs):
            click.echo(f"{new} outputs of jobs are in it: `mover reco agent` proves them again")
    _judge([*rebuilt, *outputs])


def _rebuild_runs(
    database: Database, config: Config, sites: Sites, named: set[int], *, deep: bool, say: _Say
) -> list[Rebuilt]:
    """Enter the runs that endpoints list, and those that were named."""
    rebuilt = []
    for run in sorted(_listed(config, sites, has_names=bool(named)) | named):
        one = rebuild_run(database, config, sites, run, deep=deep, now=datetime.now(UTC))
        if one is not None:
            say(one)
            rebuilt.append(one)
    return rebuilt


def _rebuild_outputs(
    database: Database, config: Config, sites: Sites, by_name: set[int], *, say: _Say
) -> list[RebuiltOutput]:
    """Enter the outputs that endpoints list, and those that the runs `by_name` have."""
    outputs = []
    for key in _listed_outputs(config, sites, by_name=by_name):
        output = rebuild_output(database, config, sites, key, now=datetime.now(UTC))
        if output is not None:
            say(output)
            outputs.append(output)
    return outputs


def _named(ranges: tuple[str, ...]) -> set[int]:
    try:
        return set(each_run(parse_runs(one) for one in ranges))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--runs") from error


def _listed(config: Config, sites: Sites, *, has_names: bool) -> set[int]:
    """The runs in the listings of all endpoints: one that cannot be listed is no endpoint without bundles."""
    naming = config.bundle.naming()
    if has_names and not naming.folder_patterns():
        return set()
    found: set[int] = set()
    for name in sites.names:
        runs = stored_runs(sites.endpoint(name), naming)
        click.echo(f"{name}: lists {len(runs)} bundles", err=True)
        found |= runs
    return found


def _listed_outputs(config: Config, sites: Sites, *, by_name: set[int]) -> list[JobKey]:
    """The outputs that endpoints list, and those that the runs `by_name` may have with the same releases."""
    naming = config.bundle.naming()
    found: set[tuple[int, BundleKind, str, int]] = set()
    kinds = [(kind, job) for kind in _JOB_KINDS if (job := config.job.of(kind)) is not None]
    for kind, job in kinds:
        if by_name and not all(job.output_folders(naming.steps)):
            continue
        for name in sites.names:
            outputs = stored_outputs(sites.endpoint(name), job, naming)
            found |= {(one.run, kind, one.release, one.iteration) for one in outputs}
    releases = {release for _, _, release, _ in found}
    found |= {(run, kind, release, 1) for run in by_name for kind, _ in kinds for release in releases}
    return [JobKey(run, kind, release, iteration) for run, kind, release, iteration in sorted(found)]


@contextmanager
def _new_catalogue(path: Path) -> Iterator[Database]:
    """A new catalogue that gets its name when it is complete."""
    for suffix in _BESIDE:
        if os.path.lexists(f"{path}{suffix}"):
            raise OutputError(
                f"{path}{suffix} is there: it belongs to a catalogue of that name",
                hint="give another name, or take it away if you know that nobody needs it",
            )
    with new_file(path) as partial:
        try:
            with closing(Database(partial, create=True)) as database:
                yield database
        finally:
            # Closing leaves none; a crash of SQLite's might.
            for suffix in _BESIDE:
                Path(f"{partial}{suffix}").unlink(missing_ok=True)


def _document(one: Rebuilt) -> dict[str, object]:
    return {"run": one.run, "state": one.state.value if one.state else None, **_found(one)}


def _output_document(one: RebuiltOutput) -> dict[str, object]:
    return {**key_document(one.key), "entered": one.is_new, **_found(one)}


def _found(one: Rebuilt | RebuiltOutput) -> dict[str, object]:
    return {
        "replicas": [{"endpoint": name, "state": state.value} for name, state in one.replicas],
        "troubles": list(one.troubles),
        "not_asked": list(one.unasked),
    }


def _say(one: Rebuilt | RebuiltOutput) -> None:
    states = ", ".join(f"{name} {state}" for name, state in one.replicas)
    if isinstance(one, Rebuilt):
        what, became = f"run {one.run}", f"{one.state}: {states}" if one.state else "not entered"
    else:
        what, became = str(one.key), f"to be proven again: {states}" if one.is_new else "not entered"
    click.echo(printable(f"{what}: {became}"))
    _say_troubles(what, one)


def _say_nothing(_one: Rebuilt | RebuiltOutput) -> None:
    pass


def _say_troubles(what: str, one: Rebuilt | RebuiltOutput) -> None:
    for text in one.troubles:
        click.echo(printable(f"{what}: {text}"), err=True)
    for text in one.unasked:
        click.echo(printable(f"{what}: not asked: {text}"), err=True)


def _judge(rebuilt: Sequence[Rebuilt | RebuiltOutput]) -> None:
    troubled = sum(bool(one.troubles) for one in rebuilt)
    unasked = sum(bool(one.unasked) for one in rebuilt)
    if troubled:
        raise AuditError(
            f"{troubled} of {len(rebuilt)} runs and outputs have something that does not fit together",
            hint="what differs is quarantined in the new catalogue, or not entered; ask the sites about it",
        )
    if unasked:
        raise AuditIncompleteError(
            f"of {unasked} of {len(rebuilt)} runs and outputs, not every endpoint could be asked",
            hint="the engine looks there before it copies anything; or remove the new catalogue and rebuild again",
        )
