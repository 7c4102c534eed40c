"""`mover reco`: the agent that has runs reconstructed, and what a person can say to it."""

import logging
from datetime import UTC, datetime
from functools import partial

import click

from mover.catalogue.approvals import approve_release, withdraw_release
from mover.catalogue.database import Database
from mover.catalogue.jobs import JobRecord, count_jobs, jobs_of, list_jobs
from mover.catalogue.remains import Remains, troublesome_remains
from mover.catalogue.runs import get_bundle
from mover.cli.completion import release_names
from mover.cli.context import Context, pass_context
from mover.cli.daemon import log_to_stderr, run_until_signalled
from mover.cli.jobdocument import job_document, key_document
from mover.cli.jsonout import json_option, print_json
from mover.cli.tables import console, moment, printable, table
from mover.config import Config, load_config
from mover.errors import ConfigError
from mover.naming import LARGEST_RUN
from mover.reco.again import cancel_job, retry_job
from mover.reco.agent import RecoAgent
from mover.reco.releases import Releases
from mover.recoconfig import RecoConfig
from mover.states import JobState
from mover.wiring import SystemClock, build_batch, endpoint_factory, reco_credential

_MOST_REMAINS = 10
_RUN = click.IntRange(min=0, max=LARGEST_RUN)


@click.group()
def reco() -> None:
    """Have runs reconstructed, and their output proven."""


@reco.command()
@pass_context
def agent(context: Context) -> None:
    """Want, submit, collect and prove jobs, and move their outputs, until SIGTERM or Ctrl-C.

    \b
    Example:
      mover --config /etc/mover/mover.toml reco agent
    """
    config, settings = context.config, settings_of(context.config)
    credential = reco_credential(config)
    open_endpoints = endpoint_factory(config, credential)
    batch = build_batch(config, credential)
    log_to_stderr()
    log = logging.getLogger("mover")
    log.info("reco agent started: jobs by %s, software in %s", batch.name, settings.software.directory)
    read_config = partial(load_config, context.config_path)
    daemon = RecoAgent(
        config, open_endpoints, batch, Releases(settings.software), SystemClock(), read_config=read_config
    )
    run_until_signalled(daemon, "reco agent")


@reco.command()
@click.argument("runs", type=_RUN, metavar="[RUN]…", nargs=-1)
@json_option
@pass_context
def status(context: Context, runs: tuple[int, ...], *, as_json: bool) -> None:
    """Show jobs: those that need a person or are under way, or all of some runs, with their stories.

    \b
    Examples:
      mover reco status
      mover reco status 4742
    """
    with context.catalogue_to_read() as database:
        counts = count_jobs(database)
        jobs = [job for run in runs for job in jobs_of(database, run)] if runs else _interesting(database)
        lfns = {job.id: get_bundle(database, job.bundle_id).lfn for job in jobs if job.bundle_id is not None}
        remains = troublesome_remains(database)
    if as_json:
        documents = [job_document(job) | {"output": lfns.get(job.id)} for job in jobs]
        print_json({"counts": {state.value: counts.get(state, 0) for state in JobState}, "jobs": documents})
        return
    out = console()
    out.print(", ".join(f"{number} {state}" for state, number in counts.items()) or "no job was wanted yet")
    if jobs:
        headings = ("run", "kind", "release", "state", "since", "attempts", "batch system", "output")
        out.print(table(headings, [_row(job, lfns.get(job.id, "")) for job in jobs]))
    for job in jobs:
        if job.problem:
            out.print(printable(f"{job.key}: {job.problem}\n  {job.hint}"), soft_wrap=True)
    for one in remains[:_MOST_REMAINS]:
        out.print(printable(_remark(one)), soft_wrap=True)
    if len(remains) > _MOST_REMAINS:
        out.print(f"… and so of {len(remains) - _MOST_REMAINS} more attempts")


