"""`mover run`: close, show, wait for and retry a run."""

from collections.abc import Mapping
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console

from mover.catalogue import custody
from mover.catalogue.database import Database
from mover.catalogue.jobs import jobs_of
from mover.catalogue.replicas import ReplicaRecord, replicas_of_bundle, retry_replicas
from mover.catalogue.runs import BundleRecord, bundles_of, find_run, get_bundle, get_run
from mover.cli.context import Context, pass_context
from mover.cli.jobdocument import job_document, replica_document
from mover.cli.jsonout import json_option, print_json
from mover.cli.ranges import Number
from mover.cli.tables import console, moment, printable, size, table
from mover.cli.waiting import wait_until_safe
from mover.errors import MoverError, NoSourceError, RunError
from mover.naming import LARGEST_RUN
from mover.states import ReplicaState, RunState
from mover.steps.close import close_run, is_held
from mover.steps.hold import LetGo, check_reason, hold_run, let_go_run
from mover.steps.lease import OverlongClaim, free_overlong_claims, overlong_claims
from mover.steps.look import Looked, look_again
from mover.steps.route import Wait, Wanted, choose_route
from mover.steps.told import ToldRuns
from mover.wiring import SystemClock

_NUMBER = click.IntRange(min=0, max=LARGEST_RUN)
_SECONDS = Number(min=0, max=31 * 86400)
_RUN = click.argument("number", type=_NUMBER, metavar="RUN")


@click.group()
def run() -> None:
    """Act on a run, or look at it."""


@run.command()
@_RUN
@click.option("--force", is_flag=True, help="Take it although it is not complete; the findings go into its manifest.")
@json_option
@pass_context
def close(context: Context, number: int, force: bool, *, as_json: bool) -> None:
    """Say that a run has ended: check its files and plan its bundle. The engine does the rest.

    \b
    Example:
      mover run close 4742
    """
    with context.catalogue(create=True) as database:
        outcome = close_run(database, context.config, number, now=datetime.now(UTC), force=force)
    if as_json:
        print_json({"run": number, "outcome": outcome.value})
        return
    click.echo(f"run {number}: {outcome}")


@run.command("close-told")
@click.argument("directory", type=click.Path(path_type=Path), metavar="DIRECTORY")
@json_option
@pass_context
def close_told(context: Context, directory: Path, *, as_json: bool) -> None:
    """Close the runs after which somebody named files in DIRECTORY, and remove the files.

    For mover-close.service. What cannot be closed now stays there. What is not named after a run is renamed.

    \b
    Example:
      touch /var/spool/mover/ended/4742 && mover run close-told /var/spool/mover/ended
    """
    documents: list[dict[str, object]] = []
    told = ToldRuns(directory, context.config.runs.directory)
    with context.catalogue(create=True) as database:
        for number, told_ns in told.runs().items():
            try:
                outcome: str = close_run(database, context.config, number, now=datetime.now(UTC), marker_ns=told_ns)
            except RunError as error:
                # That is recorded; told again, it would be the same.
                outcome = f"needs a person: {error.message} ({error.hint})"
            told.forget(number, told_ns)
            documents.append({"run": number, "outcome": str(outcome)})
            if not as_json:
                click.echo(printable(f"run {number}: {outcome}"))
    if as_json:
        print_json({"runs": documents})


@run.command()
@_RUN
@json_option
@pass_context
def show(context: Context, number: int, *, as_json: bool) -> None:
    """Show a run's state, bundle, replicas and whole custody story.

    \b
    Example:
      mover run show 4742
    """
    with context.catalogue_to_read() as database:
        record = get_run(database, number)
        bundles = [(bundle, replicas_of_bundle(database, bundle.id)) for bundle in bundles_of(database, number)]
        jobs = jobs_of(database, number)
        story = custody.records(database, number)
        waiting = _waiting(context, database, [one for _, replicas in bundles for one in replicas])
        overlong = overlong_claims(database, context.config, now=datetime.now(UTC))
    told = [held for held in overlong if held.claim.run == number]
    if as_json:
        print_json(
            {
                "run": number,
                "state": record.state.value,
                "since": record.since.isoformat(),
                "closed_at": record.closed_at.isoformat(),
                "problem": record.problem,
                "hint": record.hint,
                "bundles": [_bundle_document(bundle, replicas, waiting) for bundle, replicas in bundles],
                "jobs": [job_document(job) for job in jobs],
                "overlong_claims": [str(held) for held in told],
                "custody": [
                    {"seq": one.seq, "at": one.at.isoformat(), "by": one.by, "event": one.event, "facts": one.facts}
                    for one in story
                ],
            }
        )
        return
    out = console()
    out.print(f"run {number}: {record.state} since {moment(record.since)}, closed {moment(record.closed_at)}")
    if record.problem:
        out.print(printable(f"problem: {record.problem}\nhint: {record.hint or ''}"), soft_wrap=True)
    for bundle, replicas in bundles:
        adler32 = bundle.digest.adler32 if bundle.digest else "not read yet"
        out.print(f"{bundle.kind} bundle: {bundle.lfn}, {size(bundle.size_bytes)}, adler32 {adler32}")
        out.print(table(("member", "size", "sha256"), _members(bundle)))
        _show_replicas(out, replicas, waiting)
    for held in told:
        out.print(printable(str(held)), soft_wrap=True)
    for job in jobs:
        out.print(f"the {job.key}: {job.state} since {moment(job.since)}", soft_wrap=True)
        if job.problem:
            out.print(printable(f"    {job.problem}\n    {job.hint}"), soft_wrap=True)
    for one in story:
        out.print(f"{moment(one.at)} {one.by}: {one.event}", soft_wrap=True)
        if one.facts:
            out.print(f"    {printable(_facts(one.facts))}", soft_wrap=True)


