"""`mover why`: what a run waits for, in sentences."""

import textwrap
from datetime import UTC, datetime

import click
from rich.console import Console

from mover.cli.context import Context, pass_context
from mover.cli.jsonout import json_option, print_json
from mover.cli.tables import console, printable
from mover.errors import RunDirectoryError
from mover.naming import LARGEST_RUN
from mover.steps.retention import fill_percent
from mover.why.explain import explain
from mover.why.sentence import Needs, Sentence
from mover.why.situation import Situation, gather
from mover.wiring import ask_agents

_MARKS = {Needs.PERSON: "!", Needs.TIME: "…", Needs.NOTHING: "·"}
_LEGEND = "! needs a person   … passes by itself"


@click.command()
@click.argument("number", type=click.IntRange(min=0, max=LARGEST_RUN), metavar="RUN")
@click.option("--no-agent", is_flag=True, help="Do not ask the credential agent.")
@json_option
@pass_context
def why(context: Context, number: int, *, no_agent: bool, as_json: bool) -> None:
    """Say in sentences what a run waits for, and what comes next: what needs a person first.

    The storage is not asked: `mover run retry RUN --look` does that.

    \b
    Example:
      mover why 4742
    """
    config = context.config
    agents = None if no_agent else ask_agents(config)
    try:
        filled = fill_percent(config.runs.directory)
    except RunDirectoryError as error:
        click.echo(printable(f"warning: {error.message}"), err=True)
        filled = None
    with context.catalogue_to_read() as database:
        situation = gather(database, config, number, now=datetime.now(UTC), agents=agents, fill_percent=filled)
    sentences = explain(situation)
    if as_json:
        print_json(_document(situation, sentences))
        return
    out = console()
    state = situation.run.state if situation.run else "not known here"
    out.print(f"run {number} is {state}")
    for one in sentences:
        _show(out, one)
    if len({one.needs for one in sentences}) > 1:
        out.print(_LEGEND)


def _show(out: Console, one: Sentence) -> None:
    """A paragraph; on a terminal, as wide as that is."""
    about = "" if one.about == "run" else f"{one.about}: "
    text = printable(f"{about}{one.says} {one.next}")
    width = out.width - 2 if out.is_terminal else None
    lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) if width else [text]
    out.print(f"{_MARKS[one.needs]} " + "\n  ".join(lines), soft_wrap=True)


def _document(situation: Situation, sentences: tuple[Sentence, ...]) -> dict[str, object]:
    return {
        "run": situation.number,
        "at": situation.now.isoformat(),
        "state": situation.run.state.value if situation.run else None,
        "sentences": [
            {"about": one.about, "says": one.says, "next": one.next, "needs": one.needs.value} for one in sentences
        ],
    }
