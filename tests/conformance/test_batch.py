"""What every batch system promises, on each of them in turn."""

import os
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mover.errors import BatchError, BatchUnavailableError, JobRefusedError
from mover.ports import JobPhase, JobStatus
from tests.conformance.batches import BATCHES, SLOTS, BatchSubject, make_subject
from tests.conformance.subjects import eventually


@pytest.fixture(params=BATCHES)
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BatchSubject]:
    """Each batch system in turn, without jobs of the test's."""
    made = make_subject(request.param, tmp_path, request.getfixturevalue)
    yield made
    made.close()


@pytest.mark.parametrize("code", [0, 1, 2, 3, 127])
def test_the_exit_code_is_the_commands_own(subject: BatchSubject, code: int) -> None:
    job_id, status = subject.run("exit", str(code))
    assert (status.phase, status.exit_code) == (JobPhase.EXITED, code), status
    assert subject.text(job_id, "ran.txt") == "ran\n"


def test_a_job_that_a_signal_ended_was_cancelled_by_somebody(subject: BatchSubject) -> None:
    _, status = subject.run("kill", "SEGV")
    assert (status.phase, status.exit_code) == (JobPhase.CANCELLED, None)
    assert re.search(r"SEGV|\b11\b", status.words)


def test_output_and_errors_are_kept(subject: BatchSubject) -> None:
    job_id, _ = subject.run("show")
    assert sorted(subject.text(job_id, "batch.log").split()) == ["said", "warned"]


def test_arguments_arrive_unchanged(subject: BatchSubject) -> None:
    odd = [
        "",
        " ",
        "a b",
        "'",
        '"',
        "$(touch x)",
        "`id`",
        "\\",
        "a\nb",
        "\r\n",
        "#SBATCH -p x",
        "-x",
        "=",
        "*",
        "ü",
        "%j",
    ]
    job_id, status = subject.run("show", *odd)
    assert status.exit_code == 0
    assert subject.text(job_id, "arguments.txt").split("\0") == [*odd, ""]
    assert subject.batch.read(job_id, "x", limit_bytes=1) is None


def test_nothing_of_ours_goes_along(subject: BatchSubject, monkeypatch: pytest.MonkeyPatch) -> None:
    if not subject.runs:
        pytest.skip("runs no process")
    for name in ("X509_USER_PROXY", "BEARER_TOKEN", "MOVER_TEST_SECRET", "SBATCH_ACCOUNT"):
        monkeypatch.setenv(name, "our-secret")
    subject.batch = subject.open()
    job_id, _ = subject.run("show")
    environment = subject.text(job_id, "environment.txt")
    assert "our-secret" not in environment
    assert "X509_USER_PROXY" not in environment
    assert {"PATH", "HOME", "LANG", "TMPDIR"} <= {line.partition("=")[0] for line in environment.splitlines()}


def test_no_descriptor_of_ours_is_inherited(subject: BatchSubject) -> None:
    if not subject.runs:
        pytest.skip("runs no process")
    with (subject.directory / "ours").open("wb") as ours:
        os.set_inheritable(ours.fileno(), True)
        job_id, _ = subject.run("descriptors")
    found = re.findall(r"(\d+) -> (.*)", subject.text(job_id, "batch.log"))
    assert {number for number, _ in found} >= {"0", "1", "2"}
    # The shell has its script open.
    assert [target for number, target in found if int(number) > 2 and not target.endswith("/job.sh")] == []


def test_a_job_that_exceeds_its_time_is_ended(subject: BatchSubject) -> None:
    job_id = subject.batch.submit(subject.job("hold", wall_seconds=subject.short_seconds))
    subject.hurry(job_id)
    status = subject.wait(job_id, lambda status: status.ended)
    assert (status.phase, status.exit_code) == (JobPhase.TIMED_OUT, None)


def test_a_running_job_is_cancelled(subject: BatchSubject) -> None:
    job_id = subject.hold()
    subject.batch.cancel(job_id)
    assert subject.wait(job_id, lambda status: status.ended).phase is JobPhase.CANCELLED
    subject.batch.cancel(job_id)
    assert subject.wait(job_id, lambda status: status.ended).phase is JobPhase.CANCELLED


def test_a_waiting_job_is_cancelled_and_never_runs(subject: BatchSubject) -> None:
    held = [subject.hold() for _ in range(SLOTS)]
    job_id = subject.batch.submit(subject.job("exit", "0"))
    status = subject.status(job_id)
    assert status is not None
    assert status.phase is JobPhase.WAITING
    subject.batch.cancel(job_id)
    assert subject.wait(job_id, lambda status: status.ended).phase is JobPhase.CANCELLED
    for each in held:
        subject.batch.cancel(each)
    for each in held:
        subject.wait(each, lambda status: status.ended)
    assert subject.batch.read(job_id, "ran.txt", limit_bytes=10) is None


