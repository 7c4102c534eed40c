"""Tables and figures as people read them."""

from collections.abc import Iterable
from datetime import datetime

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

_KILO = 1000.0


def console() -> Console:
    """Standard output; not cut to a width when it is not a terminal."""
    out = Console(highlight=False, markup=False)
    return out if out.is_terminal else Console(highlight=False, markup=False, width=200)


def table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> Table:
    """A plain table. Cells are text, never markup: names come from outside.

    Where it is too wide, the widest columns are folded: nothing is cut off, and no column vanishes.
    """
    built = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        built.add_column(heading, overflow="fold")
    for row in rows:
        built.add_row(*(Text(printable(cell)) for cell in row))
    return built


def printable(text: str) -> str:
    """The text with escapes such as ``\\x1b`` for the characters that would act on the terminal, or are none."""
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode("ascii") for char in text
    )


def size(size_bytes: int) -> str:
    """A size in decimal units, as storage elements are sold."""
    value, unit = float(size_bytes), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < _KILO:
            break
        value, unit = value / _KILO, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def moment(at: datetime) -> str:
    """A time to the second, in UTC."""
    return at.strftime("%Y-%m-%d %H:%M:%SZ")