@reco.command()
@click.argument("release", shell_complete=release_names)
@click.option("--withdraw", is_flag=True, help="Approve it no longer.")
@json_option
@pass_context
def approve(context: Context, release: str, withdraw: bool, *, as_json: bool) -> None:
    """Approve a software release: runs whose raw data comes from now on are reconstructed with the latest approved one.

    \b
    Examples:
      mover reco approve 0.4.1
      mover reco approve 0.4.1 --withdraw
    """
    settings = settings_of(context.config)
    now = datetime.now(UTC)
    with context.catalogue() as database:
        if withdraw:
            withdraw_release(database, release, now=now)
            if as_json:
                print_json({"release": release, "approved": False, "path": None, "remark": None})
            else:
                click.echo(f"{release} is not approved here any more")
            return
        found = Releases(settings.software).check(release, also_approved={release})
        approve_release(database, release, now=now)
    if as_json:
        print_json({"release": release, "approved": True, "path": str(found.path), "remark": found.remark or None})
        return
    click.echo(f"{release} is approved: {found.path}{f'; {found.remark}' if found.remark else ''}")


@reco.command()
@click.argument("runs", type=_RUN, metavar="RUN…", nargs=-1, required=True)
@json_option
@pass_context
def retry(context: Context, runs: tuple[int, ...], *, as_json: bool) -> None:
    """Have quarantined or cancelled jobs done again; where an output is stored already, as the next iteration.

    \b
    Example:
      mover reco retry 4742
    """
    done: list[dict[str, object]] = []
    with context.catalogue() as database:
        for run in runs:
            again = [retry_job(database, job, now=datetime.now(UTC)) for job in _ended_badly(database, run)]
            done.append({"run": run, "jobs": [key_document(key) for key in again]})
            if not as_json:
                said = "\n".join(f"{key}: wanted again" for key in again)
                click.echo(said or f"run {run}: no job of it needs that")
    if as_json:
        print_json({"runs": done})


@reco.command()
@click.argument("runs", type=_RUN, metavar="RUN…", nargs=-1, required=True)
@json_option
@pass_context
def cancel(context: Context, runs: tuple[int, ...], *, as_json: bool) -> None:
    """Cancel the jobs of runs that are not done: what runs is ended, what is quarantined is given up.

    \b
    Example:
      mover reco cancel 4742
    """
    done: list[dict[str, object]] = []
    open_states = {JobState.WANTED, JobState.SUBMITTED, JobState.QUARANTINED}
    with context.catalogue() as database:
        for run in runs:
            jobs = [job for job in jobs_of(database, run) if job.state in open_states]
            for job in jobs:
                cancel_job(database, job, now=datetime.now(UTC))
            done.append({"run": run, "jobs": [key_document(job.key) for job in jobs]})
            if not as_json:
                click.echo("\n".join(f"{job.key}: cancelled" for job in jobs) or f"run {run}: nothing to cancel")
    if as_json:
        print_json({"runs": done})


def settings_of(config: Config) -> RecoConfig:
    """The reco agent's configuration.

    Raises:
        ConfigError: there is none.
    """
    if config.reco is None:
        raise ConfigError("there is no [reco] in the configuration", hint="docs/reco.md says what goes there")
    return config.reco


def _interesting(database: Database) -> list[JobRecord]:
    states = (JobState.QUARANTINED, JobState.SUBMITTED, JobState.COLLECTED, JobState.WANTED)
    return list_jobs(database, states, most=100)


def _ended_badly(database: Database, run: int) -> list[JobRecord]:
    """The run's jobs that are quarantined or cancelled, and were not done again since."""
    latest = {(job.key.kind, job.key.release): job for job in sorted(jobs_of(database, run), key=_iteration)}
    return [job for job in latest.values() if job.state in {JobState.QUARANTINED, JobState.CANCELLED}]


def _iteration(job: JobRecord) -> int:
    return job.key.iteration


def _remark(remains: Remains) -> str:
    then = (
        f"it was tried {remains.tries} times: remove it there by that id, or ask the site to"
        if remains.given_up
        else f"nothing to do: it is told again at {moment(remains.next_attempt_at)}"
    )
    kept = f"{remains.batch} still keeps what it has of {remains.name}, under {remains.batch_id}"
    return f"{kept}: {remains.problem}\n  {then}"


def _row(job: JobRecord, output: str) -> tuple[str, ...]:
    release = job.key.release + (f", iteration {job.key.iteration}" if job.key.iteration > 1 else "")
    batch = ""
    if job.state is JobState.SUBMITTED:
        batch = f"{job.batch} {job.batch_id or job.name}: {job.phase or 'submitted'}"
    elif job.state is JobState.WANTED:
        batch = job.status or ""
    since = moment(job.since)
    return str(job.key.run), job.key.kind, release, job.state, since, str(job.attempts), batch, output
