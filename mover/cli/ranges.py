"""Numbers, and ranges of runs, as people give them."""

import math
from collections.abc import Iterable, Iterator

import click

from mover.naming import LARGEST_RUN

_MOST_RUNS = 1_000_000


class Number(click.FloatRange):
    """A number within limits. `nan` is within any, since it compares with nothing: a deadline of it never passes."""

    def convert(self, value: float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number.

        Raises:
            click.BadParameter: it is none, or not within the limits.
        """
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


def parse_runs(text: str) -> tuple[int, int]:
    """A run number, or a range `A-B`, as first and last number.

    Raises:
        ValueError: it is neither.
    """
    first, dash, last = text.partition("-")
    numbers = (first, last) if dash else (first, first)
    if not all(one.isascii() and one.isdigit() and int(one) <= LARGEST_RUN for one in numbers):
        raise ValueError(f"{text!r} is neither a run number nor a range such as 4742-4750")
    begin, end = int(numbers[0]), int(numbers[1])
    if begin > end:
        raise ValueError(f"{text!r} ends before it begins")
    return begin, end


def each_run(ranges: Iterable[tuple[int, int]]) -> Iterator[int]:
    """Every run of the ranges.

    Raises:
        ValueError: they are more than anybody can mean.
    """
    wanted = list(ranges)
    if sum(last - first + 1 for first, last in wanted) > _MOST_RUNS:
        raise ValueError(f"that is over {_MOST_RUNS} runs")
    for first, last in wanted:
        yield from range(first, last + 1)