@run.command()
@_RUN
@click.option("--deadline", type=_SECONDS, default=3600.0, show_default=True, help="Seconds to wait.")
@json_option
@pass_context
def wait(context: Context, number: int, deadline: float, *, as_json: bool) -> None:
    """Wait until the run is safe; say why it is not, if it needs a person or the deadline passes.

    \b
    Example:
      mover run close 4742 && mover run wait 4742 --deadline 600
    """
    with context.catalogue_to_read() as database:
        if find_run(database, number) is None:
            click.echo(f"run {number} is not closed yet; waiting for its end", err=True)
        wait_until_safe(database, number, deadline_seconds=deadline)
    if as_json:
        print_json({"run": number, "safe": True})
        return
    click.echo(f"run {number}: safe")


@run.command()
@click.argument("numbers", type=_NUMBER, metavar="RUN…", nargs=-1, required=True)
@click.option("--look", is_flag=True, help="Ask the storage for each proven replica: what is lost is made again.")
@json_option
@pass_context
def retry(context: Context, numbers: tuple[int, ...], look: bool, *, as_json: bool) -> None:
    """Take up again, at once, what is quarantined or waits for its next attempt.

    \b
    Examples:
      mover run retry 4742 4743
      mover run retry 4742 --look
    """
    with context.catalogue() as database, ExitStack() as stack:
        endpoints = stack.enter_context(context.endpoints()) if look else {}
        # All of them first, so that nothing is half done.
        for record in [get_run(database, number) for number in numbers]:
            if record.state is RunState.QUARANTINED:
                mend = f"mend it and `mover run close {record.number}`, or take it as it is with --force"
                raise RunError(
                    record.problem or f"run {record.number} is quarantined",
                    hint=record.hint or mend if is_held(database, record) else mend,
                )
        unasked: list[MoverError] = []
        documents: list[dict[str, object]] = []
        for number in numbers:
            now = datetime.now(UTC)
            freed = free_overlong_claims(database, context.config, number, now=now)
            retried = retry_replicas(database, number, now=now)
            if not as_json:
                for one in freed:
                    click.echo(f"run {number}: taken over at {one.claim.endpoint} from {printable(one.claim.host)}")
                click.echo(f"run {number}: {retried} of its replicas are taken up again now")
            looked = look_again(database, context.config, number, endpoints, clock=SystemClock()) if look else None
            documents.append(_retried(number, freed, retried, looked))
            if looked is not None:
                unasked += looked.unasked.values()
                if not as_json:
                    _say(number, looked)
        if as_json:
            print_json({"runs": documents})
        if unasked:
            raise unasked[0]


def _parse_reason(context: click.Context, parameter: click.Parameter, value: str) -> str:
    try:
        return check_reason(value)
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from error


_REASON = click.option(
    "--reason", required=True, metavar="TEXT", callback=_parse_reason, help="Why; it goes into the custody story."
)


@run.command()
@click.argument("numbers", type=_NUMBER, metavar="RUN…", nargs=-1, required=True)
@_REASON
@json_option
@pass_context
def quarantine(context: Context, numbers: tuple[int, ...], reason: str, *, as_json: bool) -> None:
    """Hold runs back: nothing more of them is moved, submitted or released until somebody lets them go on.

    What an engine is at goes on to the end of its step.

    \b
    Example:
      mover run quarantine 4742 --reason 'the DAQ wrote to the wrong run'
    """
    with context.catalogue() as database:
        for record in [get_run(database, number) for number in numbers]:
            hold_run(database, record.number, reason=reason, now=datetime.now(UTC))
            if not as_json:
                click.echo(f"run {record.number}: quarantined; `mover run unquarantine {record.number}` lets it go on")
    if as_json:
        print_json({"runs": [{"run": number, "outcome": "quarantined"} for number in numbers]})


