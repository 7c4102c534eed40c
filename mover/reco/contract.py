"""The output contract: what the configuration says that a job's output must have. Nothing is checked here."""

import math
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from mover.naming import Template
from mover.tables import Table

_FIELDS = frozenset({"run", "iteration"})


def _pattern(text: str) -> str:
    Template.parse(text, required=set(), optional=_FIELDS)
    if not text or "/" in text:
        raise ValueError(f"{text!r}: members are at top level; give a name, with * ? [ ] where it may vary")
    return text


def _expression(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is no regular expression: {error}") from error
    return text


#: A member's name as fnmatch(3) has it, with the fields {run} and {iteration} of `naming.Template`.
MemberPattern = Annotated[str, AfterValidator(_pattern)]
Expression = Annotated[str, AfterValidator(_expression)]


def member_pattern(pattern: str, run: int, iteration: int) -> str:
    """The pattern for one job's output: its fields are filled in, what is left is for fnmatch."""
    return Template.parse(pattern, required=set(), optional=_FIELDS).fill(run=run, iteration=iteration)


class TreeContract(Table):
    """`[[reco.output.tree]]`: a tree that each ROOT file of that name must have, readable to its last basket."""

    member: MemberPattern
    tree: str = Field(min_length=1, max_length=200)
    minimum_entries: int = Field(default=1, ge=0)
    entries_from: Literal["physics-events"] | None = None
    minimum_fraction: float = Field(default=1.0, gt=0, le=1)

    def entries_wanted(self, physics_events: int | None) -> int | None:
        """How many entries there must be; None if that depends on the raw data's events, and these are not known."""
        if self.entries_from is None:
            return self.minimum_entries
        if physics_events is None:
            return None
        # 0.07 * 100 is more than 7 in binary.
        return max(self.minimum_entries, math.ceil(round(self.minimum_fraction * physics_events, 6)))


class LogContract(Table):
    """`[[reco.output.log]]`: what the lines of a log must and must not say (regular expressions, found anywhere)."""

    member: MemberPattern
    must_match: tuple[Expression, ...] = ()
    must_not_match: tuple[Expression, ...] = ()


class OutputContract(Table):
    """`[reco.output]`, `[mc.output]`: without a tree or a log, it says only that files are there."""

    members: tuple[MemberPattern, ...] = Field(min_length=1)
    minimum_bytes: int = Field(default=1, ge=1)
    tree: tuple[TreeContract, ...] = ()
    log: tuple[LogContract, ...] = ()

    @property
    def looked_into(self) -> tuple[str, ...]:
        """The patterns of the members whose content is looked at."""
        return (*(one.member for one in self.tree), *(one.member for one in self.log))
