"""`mover audit`: hold what the catalogue says against the storage itself."""

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
from rich.console import Console

from mover.audit.auditor import Auditor
from mover.audit.choose import Choice, choose
from mover.audit.page import render_page
from mover.audit.replica import Limits
from mover.audit.report import Report, make_report, outcome_of, remedy_of, replica_outcome
from mover.catalogue.audits import Audit, Outcome, begin_audit, counts, find_audit, get_audit, unfinished_audit
from mover.catalogue.database import Database
from mover.cli.audit_progress import Display
from mover.cli.completion import endpoint_names
from mover.cli.context import Context, pass_context
from mover.cli.jsonout import json_option
from mover.cli.ranges import Number, parse_runs
from mover.cli.reports import check_target, write_report
from mover.cli.tables import console, printable, size, table
from mover.config import Config
from mover.errors import AuditError, AuditIncompleteError, CatalogueError
from mover.pace import Pace
from mover.wiring import SystemClock, endpoint_factory

_MB = 1_000_000


def _parse_runs(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[tuple[int, int], ...]:
    try:
        return tuple(parse_runs(value) for value in values)
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from error


@click.command()
@click.argument("runs", metavar="[RUN|A-B]…", nargs=-1, callback=_parse_runs)
@click.option("--sample", type=click.IntRange(min=1), metavar="N", help="Only N of them, picked at random.")
@click.option(
    "--not-audited-for",
    "days",
    type=Number(min=0, max=36500),
    metavar="DAYS",
    help="Only those that no audit of this depth found good within so many days.",
)
@click.option(
    "--endpoint",
    "endpoints",
    multiple=True,
    metavar="NAME",
    shell_complete=endpoint_names,
    help="Ask there only (may be repeated).",
)
@click.option("--deep", is_flag=True, help="Read every bundle back and hold each byte against the catalogue.")
@click.option(
    "--limit-mb-per-second", type=Number(min=0.1, max=1e6), metavar="X", help="Read no faster than this, in all."
)
@click.option(
    "--pause",
    type=Number(min=0, max=60),
    default=0.0,
    metavar="SECONDS",
    help="Wait before each question to a site.",
)
@click.option(
    "--stage-hours",
    type=Number(min=0, max=24 * 14),
    default=4.0,
    show_default=True,
    metavar="HOURS",
    help="How long --deep waits for a file to come from tape.",
)
@click.option("--resume", is_flag=True, help="Go on with the last audit that was cut short.")
@click.option("--show", type=click.IntRange(min=1), metavar="AUDIT", help="Ask nothing: report that audit once more.")
@click.option(
    "--report",
    type=click.Path(path_type=Path),
    metavar="DIR|FILE",
    help="Write the report to FILE.html or FILE.json, or both into a directory.",
)
@json_option
@pass_context
def audit(
    context: Context,
    *,
    runs: tuple[tuple[int, int], ...],
    sample: int | None,
    days: float | None,
    endpoints: tuple[str, ...],
    deep: bool,
    limit_mb_per_second: float | None,
    pause: float,
    stage_hours: float,
    resume: bool,
    show: int | None,
    report: Path | None,
    as_json: bool,
) -> None:
    """Ask the storage for every replica that the catalogue calls proven, and change nothing.

    Without RUN, all safe and released runs are audited. Exits with 0 only if all is well, with 7 if something is wrong,
    with 13 if nothing is wrong but something could not be asked.

    \b
    Examples:
      mover audit
      mover audit 4742 5000-5099 --deep --limit-mb-per-second 50
      mover audit --sample 100 --not-audited-for 30 --deep --report /var/www/audits
      mover audit --resume
    """
    not_audited_for = None if days is None else timedelta(days=days)
    choice = Choice(runs, endpoints, sample, not_audited_for, deep)
    if (resume or show) and (choice != Choice() or (resume and show)):
        raise click.UsageError("--resume and --show take an audit as it was begun: give nothing else to choose by")
    if report is not None:
        check_target(report)
    pace = Pace(None if limit_mb_per_second is None else round(limit_mb_per_second * _MB))
    limits = Limits(pace, threading.Event(), pause, stage_hours * 3600)
    with context.catalogue() as database:
        asked = _known(database, show) if show else _asked(database, context.config, choice, limits, resume=resume)
        found = make_report(database, asked)
    if report is not None:
        again = f"`mover audit --show {found.audit.id} --report …`: the audit itself is kept"
        render = {".html": lambda: render_page(found), ".json": found.to_json}
        write_report(report, f"audit-{found.audit.id}", render, again=again)
    if as_json:
        click.echo(found.to_json(), nl=False)
    else:
        _show(found)
    _judge(found)


def _asked(database: Database, config: Config, choice: Choice, limits: Limits, *, resume: bool) -> Audit:
    """The audit that was asked for, as far as it came."""
    open_endpoints = endpoint_factory(config)
    asked = _resumed(database, config) if resume else _begun(database, config, choice)
    with Display(counts(database, asked), Console(stderr=True, highlight=False, markup=False)) as display:
        try:
            Auditor(config, asked, open_endpoints, SystemClock(), limits, observe=display.observe).run(database)
        except KeyboardInterrupt:
            click.echo(f"\naudit {asked.id} is cut short; `mover audit --resume` goes on with it", err=True)
            raise
    return get_audit(database, asked.id)


def _known(database: Database, number: int) -> Audit:
    found = find_audit(database, number)
    if found is None:
        raise CatalogueError(f"there is no audit {number}", hint="`mover audit` begins one and tells its number")
    return found


def _begun(database: Database, config: Config, choice: Choice) -> Audit:
    now = datetime.now(UTC)
    targets = choose(database, config, choice, now=now)
    return begin_audit(database, targets, deep=choice.deep, whole=not choice.endpoints, chosen=str(choice), now=now)


def _resumed(database: Database, config: Config) -> Audit:
    asked = unfinished_audit(database)
    if asked is None:
        raise CatalogueError("no audit was cut short", hint="begin one with `mover audit`")
    if gone := counts(database, asked).keys() - config.places.keys():
        raise CatalogueError(
            f"audit {asked.id} asks {min(gone)}, which is not configured any more", hint="begin another audit"
        )
    return asked


def _show(found: Report) -> None:
    out = console()
    rows = []
    for bundle in found.troubled:
        rows.append((str(bundle.run), outcome_of(bundle).value, bundle.policy or bundle.lfn, remedy_of(bundle)))
        rows += [
            ("", f"  {one.endpoint}: {replica_outcome(one)}", finding.text, finding.remedy)
            for one in bundle.replicas
            for finding in one.findings
            if finding.outcome is not Outcome.GOOD
        ]
    if rows:
        out.print(table(("run", "outcome", "found", "what to do"), rows))
    counted = [(name, *(str(numbers[outcome]) for outcome in Outcome)) for name, numbers in found.by_endpoint.items()]
    if counted:
        out.print(table(("endpoint", *Outcome), counted))
    read = f", {size(found.read_bytes)} read back" if found.read_bytes else ""
    out.print(printable(f"{found}{read}"), soft_wrap=True)


def _judge(found: Report) -> None:
    if found.is_well:
        return
    hint = f"`mover audit --show {found.audit.id} --report DIR` writes all of it"
    if found.outcomes[Outcome.WRONG]:
        raise AuditError(f"{found.outcomes[Outcome.WRONG]} of {len(found.bundles)} bundles are wrong", hint=hint)
    raise AuditIncompleteError(
        f"not everything could be asked: {found.outcomes[Outcome.NOT_KNOWN]} of {len(found.bundles)} bundles "
        "are not known to be good",
        hint=hint,
    )
