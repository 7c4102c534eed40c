"""The local batch system where it differs from others: engines and supervisors die, and jobs leave processes behind."""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mover.batch.files import read_tail
from mover.batch.job import prepare_directory
from mover.batch.local import LocalBatch
from mover.batch.localjob import LocalJob
from mover.errors import BatchError, BatchUnavailableError, JobRefusedError
from mover.ports import JobPhase, JobSpec, JobStatus
from tests.conformance.batches import SLOTS, LocalSubject
from tests.conformance.subjects import eventually

#: An engine that submits what it is given and looks after it until it is killed.
_ENGINE = """
import pickle, sys, time
from pathlib import Path
from mover.batch.local import LocalBatch
batch = LocalBatch(Path(sys.argv[1]), slots=int(sys.argv[2]), grace_seconds=1.0)
jobs = pickle.load(sys.stdin.buffer)
for job in jobs:
    batch.submit(job)
print("submitted", flush=True)
while True:
    batch.look([])
    time.sleep(0.01)
"""


@pytest.fixture
def subject(tmp_path: Path) -> Iterator[LocalSubject]:
    made = LocalSubject(tmp_path)
    yield made
    made.close()


@pytest.fixture
def engine(subject: LocalSubject) -> Iterator[Callable[[list[JobSpec]], subprocess.Popen[bytes]]]:
    """Starts an engine, which has submitted these jobs when it is given to the test."""
    running: list[subprocess.Popen[bytes]] = []

    def start(jobs: list[JobSpec]) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-c", _ENGINE, str(subject.state), str(SLOTS)]
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        running.append(process)
        assert process.stdin is not None
        assert process.stdout is not None
        with process.stdin as pipe:
            pickle.dump(jobs, pipe)
        assert process.stdout.readline() == b"submitted\n"
        return process

    yield start
    for process in running:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def script(subject: LocalSubject, text: str, *, name: str = "", cores: int = 1, wall_seconds: int = 600) -> JobSpec:
    """A job that runs these commands of the shell's."""
    job = subject.job("own", wall_seconds=wall_seconds)
    (job.directory / "job.sh").write_text(f"#!/bin/sh\necho ran >> ran.txt\n{text}\n")
    return replace(job, name=name or job.name, cores=cores)


