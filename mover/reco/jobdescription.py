"""What the job wrapper (`files/job.py`) is given, and what it leaves: job.json, report.json and the heartbeat.

Whatever comes from a worker is foreign: it is bounded, and nothing in it is a proof of anything.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from mover.errors import UnsafeNameError
from mover.model import BundleDigest, check_name
from mover.naming import Template
from mover.tables import Table

#: Sent along with each job, and run as `./job.py job.json`.
WRAPPER = Path(__file__).parent / "files" / "job.py"
WRAPPER_NAME, DESCRIPTION_NAME = WRAPPER.name, "job.json"
REPORT_NAME, HEARTBEAT_NAME, LOG_NAME = "report.json", "heartbeat", "payload.log"

#: A report or a heartbeat that is larger is none.
MOST_REPORT_BYTES = 64 << 10

_FIELDS = frozenset({"bundle", "iteration", "output", "release", "run"})
_MOST_BYTES = 1 << 60
_Found = TypeVar("_Found", bound="_Read")
_LATEST = float(1 << 40)


class JobReportError(Exception):
    """What a worker left is no report of this job; the text says why."""


def _name(name: str) -> str:
    try:
        return check_name(name)
    except UnsafeNameError as error:
        raise ValueError(error.message) from error


def _argument(text: str) -> str:
    _fill(text, bundle="b", iteration=1, output="o", release="r", run=1)
    return text


def _fill(text: str, **values: str | int) -> str:
    return Template.parse(text, required=set(), optional=_FIELDS).fill(**values)


Name = Annotated[str, AfterValidator(_name)]
Size = Annotated[int, Field(ge=0, le=_MOST_BYTES)]
Adler32 = Annotated[str, Field(pattern=r"\A[0-9a-f]{8}\z")]
Sha256 = Annotated[str, Field(pattern=r"\A[0-9a-f]{64}\z")]
Moment = Annotated[float, Field(ge=0, le=_LATEST, allow_inf_nan=False)]
Words = Annotated[str, Field(max_length=2000)]

#: One argument of the experiment's command, with the fields {bundle} {iteration} {output} {release} {run}.
CommandArgument = Annotated[str, AfterValidator(_argument)]


def command_line(
    arguments: Sequence[str], *, run: int, iteration: int, release: str, output: str, bundle: str = ""
) -> tuple[str, ...]:
    """The experiment's command for one job. `bundle` is empty where none is staged."""
    return tuple(
        _fill(one, bundle=bundle, iteration=iteration, output=output, release=release, run=run) for one in arguments
    )


class StagedMember(Table):
    """A member that the staged bundle must have."""

    name: Name
    size_bytes: Size
    digests: dict[Literal["sha256", "md5"], str]


class StagedBundle(Table):
    """The raw bundle as the worker must find it. `listing` is its `<run>.md5`, if it has one."""

    name: Name
    size_bytes: Size
    adler32: Adler32
    members: tuple[StagedMember, ...]
    listing: Name | None = None

    @classmethod
    def of(cls, name: str, digest: BundleDigest, listing: str | None) -> "StagedBundle":
        """From what is known of it; a member without sha256 and md5 is left to `adler32`, which all bytes are in."""
        members = [
            {"name": one.name, "size_bytes": one.size_bytes, "digests": dict(one.digests)} for one in digest.members
        ]
        return cls.model_validate(
            {
                "name": name,
                "size_bytes": digest.size_bytes,
                "adler32": digest.adler32,
                "members": members,
                "listing": listing,
            }
        )


class JobDescription(Table):
    """job.json. There is no credential in it, and nothing that a worker may not see.

    `setup` is sourced by `shell`; `command` is run with the environment that it leaves, and nothing else, in a
    directory of its own in which `bundle` is, and must leave `output` there. `grace_seconds` is how long it may take to
    end when it is told to (SIGTERM): less than the batch system gives the wrapper itself.
    """

    format: Literal[1] = 1
    name: Annotated[str, Field(pattern=r"\A[A-Za-z0-9_.-]{1,80}\z")]
    run: int
    iteration: int
    release: Name
    setup: str
    shell: str = "/bin/sh"
    bundle: StagedBundle | None
    command: Annotated[tuple[str, ...], Field(min_length=1)]
    output: Name
    wall_seconds: Annotated[float, Field(gt=0)]
    heartbeat_seconds: Annotated[float, Field(gt=0)] = 60.0
    grace_seconds: Annotated[float, Field(ge=0)] = 10.0
    log_bytes: Annotated[int, Field(ge=4096)] = 64 << 20

    def render(self) -> bytes:
        """The file's content."""
        return self.model_dump_json(indent=1).encode() + b"\n"


class _Read(BaseModel):
    """Of a worker, and so read strictly: by `_read` alone."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class JobOutputReport(_Read):
    """What the worker says of the output that it made."""

    name: Name
    size_bytes: Size
    adler32: Adler32
    sha256: Sha256


class JobReport(_Read):
    """report.json: how the job ended. `exit_code` is by the contract: 0 done, 1 transient, 2 reconstruction failed,
    3 script failed. `begun` and `ended` are the worker's clock, in seconds since 1970.
    """

    format: Literal[1]
    name: Words
    exit_code: Annotated[int, Field(ge=0, le=3)]
    outcome: Literal["done", "staging", "setup", "command", "timeout", "terminated", "no-output", "worker"]
    reason: Words
    output: JobOutputReport | None
    begun: Moment
    ended: Moment
    node: Words
    release: Words
    revision: Words | None


class Heartbeat(_Read):
    """What a job is at: the step in words, the worker's clock, and how much output there is by now."""

    step: Words
    at: Moment
    elapsed_seconds: Annotated[float, Field(allow_inf_nan=False)]
    output_bytes: Size


def read_report(raw: bytes, *, name: str, output: str) -> JobReport:
    """The report that the job of that name left, which was to make that output.

    Raises:
        JobReportError: it is none, or that of another job.
    """
    report = _read(JobReport, raw)
    if report.name != name:
        raise JobReportError(f"the report is of job {report.name[:80]!r}")
    if report.output is not None and report.output.name != output:
        raise JobReportError(f"the report speaks of an output {report.output.name[:80]!r}")
    if report.exit_code == 0 and (report.output is None or report.outcome != "done"):
        raise JobReportError("the report says that all is done, but not with which output")
    return report


def read_heartbeat(raw: bytes) -> Heartbeat:
    """The last heartbeat of a job.

    Raises:
        JobReportError: it is none.
    """
    return _read(Heartbeat, raw)


def _read(kind: type[_Found], raw: bytes) -> _Found:
    if len(raw) > MOST_REPORT_BYTES:
        raise JobReportError(f"it has over {MOST_REPORT_BYTES} bytes")
    try:
        return kind.model_validate(json.loads(raw), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(one) for one in first["loc"])[:80]
        raise JobReportError(f"{where!r}: {first['msg'][:200]}") from error
    except (ValueError, RecursionError) as error:
        raise JobReportError("it is no JSON") from error
