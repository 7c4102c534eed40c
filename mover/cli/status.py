"""`mover status`: all runs at a glance."""

import click

from mover.catalogue.endpoints import sick_endpoints
from mover.catalogue.replicas import replicas_of
from mover.catalogue.runs import list_runs
from mover.cli.context import Context, pass_context
from mover.cli.tables import console, moment, printable, table


@click.command()
@pass_context
def status(context: Context) -> None:
    """Show every run: its state, its replicas, and what needs a person.

    \b
    Example:
      mover status
    """
    rows = []
    with context.catalogue_to_read() as database:
        troubles = [
            f"{sick.name} does not answer since {moment(sick.since)}, and is tried again at {moment(sick.probe_at)}: "
            f"{sick.problem} ({sick.hint})"
            for sick in sick_endpoints(database).values()
        ]
        for run in list_runs(database):
            replicas = replicas_of(database, run.number)
            problems = [run.problem] if run.problem else []
            problems += [f"{one.endpoint}: {one.problem}" for one in replicas if one.problem]
            rows.append(
                (
                    str(run.number),
                    run.state.value,
                    moment(run.since),
                    "\n".join(f"{one.endpoint}: {one.state}" for one in replicas),
                )
            )
            troubles += [f"run {run.number}: {problem}" for problem in problems]
    out = console()
    out.print(table(("run", "state", "since", "replicas"), rows))
    for trouble in troubles:
        out.print(printable(trouble), soft_wrap=True)
