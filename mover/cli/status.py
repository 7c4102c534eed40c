"""`mover status`: all runs at a glance."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime

import click

from mover.catalogue.endpoints import EndpointHealth, sick_endpoints
from mover.catalogue.jobs import JobRecord, jobs_of
from mover.catalogue.replicas import ReplicaRecord, replicas_of
from mover.catalogue.runs import RunRecord, list_runs, raw_bundles
from mover.catalogue.services import ServiceRecord, services_here
from mover.cli.context import Context, pass_context
from mover.cli.jobdocument import job_document, replica_document
from mover.cli.jsonout import json_option, print_json
from mover.cli.tables import console, moment, printable, table
from mover.states import JobState, ReplicaState
from mover.steps.lease import overlong_claims

_MOST_RUNS = 10


@click.command()
@json_option
@pass_context
def status(context: Context, *, as_json: bool) -> None:
    """Show every run: its state, its replicas, what needs a person, and what is tried again by itself.

    \b
    Example:
      mover status
    """
    with context.catalogue_to_read() as database, database.snapshot():
        sick = sick_endpoints(database)
        runs = [(run, replicas_of(database, run.number)) for run in list_runs(database)]
        jobs = {run.number: jobs_of(database, run.number) for run, _ in runs}
        raw = raw_bundles(database)
        services = services_here(database)
        overlong = overlong_claims(database, context.config, now=datetime.now(UTC))
    people = [*_outdated(context, services), *_for_people(runs), *map(str, overlong), *_jobs_for_people(jobs)]
    itself = list(_by_itself(runs, sick))
    if as_json:
        silent = [
            {
                "endpoint": one.name,
                "since": one.since.isoformat(),
                "asked_again_at": one.probe_at.isoformat(),
                "problem": one.problem,
                "hint": one.hint,
            }
            for one in sick.values()
        ]
        documents = [_document(run, all_, jobs[run.number], raw) for run, all_ in runs]
        print_json({"runs": documents, "silent_endpoints": silent, "needs_person": people, "is_tried_again": itself})
        return
    out = console()
    if not runs:
        out.print("no run was closed yet")
    else:
        rows = [
            (
                str(run.number),
                run.state.value,
                moment(run.since),
                "\n".join(f"{one.endpoint}: {one.state}" for one in all_ if one.bundle_id in raw),
                "\n".join(_job(job) for job in jobs[run.number]),
            )
            for run, all_ in runs
        ]
        headings = ("run", "state", "since", "replicas", "jobs")
        # Where nothing is reconstructed, there is nothing to say of it.
        shown = len(headings) if any(jobs.values()) else len(headings) - 1
        out.print(table(headings[:shown], [row[:shown] for row in rows]))
    for heading, lines in (("needs a person", people), ("is tried again", itself)):
        if lines:
            out.print(f"{heading}:")
        for line in lines:
            out.print(printable(f"  {line}"), soft_wrap=True)


def _document(
    run: RunRecord, replicas: list[ReplicaRecord], jobs: list[JobRecord], raw: frozenset[int]
) -> dict[str, object]:
    return {
        "run": run.number,
        "state": run.state.value,
        "since": run.since.isoformat(),
        "problem": run.problem,
        "hint": run.hint,
        "replicas": [replica_document(one) for one in replicas if one.bundle_id in raw],
        "jobs": [job_document(job) for job in jobs],
    }


def _outdated(context: Context, services: Iterable[ServiceRecord]) -> Iterator[str]:
    """The daemons that go by another configuration than the file has now."""
    digest = context.config.digest()
    for one in services:
        if one.config != digest:
            yield (
                f"the {one.name}, which runs since {moment(one.started_at)}, goes by another configuration than "
                f"{context.config_path} has now: restart it"
            ) + ("; until then it calls no run safe and releases nothing" if one.name == "engine" else "")


def _for_people(runs: Iterable[tuple[RunRecord, list[ReplicaRecord]]]) -> Iterator[str]:
    for run, replicas in runs:
        if run.problem:
            # Most begin like that by themselves.
            yield run.problem if run.problem.startswith(f"run {run.number} ") else f"run {run.number}: {run.problem}"
        for one in replicas:
            if one.problem and one.state is ReplicaState.QUARANTINED:
                yield f"run {run.number} at {one.endpoint}: {one.problem}"


def _job(job: JobRecord) -> str:
    again = f" {job.key.iteration}" if job.key.iteration > 1 else ""
    return f"{job.key.kind}{again}: {job.state}"


def _jobs_for_people(jobs: Mapping[int, list[JobRecord]]) -> Iterator[str]:
    for of_run in jobs.values():
        for job in of_run:
            if job.state is JobState.QUARANTINED:
                yield f"{job.problem} ({job.hint})"


def _by_itself(
    runs: Iterable[tuple[RunRecord, list[ReplicaRecord]]], sick: Mapping[str, EndpointHealth]
) -> Iterator[str]:
    """What an endpoint says of many runs is said once."""
    waiting: dict[tuple[str, str], list[int]] = {}
    for run, replicas in runs:
        for one in replicas:
            if one.problem and one.state is not ReplicaState.QUARANTINED:
                waiting.setdefault((one.endpoint, one.problem), []).append(run.number)
    for health in sick.values():
        numbers = waiting.pop((health.name, health.problem), [])
        yield (
            f"{health.name} has not answered since {moment(health.since)}, and is asked again at "
            f"{moment(health.probe_at)}: {health.problem} ({health.hint})"
        ) + (f"; {_named(numbers)} wait" + ("s" if len(numbers) == 1 else "") if numbers else "")
    for (endpoint, problem), numbers in waiting.items():
        yield f"{_named(numbers)} at {endpoint}: {problem}"


def _named(runs: list[int]) -> str:
    if len(runs) == 1:
        return f"run {runs[0]}"
    more = f" and {len(runs) - _MOST_RUNS} more" if len(runs) > _MOST_RUNS else ""
    return f"runs {', '.join(map(str, runs[:_MOST_RUNS]))}{more}"
