"""What is written for a job, and what is believed of what it leaves."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from mover.reco.jobdescription import (
    CommandArgument,
    JobDescription,
    JobReportError,
    command_line,
    read_heartbeat,
    read_report,
)

JOB = JobDescription(
    name="job-1",
    run=4742,
    iteration=1,
    release="0.1.0",
    setup="/x/env.sh",
    bundle=None,
    command=("true",),
    output="04742_offline.tar",
    wall_seconds=60,
)
OUTPUT = {"name": "04742_offline.tar", "size_bytes": 10, "adler32": "0" * 8, "sha256": "0" * 64}
REPORT: dict[str, Any] = {
    "format": 1,
    "name": "job-1",
    "exit_code": 0,
    "outcome": "done",
    "reason": "done",
    "output": OUTPUT,
    "begun": 1.5,
    "ended": 2.0,
    "node": "worker",
    "release": "0.1.0",
    "revision": None,
}


def test_a_description_has_numbers_where_they_belong() -> None:
    fields = JOB.model_dump()
    for name in ("run", "iteration", "wall_seconds", "log_bytes"):
        for other in (True, "1"):
            with pytest.raises(ValidationError, match=f"{name} must be a number"):
                JobDescription.model_validate(fields | {name: other})


def test_the_command_of_a_job() -> None:
    arguments = ("x.py", "--in", "{bundle}", "-n{iteration}", "{run:05d}", "{release}", "{output}")
    assert command_line(arguments, run=42, iteration=3, release="r", output="o.tar", bundle="00042.tar") == (
        "x.py",
        "--in",
        "00042.tar",
        "-n3",
        "00042",
        "r",
        "o.tar",
    )


@pytest.mark.parametrize("argument", ["{lfn}", "{run", "{run!r}", "{bundle:05d}", "{0}"])
def test_a_command_that_means_nothing_is_refused(argument: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(CommandArgument).validate_python(argument)


def test_a_report_of_the_job() -> None:
    report = read_report(json.dumps(REPORT).encode(), name=JOB.name, output=JOB.output)
    assert report.output
    assert report.output.size_bytes == 10


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "job-2"}, "of job 'job-2'"),
        ({"output": {**OUTPUT, "name": "other.tar"}}, "an output 'other.tar'"),
        ({"output": {**OUTPUT, "name": "../up"}}, "'output.name'"),
        ({"output": {**OUTPUT, "size_bytes": -1}}, "'output.size_bytes'"),
        ({"output": {**OUTPUT, "adler32": "0" * 8 + "\n"}}, "'output.adler32'"),
        ({"output": None}, "not with which output"),
        ({"outcome": "command"}, "not with which output"),
        ({"outcome": "other"}, "'outcome'"),
        ({"exit_code": 4}, "'exit_code'"),
        ({"exit_code": "0"}, "'exit_code'"),
        ({"exit_code": True}, "'exit_code'"),
        ({"reason": "x" * 2001}, "'reason'"),
        ({"begun": float("inf")}, "'begun'"),
        ({"ended": 1e30}, "'ended'"),
        ({"more": 1}, "'more'"),
        ({"node": "x" * 70_000}, "over 65536 bytes"),
    ],
)
def test_what_is_no_report_of_the_job_is_not_believed(change: dict[str, Any], words: str) -> None:
    with pytest.raises(JobReportError, match=words):
        read_report(json.dumps({**REPORT, **change}).encode(), name=JOB.name, output=JOB.output)


@given(st.binary(max_size=300) | st.just(b"[" * 5000) | st.just(b"\xff\xfe{}"))
def test_foreign_bytes_are_no_report(raw: bytes) -> None:
    with pytest.raises(JobReportError):
        read_report(raw, name=JOB.name, output=JOB.output)
    with pytest.raises(JobReportError):
        read_heartbeat(raw)


@pytest.mark.parametrize("change", [{"output": "a/b"}, {"output": ".."}, {"name": "a b"}, {"release": "../x"}])
def test_a_description_has_no_names_that_lead_elsewhere(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        JobDescription.model_validate({**JOB.model_dump(), **change})
