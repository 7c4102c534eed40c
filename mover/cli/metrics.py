"""`mover metrics`: for Prometheus."""

from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import click

from mover.cli.context import Context, pass_context
from mover.cli.jsonout import json_option, print_json
from mover.cli.reports import replace_file
from mover.config import Config
from mover.errors import OutputError
from mover.metrics.collector import MoverCollector, render
from mover.wiring import ask_agents

_AGENT_SECONDS = 5.0


def collector_of(config: Config) -> MoverCollector:
    """The metrics of a configured mover."""
    return MoverCollector(
        config,
        now=lambda: datetime.now(UTC),
        ask_agents=partial(ask_agents, config, timeout_seconds=_AGENT_SECONDS),
    )


@click.command()
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.prom",
    help="Write them to a file, for node_exporter's textfile collector; it is replaced whole.",
)
@json_option
@pass_context
def metrics(context: Context, *, output: Path | None, as_json: bool) -> None:
    """Print metrics in Prometheus's text format; docs/monitoring.md has them, with alert rules and a dashboard.

    \b
    Examples:
      mover metrics
      mover metrics --output /var/lib/prometheus/node-exporter/mover.prom
    """
    collector = collector_of(context.config)
    if as_json:
        print_json(
            [
                {"name": sample.name, "labels": dict(sample.labels), "value": sample.value}
                for family in collector.collect()
                for sample in family.samples
            ]
        )
        return
    text = render(collector).decode()
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        replace_file(output, text)
    except OSError as error:
        raise OutputError(
            f"cannot write {output}: {error.strerror}", hint="make its folder, or give another"
        ) from error
