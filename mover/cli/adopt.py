"""`mover adopt`: take what others stored before us into the catalogue."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import click

from mover.cli.completion import endpoint_names
from mover.cli.context import Context, pass_context
from mover.cli.jsonout import json_option, print_json
from mover.cli.ranges import Number, each_run, parse_runs
from mover.cli.tables import printable
from mover.config import Config
from mover.errors import AdoptionError, ConfigError, FileMissingError
from mover.steps.adopt import Adoption
from mover.steps.adopt import adopt as adopt_run
from mover.steps.stored import Patience, Sites
from mover.wiring import build_endpoints


@click.command()
@click.argument("names", metavar="LFN|RUN|A-B…", nargs=-1, required=True)
@click.option(
    "--endpoint",
    "endpoints",
    multiple=True,
    metavar="NAME",
    shell_complete=endpoint_names,
    help="Ask there only (may be repeated).",
)
@click.option(
    "--stage-hours",
    type=Number(min=0, max=24 * 14),
    default=4.0,
    show_default=True,
    metavar="HOURS",
    help="How long to wait for a file to come from tape.",
)
@json_option
@pass_context
def adopt(
    context: Context, names: tuple[str, ...], endpoints: tuple[str, ...], stage_hours: float, *, as_json: bool
) -> None:
    """Read bundles that others made, compare them at every endpoint, and take them into the catalogue.

    A bundle is a tar of the run's files with their md5 digests in <run>.md5 among them, under the LFN that the
    configuration gives. Each is read once; nothing is changed at the storage. What the policy wants beside what is
    there, the engine copies. In a range, runs that are stored nowhere are passed over.

    \b
    Examples:
      mover adopt MICE/Step1/04700/04742.tar
      mover adopt 4742 5000-5099
    """
    config = context.config
    asked = [one for name in names for one in _runs(config, name)]
    if unknown := set(endpoints) - config.places.keys():
        raise ConfigError(f"there is no endpoint {min(unknown)!r}", hint=f"there are {', '.join(config.places)}")
    adapters = build_endpoints(config)
    sites = Sites(config, adapters, Patience(stage_hours * 3600, time.sleep), names=endpoints)
    adopted: list[Adoption] = []
    refused: list[tuple[int, AdoptionError]] = []
    nowhere = 0
    try:
        with context.catalogue(create=True) as database:
            for run, is_named in asked:
                try:
                    adopted.append(adopt_run(database, config, sites, run, now=datetime.now(UTC)))
                    if not as_json:
                        _say(adopted[-1])
                except FileMissingError:
                    if is_named:
                        raise
                    nowhere += 1
                except AdoptionError as error:
                    click.echo(printable(f"run {run}: not adopted: {error.message}"), err=True)
                    refused.append((run, error))
    finally:
        for adapter in adapters.values():
            adapter.close()
        if as_json:
            print_json(_document(adopted, refused, nowhere))
    _judge(len(asked), refused, nowhere)


def _runs(config: Config, name: str) -> Iterator[tuple[int, bool]]:
    """The runs that are meant, and whether each was named, or is one of a range."""
    run = config.bundle.naming().run_of(name)
    if run is not None:
        yield run, True
        return
    try:
        first, last = parse_runs(name)
        runs = list(each_run([(first, last)]))
    except ValueError as error:
        raise click.BadParameter(
            f"{error} (and it is no LFN by `lfn` in `[bundle]`)", param_hint="LFN|RUN|A-B"
        ) from error
    yield from ((run, first == last) for run in runs)


def _judge(asked: int, refused: list[tuple[int, AdoptionError]], nowhere: int) -> None:
    if nowhere:
        click.echo(f"{nowhere} of {asked} runs are stored nowhere", err=True)
    if refused:
        raise AdoptionError(f"{len(refused)} of {asked} runs were not adopted", hint=refused[0][1].hint)


def _document(adopted: list[Adoption], refused: list[tuple[int, AdoptionError]], nowhere: int) -> dict[str, object]:
    return {
        "adopted": [
            {
                "run": one.run,
                "lfn": one.lfn,
                "new": one.is_new,
                "replicas": [{"endpoint": name, "state": state.value} for name, state in one.replicas],
                "not_asked": list(one.unasked),
            }
            for one in adopted
        ],
        "refused": [{"run": run, "message": error.message, "hint": error.hint} for run, error in refused],
        "nowhere": nowhere,
    }


def _say(adopted: Adoption) -> None:
    if not adopted.is_new:
        click.echo(f"run {adopted.run}: adopted already")
        return
    states = ", ".join(f"{name} {state}" for name, state in adopted.replicas)
    click.echo(f"run {adopted.run}: adopted {adopted.lfn}: {states}")
    for text in adopted.unasked:
        click.echo(printable(f"run {adopted.run}: not asked: {text}"), err=True)
