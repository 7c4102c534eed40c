"""`mover top`: what goes on, live on a terminal."""

import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from types import FrameType

import click
from rich.live import Live

from mover.agentstate import AgentState
from mover.cli.context import Context, pass_context
from mover.cli.jsonout import json_option, print_json
from mover.cli.ranges import Number
from mover.cli.tables import console
from mover.cli.topdocument import document
from mover.cli.topfacts import Facts, look
from mover.cli.topview import draw
from mover.wiring import ask_agents

_AGENT_SECONDS = 2.0
#: Asking takes the agent's time, and what it says changes slowly.
_ASK_AGAIN_SECONDS = 30.0
_TO_END = {b"q", b"Q", b"\x03", b"\x04"}


class Looker:
    """Looks anew each time that it is asked; at the agents now and then."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._agents: tuple[AgentState, ...] = ()
        self._asked: float | None = None

    def look(self) -> Facts:
        """What is so now.

        Raises:
            CatalogueError: the catalogue cannot be read.
        """
        config, now = self._context.config, time.monotonic()
        if self._asked is None or now - self._asked >= _ASK_AGAIN_SECONDS:
            self._agents, self._asked = ask_agents(config, timeout_seconds=_AGENT_SECONDS), now
        with self._context.catalogue_to_read() as database:
            return look(database, config, now=datetime.now(UTC), agents=self._agents)


@click.command()
@click.option(
    "--every", type=Number(min=0.2, max=3600), default=2.0, show_default=True, help="Seconds between two looks."
)
@json_option
@pass_context
def top(context: Context, *, every: float, as_json: bool) -> None:
    """Show what is moved, the endpoints, jobs and alarms, live; `q` or Ctrl-C ends it.

    Where standard output is no terminal, it is shown once.

    \b
    Examples:
      mover top
      mover top --every 10
      mover top | less
    """
    looker = Looker(context)
    if as_json:
        print_json(document(looker.look()))
    elif not console().is_terminal:
        console().print(draw(looker.look()))
    else:
        _live(looker, every)


def _live(looker: Looker, every: float) -> None:
    """Draw until somebody has seen enough; the terminal is then as it was before."""
    with _wishes() as next_wish, Live(draw(looker.look()), console=console(), screen=True, auto_refresh=False) as live:
        while next_wish(every) not in _TO_END:
            live.update(draw(looker.look()), refresh=True)


@contextmanager
def _wishes() -> Iterator[Callable[[float], bytes | None]]:
    """What tells, within so many seconds, the key that was pressed, or `q` after a signal; None if nothing came.

    Keys come without Enter, and are not shown. A signal only leaves a note: as an exception, it could come up
    where exceptions are lost.
    """
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    before = {number: signal.signal(number, partial(_note, theirs)) for number in (signal.SIGINT, signal.SIGTERM)}
    sources, shown = [ours], None
    try:
        if sys.stdin.isatty():
            sources.append(sys.stdin.fileno())
            shown = termios.tcgetattr(sys.stdin)
            tty.setcbreak(sys.stdin)

        def next_wish(seconds: float) -> bytes | None:
            ready, _, _ = select.select(sources, [], [], seconds)
            return _read(ready[0]) if ready else None

        yield next_wish
    finally:
        if shown is not None:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, shown)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(ours)
        os.close(theirs)


def _read(descriptor: int) -> bytes:
    """One byte; where the terminal has gone, nobody looks any more."""
    try:
        return os.read(descriptor, 1) or b"q"
    except OSError:
        return b"q"


def _note(descriptor: int, _number: int, _frame: FrameType | None) -> None:
    with suppress(BlockingIOError):  # it is full of them: that is enough
        os.write(descriptor, b"q")
