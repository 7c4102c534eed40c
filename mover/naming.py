"""File names and LFNs from the templates of the configuration, and back."""

import re
import string
from collections.abc import Iterator
from dataclasses import dataclass

from mover.errors import UnsafeNameError
from mover.model import check_name, check_path

#: Above this, a number is no run but a slip of the DAQ; commands take no larger one either.
LARGEST_RUN = 2**31 - 1

_TEMPORARY = re.compile(r"(.+)\.mover-([0-9]{1,9})\.part", re.ASCII | re.DOTALL)
_SPEC = re.compile(r"0?[1-9]?d?")
#: The fields that are no numbers.
_TEXT_FIELDS = frozenset({"release"})


class TemplateError(ValueError):
    """A template of the configuration cannot be used; the text says why."""


@dataclass(frozen=True, slots=True)
class Template:
    """A template such as ``{run:05d}.{part:03d}`` over fields, numbers above all, that can be filled and matched."""

    text: str
    fields: frozenset[str]

    @classmethod
    def parse(cls, text: str, *, required: set[str], optional: frozenset[str] = frozenset()) -> "Template":
        """Check that `text` has each required field once or more, and no field beside the optional ones.

        Raises:
            TemplateError: it has not, or a format is not of the form ``05d``.
        """
        seen = set()
        try:
            pieces = list(string.Formatter().parse(text))
        except ValueError as error:
            raise TemplateError(f"{text!r} is not a template: {error}") from error
        for _, field, spec, conversion in pieces:
            if field is None:
                continue
            if field not in required | optional:
                known = ", ".join(sorted(required | optional))
                raise TemplateError(f"{text!r} has the unknown field {{{field}}}; known are {known}")
            if conversion or not _SPEC.fullmatch(spec or ""):
                raise TemplateError(f"{text!r}: write {{{field}}} or {{{field}:05d}}")
            seen.add(field)
        if missing := required - seen:
            raise TemplateError(f"{text!r} lacks the field {{{min(missing)}}}")
        return cls(text, frozenset(seen))

    def fill(self, **values: int | str) -> str:
        """The text with each field replaced."""
        return self.text.format(**values)

    @property
    def is_constant(self) -> bool:
        """Whether there is only one name that it gives."""
        return all(field is None for _, field, _, _ in string.Formatter().parse(self.text))

    def match(self, name: str) -> dict[str, int] | None:
        """The numbers that give exactly `name`, or None."""
        values = self.values(name)
        return None if values is None else {field: one for field, one in values.items() if isinstance(one, int)}

    def values(self, name: str) -> dict[str, int | str] | None:
        """The field values, text among them, that give exactly `name`, or None."""
        pattern = ""
        named: set[str] = set()
        for literal, field, _, _ in string.Formatter().parse(self.text):
            pattern += re.escape(literal)
            if field is not None:
                value = "[^/]{1,200}?" if field in _TEXT_FIELDS else "[0-9]{1,12}"
                pattern += f"(?P={field})" if field in named else f"(?P<{field}>{value})"
                named.add(field)
        found = re.fullmatch(pattern, name, re.ASCII)
        if found is None:
            return None
        values = {field: one if field in _TEXT_FIELDS else int(one) for field, one in found.groupdict().items()}
        return values if self.fill(**values) == name else None


@dataclass(frozen=True, slots=True)
class RunNaming:
    """How the DAQ names a run's parts and its end-of-run marker, all in one directory."""

    part: Template
    marker: Template

    def part_name(self, run: int, part: int) -> str:
        """The name of a part."""
        return self.part.fill(run=run, part=part)

    def part_number(self, run: int, name: str) -> int | None:
        """Which part of `run` has this name, or None if it is no part of it."""
        values = self.part.match(name)
        return values["part"] if values and values["run"] == run <= LARGEST_RUN else None

    def marker_name(self, run: int) -> str:
        """The name of the run's end-of-run marker."""
        return self.marker.fill(run=run)

    def marked_run(self, name: str) -> int | None:
        """The run whose end-of-run marker has this name, or None."""
        values = self.marker.match(name)
        return values["run"] if values and values["run"] <= LARGEST_RUN else None

    def prefix(self, run: int) -> str:
        """What the names of all files of `run` begin with: the part template up to the part's number."""
        before = self.part.text.split("{part", maxsplit=1)[0]
        return before.format(run=run)


@dataclass(frozen=True, slots=True)
class Step:
    """A period of the experiment: runs from `first_run` on, until the next step begins."""

    name: str
    first_run: int


@dataclass(frozen=True, slots=True)
class LfnNaming:
    """Where a run's bundle is stored, below every endpoint's base."""

    template: Template
    steps: tuple[Step, ...]

    def lfn(self, run: int, **more: int | str) -> str:
        """The LFN of the run's bundle; `century` is the run number rounded down to hundreds.

        `more` are the values of what other fields the template has.

        Raises:
            UnsafeNameError: the result has a name that must not be used.
        """
        begun = [step for step in self.steps if step.first_run <= run]
        step = max(begun, key=lambda one: one.first_run).name if begun else ""
        return check_path(self.template.fill(run=run, century=run // 100 * 100, step=step, **more))

    def folder_patterns(self) -> list[list[Template]]:
        """What each folder of an LFN may be called, from the base down."""
        names = sorted({step.name for step in self.steps}) or [""]
        folders = self.template.text.split("/")[:-1]
        return [
            [
                Template(one, self.template.fields)
                for one in dict.fromkeys(folder.replace("{step}", name) for name in names)
            ]
            for folder in folders
        ]

    def run_of(self, lfn: str) -> int | None:
        """The run whose bundle has this LFN, or None."""
        for values in self.values_of(lfn):
            run = values["run"]
            if isinstance(run, int) and self.lfn(run) == lfn:
                return run
        return None

    def values_of(self, lfn: str) -> Iterator[dict[str, int | str]]:
        """What the fields may be, the step aside, if the LFN is made by this naming; that it is, is not checked."""
        for name in {step.name for step in self.steps} | {""}:
            values = Template(self.template.text.replace("{step}", name), self.template.fields).values(lfn)
            if values and int(values["run"]) <= LARGEST_RUN:
                yield values


def temporary_path(lfn: str, attempt: int) -> str:
    """Where an upload to a disk endpoint is written before it is verified: beside `lfn`, one name an attempt."""
    folder, _, name = lfn.rpartition("/")
    temporary = check_name(f"{name}.mover-{attempt}.part")
    return f"{folder}/{temporary}" if folder else temporary


def temporary_attempt(path: str) -> tuple[str, int] | None:
    """The LFN and the attempt that `temporary_path` gave this name for; None if it gives no such name."""
    found = _TEMPORARY.fullmatch(path)
    if found is None:
        return None
    lfn, attempt = found[1], int(found[2])
    try:
        return (lfn, attempt) if temporary_path(lfn, attempt) == path else None
    except UnsafeNameError:
        return None