@run.command()
@click.argument("numbers", type=_NUMBER, metavar="RUN…", nargs=-1, required=True)
@_REASON
@json_option
@pass_context
def unquarantine(context: Context, numbers: tuple[int, ...], reason: str, *, as_json: bool) -> None:
    """Let quarantined runs go on where they were; one that has no file and was never planned is dismissed as none.

    It retries nothing: `mover run retry` is for replicas, `mover run close` for runs whose files were mended.

    \b
    Examples:
      mover run unquarantine 4742 --reason 'the expert says that it is right'
      mover run unquarantine 47421 --reason 'a slip: there is no such run'
    """
    outcomes: dict[int, LetGo] = {}
    with context.catalogue() as database:
        for record in [get_run(database, number) for number in numbers]:
            outcome = let_go_run(database, context.config, record.number, reason=reason, now=datetime.now(UTC))
            outcomes[record.number] = outcome
            if not as_json:
                click.echo(f"run {record.number}: {outcome}")
    if as_json:
        print_json({"runs": [{"run": number, "outcome": one.name.lower()} for number, one in outcomes.items()]})


def _retried(number: int, freed: list[OverlongClaim], retried: int, looked: Looked | None) -> dict[str, object]:
    def errors(found: Mapping[str, MoverError]) -> list[dict[str, object]]:
        return [{"endpoint": name, "message": one.message, "hint": one.hint} for name, one in found.items()]

    return {
        "run": number,
        "taken_over_at": [one.claim.endpoint for one in freed],
        "taken_up_again": retried,
        "lost": list(looked.lost) if looked else [],
        "wrong": errors(looked.wrong) if looked else [],
        "not_asked": errors(looked.unasked) if looked else [],
    }


def _say(number: int, looked: Looked) -> None:
    """What a look at the storage has found."""
    if looked.lost:
        click.echo(f"run {number}: lost at {', '.join(looked.lost)}: made again from what there is")
    for name, error in looked.wrong.items():
        click.echo(f"run {number}: wrong at {name}: {printable(error.message)}\n  {printable(error.hint)}")
    for name, error in looked.unasked.items():
        click.echo(f"run {number}: not asked at {name}: {printable(error.message)}", err=True)
    for lfn in looked.nowhere:
        click.echo(f"run {number}: nothing is left of {lfn}: `mover campaign create --iteration` has it made again")
    if not (looked.lost or looked.wrong or looked.unasked or looked.nowhere):
        click.echo(f"run {number}: every proven replica is there and right")


def _bundle_document(bundle: BundleRecord, replicas: list[ReplicaRecord], waiting: dict[int, str]) -> dict[str, object]:
    members = bundle.digest.members if bundle.digest else ()
    return {
        "kind": bundle.kind.value,
        "lfn": bundle.lfn,
        "size_bytes": bundle.size_bytes,
        "adler32": bundle.digest.adler32 if bundle.digest else None,
        "members": [{"name": one.name, "size_bytes": one.size_bytes, "digests": dict(one.digests)} for one in members],
        "replicas": [
            replica_document(one) | {"waits": waiting[one.id].removeprefix(", ") if one.id in waiting else None}
            for one in replicas
        ],
    }


def _show_replicas(out: Console, replicas: list[ReplicaRecord], waiting: dict[int, str]) -> None:
    """A table, and below it the sentences, which are too long for one."""
    rows = [(one.endpoint, one.state + waiting.get(one.id, ""), moment(one.since)) for one in replicas]
    out.print(table(("endpoint", "state", "since"), rows))
    for one in replicas:
        if one.problem:
            out.print(printable(f"{one.endpoint}: {one.problem}\n    {one.hint}"), soft_wrap=True)


def _waiting(context: Context, database: Database, replicas: list[ReplicaRecord]) -> dict[int, str]:
    """What the replicas wait for that have nothing to do yet, by id."""
    wanted = [
        one
        for one in replicas
        if one.state is ReplicaState.WANTED and not one.problem and one.endpoint in context.config.places
    ]
    found: dict[int, str] = {}
    if not wanted:
        return found
    with context.endpoints() as endpoints:
        for one in wanted:
            bundle = get_bundle(database, one.bundle_id)
            # That there is nothing to make it from is said by the attempt that finds it out.
            with suppress(NoSourceError):
                route = choose_route(Wanted(database, context.config, endpoints, bundle, one, SystemClock()))
                if isinstance(route, Wait):
                    found[one.id] = f", waits {route.why}"
    return found


def _facts(facts: dict[str, object]) -> str:
    # The digests of members have a table of their own.
    return ", ".join(
        f"{name} {value}" for name, value in facts.items() if value not in ([], None) and name != "members"
    )


def _members(bundle: BundleRecord) -> list[tuple[str, str, str]]:
    """What is known of the members: their digests, or, before the first reading, what is planned."""
    if bundle.digest:
        return [(one.name, size(one.size_bytes), dict(one.digests)["sha256"]) for one in bundle.digest.members]
    parts = bundle.plan.parts if bundle.plan else ()
    return [(part.name, size(part.size_bytes), "not read yet") for part in parts]
