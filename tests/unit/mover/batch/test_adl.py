"""Descriptions for ARC: whatever a job is called and given, the description says just that."""

import subprocess
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mover.batch.adl import LAUNCHER, check_staging, describe, launcher, needs_delegation
from mover.errors import JobRefusedError
from mover.ports import JobInput, JobOutput, JobSpec

_NS = "{http://www.eu-emi.eu/es/2010/12/adl}"
_SURL = "davs://se.example.org:443/mice/in.tar"


@pytest.fixture
def job(tmp_path: Path) -> JobSpec:
    """A job that fetches its input and stores its output."""
    (tmp_path / "run.sh").write_text("#!/bin/sh\n")
    return JobSpec(
        name="reco-04742-1",
        directory=tmp_path,
        arguments=("run.sh", "--input-file", "in.tar"),
        inputs=(JobInput("run.sh", tmp_path / "run.sh"), JobInput("in.tar", _SURL)),
        outputs=(JobOutput("out.tar", "root://se.example.org//mice/out.tar"), JobOutput("hist.root")),
        wall_seconds=3600,
        memory_mib=2048,
        cores=2,
    )


def _texts(root: ElementTree.Element, path: str) -> list[str | None]:
    return [found.text for found in root.findall("/".join(_NS + tag for tag in path.split("/")))]


def test_a_description_has_all_that_a_job_asks_for(job: JobSpec) -> None:
    root = ElementTree.fromstring(describe(check_staging(job), queue="a<b>&c", delegation="d1"))  # noqa: S314 - ours
    assert root.tag == f"{_NS}ActivityDescription"
    assert _texts(root, "ActivityIdentification/Name") == ["reco-04742-1"]
    assert _texts(root, "Application/Executable/Path") == [LAUNCHER]
    assert _texts(root, "Application/Executable/FailIfExitCodeNotEqualTo") == ["0"]
    assert _texts(root, "Resources/QueueName") == ["a<b>&c"]
    assert _texts(root, "Resources/WallTime") == ["3600"]
    assert _texts(root, "Resources/SlotRequirement/NumberOfSlots") == ["2"]
    assert _texts(root, "Resources/IndividualPhysicalMemory") == [str(2048 << 20)]
    assert _texts(root, "DataStaging/InputFile/Name") == [LAUNCHER, "run.sh", "in.tar"]
    assert _texts(root, "DataStaging/InputFile/IsExecutable") == ["true", "true", "false"]
    # ARC's requests for davs:// are denied.
    assert _texts(root, "DataStaging/InputFile/Source/URI") == [_SURL.replace("davs", "https")]
    assert _texts(root, "DataStaging/OutputFile/Name") == ["out.tar", "hist.root", "batch.log"]
    assert _texts(root, "DataStaging/OutputFile/Target/URI") == ["root://se.example.org//mice/out.tar"]
    assert _texts(root, "DataStaging/OutputFile/Target/UseIfFailure") == ["false"]
    assert {*_texts(root, "DataStaging/InputFile/Source/DelegationID")} == {"d1"}
    assert {*_texts(root, "DataStaging/OutputFile/Target/DelegationID")} == {"d1"}


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
def test_arguments_arrive_unchanged(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "show").write_text("#!/bin/sh\nprintf '%s\\0' \"$@\"\n")
    (tmp_path / "show").chmod(0o755)
    given_job = JobSpec("x", tmp_path, ("show", *arguments), (JobInput("show", tmp_path / "show"),), (), 1)
    (tmp_path / LAUNCHER).write_bytes(launcher(given_job))
    done = subprocess.run(["sh", LAUNCHER], cwd=tmp_path, capture_output=True, check=True, timeout=60)
    assert done.stdout == "".join(f"{each}\0" for each in arguments or [""]).encode()


def test_only_jobs_whose_files_are_moved_need_a_proxy(job: JobSpec) -> None:
    assert needs_delegation(job)
    assert needs_delegation(replace(job, inputs=job.inputs[:1]))
    assert needs_delegation(replace(job, outputs=()))
    assert not needs_delegation(replace(job, inputs=job.inputs[:1], outputs=job.outputs[1:]))


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "/etc/passwd",
        "davs://se/x;checksum=no",
        "davs://se/a b",
        "davs://u:p@se/x",
        "davs://se/x\n",
        "davs://se",
        "ftp://se/x",
        "",
    ],
)
def test_a_compute_element_is_sent_to_storage_elements_only(job: JobSpec, url: str) -> None:
    with pytest.raises(JobRefusedError, match="is not the URL"):
        check_staging(replace(job, inputs=(job.inputs[0], JobInput("in.tar", url))))
    with pytest.raises(JobRefusedError, match="is not the URL"):
        check_staging(replace(job, outputs=(JobOutput("out.tar", url),)))


def test_inputs_are_there_and_leave_the_launcher_its_name(job: JobSpec, tmp_path: Path) -> None:
    with pytest.raises(JobRefusedError, match="not in its directory"):
        check_staging(replace(job, inputs=(*job.inputs, JobInput("passwd", Path("/etc/passwd")))))
    with pytest.raises(JobRefusedError, match="not in its directory"):
        check_staging(replace(job, inputs=(*job.inputs, JobInput("gone", tmp_path / "gone"))))
    with pytest.raises(JobRefusedError, match=LAUNCHER):
        check_staging(replace(job, outputs=(JobOutput(LAUNCHER),)))