def processes_in(directory: Path) -> list[str]:
    """What runs there."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if process.joinpath("cwd").readlink() == directory:
                found.append(process.joinpath("cmdline").read_bytes().replace(b"\0", b" ").decode())
    return [each for each in found if "mover.batch.supervisor" not in each]


def test_jobs_outlive_the_engine_and_the_next_one_goes_on(
    subject: LocalSubject, engine: Callable[[list[JobSpec]], subprocess.Popen[bytes]]
) -> None:
    held = [subject.job("hold") for _ in range(SLOTS)]
    waiting = subject.job("exit", "2")
    first = engine([*held, waiting])
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    ids = [subject.batch.find(job.name) for job in held]
    assert None not in ids
    found = subject.batch.look([job.name for job in (*held, waiting)])
    assert [status.phase for status in found.values()] == [JobPhase.RUNNING] * SLOTS + [JobPhase.WAITING]
    for job in held:
        subject.batch.cancel(job.name)
    assert subject.wait(waiting.name, lambda status: status.ended).exit_code == 2
    assert (waiting.directory / "ran.txt").read_text() == "ran\n"


def test_engines_that_share_the_directory_run_each_job_once(
    subject: LocalSubject, engine: Callable[[list[JobSpec]], subprocess.Popen[bytes]]
) -> None:
    jobs = [subject.job("exit", "0") for _ in range(16)]
    others = [engine(jobs[:8]), engine(jobs[8:])]
    names = [job.name for job in jobs]
    assert eventually(lambda: all(each.ended for each in subject.batch.look(names).values()), seconds=240)
    assert {(job.directory / "ran.txt").read_text() for job in jobs} == {"ran\n"}
    assert all(process.poll() is None for process in others)


#: Processes that do not mind SIGTERM, in sessions of their own, whose parents have gone.
_STUBBORN = "trap '' TERM; (setsid sleep 600 &) & (setsid sh -c 'sleep 600 & sleep 600' &); echo up; sleep 600"


@pytest.mark.parametrize("how", ["cancelled", "overdue", "supervisor killed", "supervisor asked to end"])
def test_no_process_of_an_ended_job_is_left(subject: LocalSubject, how: str) -> None:
    job = script(subject, _STUBBORN, wall_seconds=2 if how == "overdue" else 600)
    job_id = subject.batch.submit(job)
    assert eventually(lambda: subject.batch.read(job_id, "batch.log", limit_bytes=9) == b"up\n", seconds=120)
    match how:
        case "cancelled":
            subject.batch.cancel(job_id)
        case "supervisor killed":
            os.kill(subject.supervisor(job_id), signal.SIGKILL)
        case "supervisor asked to end":
            os.kill(subject.supervisor(job_id), signal.SIGTERM)
    status = subject.wait(job_id, lambda status: status.ended)
    assert status.phase is {"cancelled": JobPhase.CANCELLED, "overdue": JobPhase.TIMED_OUT}.get(how, JobPhase.FAILED)
    # A process that was killed takes a moment to leave.
    assert eventually(lambda: processes_in(job.directory) == [], seconds=60), processes_in(job.directory)


def test_what_a_job_leaves_behind_is_ended_with_it(subject: LocalSubject) -> None:
    job = script(subject, "setsid sleep 600 & sleep 600 & exit 3")
    status = subject.wait(subject.batch.submit(job), lambda status: status.ended)
    assert status.exit_code == 3
    assert processes_in(job.directory) == []


def test_a_job_is_asked_to_end_before_it_is_killed(subject: LocalSubject) -> None:
    job = script(subject, "trap 'echo bye > bye.txt; exit 9' TERM; echo up; while :; do sleep 0.05; done")
    job_id = subject.batch.submit(job)
    assert eventually(lambda: subject.batch.read(job_id, "batch.log", limit_bytes=9) == b"up\n", seconds=120)
    subject.batch.cancel(job_id)
    assert subject.wait(job_id, lambda status: status.ended).phase is JobPhase.CANCELLED
    assert subject.text(job_id, "bye.txt") == "bye\n"


def test_a_job_that_had_started_when_the_machine_went_down_is_never_run_again(subject: LocalSubject) -> None:
    job = subject.job("exit", "0")
    lost = LocalJob.create(job, state=subject.state / "jobs" / job.name, aside=subject.state / "aside")
    lost.record_started()
    status = subject.status(job.name)
    assert status is not None
    assert status.phase is JobPhase.FAILED
    assert "vanished" in status.words
    assert subject.open().look([job.name]) == {job.name: status}
    assert not (job.directory / "ran.txt").exists()


def test_a_job_that_had_not_started_when_the_machine_went_down_runs(subject: LocalSubject) -> None:
    job = subject.job("exit", "0")
    prepare_directory(job)
    LocalJob.create(job, state=subject.state / "jobs" / job.name, aside=subject.state / "aside")
    assert subject.wait(job.name, lambda status: status.ended).exit_code == 0


def test_a_name_is_taken_once(subject: LocalSubject) -> None:
    job = subject.job("exit", "0")
    subject.batch.submit(job)
    with pytest.raises(JobRefusedError, match="already"):
        subject.batch.submit(job)
    subject.wait(job.name, lambda status: status.ended)
    assert (job.directory / "ran.txt").read_text() == "ran\n"


def test_the_line_is_bounded(subject: LocalSubject) -> None:
    batch = LocalBatch(subject.state, slots=SLOTS, most_waiting=2, grace_seconds=1.0)
    for _ in range(SLOTS):
        subject.hold()
    for _ in range(2):
        batch.submit(subject.job("exit", "0"))
    job = subject.job("exit", "0")
    with pytest.raises(BatchUnavailableError, match="2 jobs are waiting"):
        batch.submit(job)
    assert batch.find(job.name) is None


def test_a_job_of_many_cores_is_not_overtaken(subject: LocalSubject) -> None:
    held = subject.hold()
    wide = subject.batch.submit(script(subject, "exit 0", cores=2))
    narrow = subject.batch.submit(subject.job("exit", "0"))
    assert {status.phase for status in subject.batch.look([wide, narrow]).values()} == {JobPhase.WAITING}
    subject.batch.cancel(held)
    assert subject.wait(narrow, lambda status: status.ended).exit_code == 0
    assert subject.batch.look([wide])[wide].exit_code == 0
    with pytest.raises(JobRefusedError, match="3 cores"):
        subject.batch.submit(script(subject, "exit 0", cores=3))


def test_the_log_is_bounded_and_keeps_its_end(subject: LocalSubject) -> None:
    batch = LocalBatch(subject.state, slots=SLOTS, grace_seconds=1.0, log_bytes=1000)
    job_id = batch.submit(script(subject, "echo first; seq 1 100000; echo last"))
    subject.wait(job_id, lambda status: status.ended)
    log = subject.text(job_id, "batch.log")
    assert log.startswith("first\n1\n2\n")
    assert log.endswith("\n99999\n100000\nlast\n")
    assert len(log) < 1000 + (64 << 10) + 100
    assert "bytes of this log were left out here]" in log


def test_a_supervisor_has_nothing_of_ours_either(subject: LocalSubject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("X509_USER_PROXY", "our-secret")
    with (subject.directory / "ours").open("wb") as ours:
        os.set_inheritable(ours.fileno(), True)
        supervisor = Path(f"/proc/{subject.supervisor(subject.hold())}")
    assert b"our-secret" not in (supervisor / "environ").read_bytes()
    assert [each for each in (supervisor / "fd").iterdir() if str(each.readlink()).endswith("/ours")] == []


def test_a_directory_that_is_gone_fails_the_job_and_no_other(subject: LocalSubject) -> None:
    held = [subject.hold() for _ in range(SLOTS)]
    job, other = subject.job("exit", "0"), subject.job("exit", "1")
    job_id, other_id = subject.batch.submit(job), subject.batch.submit(other)
    job.directory.rename(job.directory.with_name("elsewhere"))
    for each in held:
        subject.batch.cancel(each)
    status = subject.wait(job_id, lambda status: status.ended)
    assert status.phase is JobPhase.FAILED
    assert "could not be started" in status.words
    assert subject.wait(other_id, lambda status: status.ended).exit_code == 1


def test_facts_that_are_damaged_are_named(subject: LocalSubject) -> None:
    job_id, _ = subject.run("exit", "0")
    result = subject.state / "jobs" / job_id / "result.json"
    whole = result.read_bytes()
    result.write_bytes(b"{")
    with pytest.raises(BatchError, match=r"result\.json cannot be read"):
        subject.batch.look([job_id])
    result.write_bytes(whole)
    assert subject.batch.look([job_id])[job_id] == JobStatus(JobPhase.EXITED, "exit code 0", 0)


def test_what_a_job_puts_in_the_place_of_a_file_is_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    place = tmp_path / "job"
    place.mkdir()
    (place / "link").symlink_to(secret)
    os.mkfifo(place / "pipe")
    (place / "directory").mkdir()
    (place / "zero").symlink_to("/dev/zero")
    for name in ("link", "pipe", "directory", "zero"):
        assert read_tail(place, name, limit_bytes=10) is None
    secret.rename(place / "plain")
    assert read_tail(place, "plain", limit_bytes=4) == b"cret"