def test_what_has_ended_stays_as_it_ended(subject: BatchSubject) -> None:
    job_id, status = subject.run("exit", "3")
    subject.batch.cancel(job_id)
    assert subject.status(job_id) == status


def test_what_is_not_known_is_left_out_and_no_error(subject: BatchSubject) -> None:
    job_id, status = subject.run("exit", "0")
    strangers = ["99999999", "99999999:exit-1", "exit-1", "../exit", "", "x y"]
    assert subject.batch.look([*strangers, job_id]) == {job_id: status}
    assert subject.batch.look([]) == {}
    for each in strangers:
        subject.batch.cancel(each)
        subject.batch.forget(each)
        assert subject.batch.read(each, "ran.txt", limit_bytes=10) is None
    assert subject.batch.find("exit-1") is None


def test_a_job_is_found_by_its_name(subject: BatchSubject) -> None:
    job = subject.job("exit", "0")
    assert subject.batch.find(job.name) is None
    job_id = subject.batch.submit(job)
    assert subject.batch.find(job.name) == job_id
    assert subject.batch.find(job.name[:-1]) is None
    subject.wait(job_id, lambda status: status.ended)
    assert subject.open().find(job.name) == job_id


def test_a_job_is_found_whose_submission_was_not_answered(subject: BatchSubject) -> None:
    job = subject.job("exit", "0")
    subject.submit_without_answer(job)
    job_id = subject.batch.find(job.name)
    assert job_id is not None
    assert subject.wait(job_id, lambda status: status.ended).exit_code == 0
    assert subject.text(job_id, "ran.txt") == "ran\n"


def test_what_cannot_be_asked_has_not_vanished(subject: BatchSubject) -> None:
    job_id = subject.hold()
    job = subject.job("exit", "0")
    with subject.outage():
        for call in (
            lambda: subject.batch.look([job_id]),
            lambda: subject.batch.find("exit-1"),
            lambda: subject.batch.cancel(job_id),
            lambda: subject.batch.submit(job),
        ):
            with pytest.raises(BatchUnavailableError):
                call()
    status = subject.status(job_id)
    assert status is not None
    assert status.phase is JobPhase.RUNNING
    subject.batch.cancel(job_id)
    assert subject.wait(job_id, lambda status: status.ended).phase is JobPhase.CANCELLED


def test_a_job_whose_worker_is_lost_has_failed_or_is_gone(subject: BatchSubject) -> None:
    job_id = subject.hold()

    def lost() -> bool:
        status = subject.status(job_id)
        return status is None or status.phase is JobPhase.FAILED

    with subject.lose_worker(job_id):
        assert eventually(lost, seconds=240)
    assert lost()
    assert subject.text(job_id, "ran.txt") == "ran\n"


def test_many_jobs_run_once_each(subject: BatchSubject) -> None:
    ids = [subject.batch.submit(subject.job("exit", str(number % 3))) for number in range(subject.many)]
    deadline = time.monotonic() + 240
    most = 0
    found: dict[str, JobStatus] = {}
    while not (found and all(status.ended for status in found.values())):
        assert time.monotonic() < deadline
        found = subject.batch.look(ids)
        most = max(most, sum(status.phase is JobPhase.RUNNING for status in found.values()))
        time.sleep(0.02)
    assert most <= SLOTS
    assert [found[job_id].exit_code for job_id in ids] == [number % 3 for number in range(subject.many)]
    assert {subject.text(job_id, "ran.txt") for job_id in ids} == {"ran\n"}


def test_the_end_of_a_file_that_grows_is_read(subject: BatchSubject) -> None:
    job_id = subject.hold()
    assert subject.batch.read(job_id, "batch.log", limit_bytes=100) == b"held\n"
    assert subject.batch.read(job_id, "batch.log", limit_bytes=3) == b"ld\n"
    assert subject.batch.read(job_id, "no-such-file", limit_bytes=3) is None
    for trick in ("../job.sh", "/etc/passwd", "..", ".", "", "a/b", "a\0"):
        with pytest.raises(BatchError):
            subject.batch.read(job_id, trick, limit_bytes=3)
    subject.batch.cancel(job_id)


def test_what_is_forgotten_leaves_the_directory(subject: BatchSubject) -> None:
    job = subject.job("exit", "0")
    job_id = subject.batch.submit(job)
    subject.wait(job_id, lambda status: status.ended)
    subject.batch.forget(job_id)
    subject.batch.forget(job_id)
    assert (job.directory / "job.sh").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "../x"},
        {"name": "-x"},
        {"name": "a" * 81},
        {"arguments": ("other.sh",)},
        {"arguments": ()},
        {"arguments": ("job.sh", "a\0b")},
        {"wall_seconds": 0},
    ],
    ids=str,
)
def test_a_job_that_is_no_job_is_refused(subject: BatchSubject, wrong: dict[str, Any]) -> None:
    job = replace(subject.job("exit", "0"), **wrong)
    with pytest.raises(JobRefusedError):
        subject.batch.submit(job)
    assert not (job.directory / "ran.txt").exists()
