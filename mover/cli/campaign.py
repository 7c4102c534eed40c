"""`mover campaign`: have many runs reconstructed with one release, without disturbing those that come in."""

from datetime import UTC, datetime
from pathlib import Path

import click

from mover.catalogue.campaigns import (
    Campaign,
    cancel_campaign,
    create_campaign,
    list_campaigns,
    move_campaign,
)
from mover.cli.completion import campaign_numbers, release_names
from mover.cli.context import Context, pass_context
from mover.cli.jsonout import json_option, print_json
from mover.cli.ranges import parse_runs
from mover.cli.reco import settings_of
from mover.cli.reports import check_target, write_report
from mover.cli.tables import console, moment, printable, table
from mover.model import BundleKind
from mover.reco.campaignpage import render_campaign
from mover.reco.campaignreport import CampaignReport, report_campaign
from mover.reco.campaigns import CampaignChoice, CampaignPlan, in_ranges, plan_campaign
from mover.reco.releases import Releases
from mover.states import CampaignEvent, CampaignState, JobState

_SHOWN = 20
_MOST_RUNS = 1_000_000
_NUMBER = click.IntRange(min=1, max=2**31)
_KINDS = (BundleKind.RECO, BundleKind.MC)


def _parse_runs(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[tuple[int, int], ...]:
    try:
        ranges = tuple(parse_runs(one.strip()) for value in values for one in value.split(","))
        if sum(last - first + 1 for first, last in ranges) > _MOST_RUNS:
            raise ValueError(f"that is over {_MOST_RUNS} runs")
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from error
    return ranges


def _parse_kinds(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[BundleKind, ...]:
    names = [one.strip() for one in value.split(",")] if value is not None else []
    if unknown := [one for one in names if one not in _KINDS]:
        raise click.BadParameter(f"{unknown[0]!r} is no kind of job; there are reco and mc", context, parameter)
    return tuple(kind for kind in _KINDS if kind in names)


@click.group()
def campaign() -> None:
    """Have many runs reconstructed with one release."""


@campaign.command()
@click.option(
    "--release",
    required=True,
    metavar="RELEASE",
    shell_complete=release_names,
    help="The software release: there, and approved.",
)
@click.option(
    "--runs", required=True, multiple=True, metavar="RUN|A-B[,…]", callback=_parse_runs, help="Which (may be repeated)."
)
@click.option("--kind", "kinds", metavar="KIND[,KIND]", callback=_parse_kinds, help="reco, mc; default: as configured.")
@click.option(
    "--iteration",
    type=click.IntRange(min=1, max=9999),
    default=1,
    show_default=True,
    metavar="N",
    help="To do again what was done with that release.",
)
@click.option(
    "--most-jobs",
    type=click.IntRange(min=1, max=10_000),
    metavar="N",
    help="At most so many at a time; default: what [reco] allows, less the jobs of one run.",
)
@click.option("--dry-run", is_flag=True, help="Only say what it would do, and which runs are left out.")
@json_option
@pass_context
def create(
    context: Context,
    *,
    release: str,
    runs: tuple[tuple[int, int], ...],
    kinds: tuple[BundleKind, ...],
    iteration: int,
    most_jobs: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Choose the runs whose raw data is proven and want their jobs; nothing is submitted before `campaign start`.

    \b
    Examples:
      mover campaign create --release 0.4.1 --runs 4000-4778 --dry-run
      mover campaign create --release 0.4.1 --runs 4000-4778,5000 --kind reco --iteration 2 --most-jobs 4
    """
    settings = settings_of(context.config)
    choice = CampaignChoice(release, runs, kinds or settings.kinds, iteration)
    # A live run finds room at once.
    most = most_jobs or max(1, settings.most_jobs - len(settings.kinds))
    with context.catalogue_to_read() if dry_run else context.catalogue() as database:
        plan = plan_campaign(database, context.config, Releases(settings.software), choice)
        if not as_json:
            _say(plan)
        elif dry_run:
            print_json(_planned(plan, most, None))
        if dry_run:
            return
        made = create_campaign(
            database,
            release=release,
            keys=plan.keys,
            again=plan.again,
            most_jobs=most,
            chosen=str(choice),
            now=datetime.now(UTC),
        )
    if as_json:
        print_json(_planned(plan, most, made.id))
        return
    click.echo(f"campaign {made.id} is created, at most {most} jobs at a time; `mover campaign start {made.id}` begins")


@campaign.command()
@click.argument("number", type=_NUMBER, metavar="CAMPAIGN", shell_complete=campaign_numbers)
@json_option
@pass_context
def start(context: Context, number: int, *, as_json: bool) -> None:
    """Let the jobs of a campaign have their turn, after those of runs that come in.

    \b
    Example:
      mover campaign start 3
    """
    _move(context, number, CampaignEvent.STARTED, as_json=as_json)


@campaign.command()
@click.argument("number", type=_NUMBER, metavar="CAMPAIGN", shell_complete=campaign_numbers)
@json_option
@pass_context
def pause(context: Context, number: int, *, as_json: bool) -> None:
    """Submit no more jobs of a campaign; those that run go on to their proof.

    \b
    Example:
      mover campaign pause 3
    """
    _move(context, number, CampaignEvent.PAUSED, as_json=as_json)


@campaign.command()
@click.argument("number", type=_NUMBER, metavar="CAMPAIGN", shell_complete=campaign_numbers)
@json_option
@pass_context
def resume(context: Context, number: int, *, as_json: bool) -> None:
    """Go on with a paused campaign.

    \b
    Example:
      mover campaign resume 3
    """
    _move(context, number, CampaignEvent.RESUMED, as_json=as_json)


@campaign.command()
@click.argument("number", type=_NUMBER, metavar="CAMPAIGN", shell_complete=campaign_numbers)
@json_option
@pass_context
def cancel(context: Context, number: int, *, as_json: bool) -> None:
    """Cancel a campaign for good: the agent ends its jobs that run; what has an output goes on to its proof.

    \b
    Example:
      mover campaign cancel 3
    """
    with context.catalogue() as database:
        ended = cancel_campaign(database, number, now=datetime.now(UTC))
    if as_json:
        print_json({"campaign": number, "state": CampaignState.CANCELLED.value, "cancelled_jobs": ended})
        return
    click.echo(f"campaign {number} is cancelled, with {ended} jobs that had no output yet")


@campaign.command()
@click.argument("number", type=_NUMBER, metavar="[CAMPAIGN]", required=False, shell_complete=campaign_numbers)
@json_option
@pass_context
def status(context: Context, number: int | None, *, as_json: bool) -> None:
    """Show all campaigns, or how far one is and what it needs.

    \b
    Examples:
      mover campaign status
      mover campaign status 3
    """
    now = datetime.now(UTC)
    with context.catalogue_to_read() as database:
        numbers = [one.id for one in list_campaigns(database)] if number is None else [number]
        reports = [report_campaign(database, one, now=now) for one in numbers]
    if as_json:
        documents = [one.document() for one in reports]
        print_json(documents[0] if number is not None else documents)
    elif number is not None:
        _show(reports[0])
    elif reports:
        console().print(table(("campaign", "what", "state", *JobState, "end"), [_row(one) for one in reports]))
    else:
        click.echo("no campaign was created yet")


@campaign.command()
@click.argument("number", type=_NUMBER, metavar="CAMPAIGN", shell_complete=campaign_numbers)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR|FILE",
    help="Write it to FILE.html or FILE.json, or both into a directory.",
)
@json_option
@pass_context
def report(context: Context, number: int, *, output: Path | None, as_json: bool) -> None:
    """Report on a campaign: every job that failed, with what happened, and its history.

    \b
    Examples:
      mover campaign report 3
      mover campaign report 3 --output /var/www/campaigns
    """
    if output is not None:
        check_target(output)
    with context.catalogue_to_read() as database:
        found = report_campaign(database, number, now=datetime.now(UTC))
    if output is not None:
        render = {".html": lambda: render_campaign(found), ".json": found.to_json}
        write_report(output, f"campaign-{number}", render, again="give the command once more")
    if as_json:
        click.echo(found.to_json(), nl=False)
    else:
        _show(found, most=len(found.failed) + len(found.troubled))


def _move(context: Context, number: int, event: CampaignEvent, *, as_json: bool) -> None:
    with context.catalogue() as database:
        moved: Campaign = move_campaign(database, number, event, now=datetime.now(UTC))
    if as_json:
        print_json({"campaign": moved.id, "state": moved.state.value})
        return
    click.echo(f"campaign {moved.id} is {moved.state}")


def _planned(plan: CampaignPlan, most_jobs: int, number: int | None) -> dict[str, object]:
    return {
        "campaign": number,
        "chosen": str(plan.choice),
        "new_jobs": len(plan.keys),
        "taken_up_again": len(plan.again),
        "most_jobs": most_jobs,
        "left_out": [{"why": why, "runs": list(runs)} for why, runs in plan.left_out.items()],
    }


def _say(plan: CampaignPlan) -> None:
    new = len(plan.keys)
    again = f", {len(plan.again)} cancelled ones taken up again" if plan.again else ""
    click.echo(f"{plan.choice}: {new} new jobs{again}")
    for why, runs in plan.left_out.items():
        click.echo(printable(f"  left out, {len(runs)} runs, {why}: {in_ranges(runs)}"))


def _row(report: CampaignReport) -> tuple[str, ...]:
    campaign, progress = report.campaign, report.progress
    counts = (str(progress.number(state)) for state in JobState)
    return str(campaign.id), campaign.chosen, campaign.state, *counts, report.end


def _show(report: CampaignReport, *, most: int = _SHOWN) -> None:
    out = console()
    out.print(printable(f"{report}\n{report.campaign.chosen}; end: {report.end}"), soft_wrap=True)
    kinds = [(kind, *(str(counts.get(state, 0)) for state in JobState)) for kind, counts in report.by_kind.items()]
    out.print(table(("jobs", *JobState), kinds))
    jobs = [*report.failed, *report.troubled]
    for job in jobs[:most]:
        out.print(printable(f"{job.key} is {job.state}: {job.problem}\n  {job.hint}"), soft_wrap=True)
    if len(jobs) > most:
        out.print(f"… and {len(jobs) - most} more: `mover campaign report {report.campaign.id}` shows all")
    for one in report.history:
        out.print(printable(f"{moment(one.at)} {one.event}, by {one.by}"), soft_wrap=True)
