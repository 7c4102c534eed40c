"""Disks that are full, do not answer or lose what they took: the agent works on, and says so."""

import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proxyagent.audit import AuditLog, verify_audit
from tests.unit.proxyagent.audit.conftest import Now, Opener, events, files, fill, records

SPACE = "free some space on the disk of the agent's state directory, or mend that disk"
FULL_DISK = r"""
import resource, sys
from datetime import UTC, datetime
from pathlib import Path
from proxyagent.audit import AuditLog, verify_audit
directory = Path(sys.argv[1])
log = AuditLog(directory, now=lambda: datetime.now(UTC), on_head=lambda n, d: None, flush_seconds=99)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
for number in range(100):
    log.record("issued", number=number)
print(log.problem)
written = (directory / "audit-000000000001.jsonl").read_bytes()
assert written.endswith(b"\n") and len(written) < 3000
verify_audit(directory)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
log.record("issued", number=100)
print(log.problem)
log.close()
"""


def test_a_full_disk_stops_nobody_and_is_said(tmp_path: Path) -> None:
    directory = tmp_path / "audit"
    done = subprocess.run(
        [sys.executable, "-P", "-c", FULL_DISK, str(directory)],
        check=True,
        timeout=60,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "cannot write the audit log: File too large\nNone\n"
    verify_audit(directory)
    found = records(directory)
    lost = [record["fields"] for record in found if record["event"] == "log-lost"]
    numbers = [record["fields"]["number"] for record in found if record["event"] == "issued"]  # type: ignore[index]
    assert numbers[-1] == 100
    assert lost == [{"count": 101 - len(numbers)}]
    assert done.stderr.splitlines() == [
        f"cannot write the audit log: File too large; {SPACE}",
        f"the audit log is written again; {101 - len(numbers)} records were lost",
    ]


@pytest.fixture
def full_disk() -> Iterator[Callable[[], None]]:
    """Nothing can be written by this process, until what this gives is called."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))

    def free() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    yield free
    free()


def test_a_disk_that_is_full_from_the_start_stops_nobody(
    tmp_path: Path, full_disk: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxyagent.audit.log._RETRY_SECONDS", 0)
    again = threading.Event()
    log = AuditLog(tmp_path / "audit", now=Now(), on_head=lambda _number, _digest: again.set(), flush_seconds=0.01)
    try:
        log.record("issued")
        problem = log.problem
        full_disk()
        assert problem == "cannot write the audit log: File too large"
        assert again.wait(60)
        log.record("issued")
    finally:
        full_disk()
        log.close()
    assert events(tmp_path / "audit") == ["log-lost", "issued"]
    verify_audit(tmp_path / "audit")


def test_no_new_file_is_no_reason_to_stop(open_log: Opener, tmp_path: Path, heads: list[tuple[int, str]]) -> None:
    log = open_log(max_file_bytes=100)
    log.record("issued")
    obstacle = tmp_path / "audit" / "audit-000000000002.jsonl"
    obstacle.mkdir()
    log.flush()
    problem = log.problem
    log.record("issued")
    obstacle.rmdir()
    log.flush()
    assert (problem, log.problem) == ("cannot begin a new audit file: File exists", None)
    log.record("issued")
    log.close()
    assert [file.name for file in files(tmp_path / "audit")] == [
        "audit-000000000001.jsonl",
        "audit-000000000003.jsonl",
        "audit-000000000004.jsonl",
    ]
    assert verify_audit(tmp_path / "audit").records == 3
    assert [number for number, _ in heads] == [1, 2, 3]


def test_a_disk_that_does_not_answer_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answers, asked = threading.Event(), threading.Event()
    sync = os.fdatasync

    def hang(descriptor: int) -> None:  # only a broken disk does that
        asked.set()
        assert answers.wait(60)
        sync(descriptor)

    monkeypatch.setattr(os, "fdatasync", hang)
    monkeypatch.setattr("proxyagent.audit.log._HUNG_SECONDS", 0)
    monkeypatch.setattr("proxyagent.audit.log._CLOSE_SECONDS", 0.01)
    log = AuditLog(tmp_path / "audit", now=Now(), on_head=lambda _number, _digest: None, flush_seconds=0.01)
    try:
        log.record("issued")
        assert asked.wait(60)
        assert log.problem == "the audit log's disk does not answer"
        log.record("issued")
        log.close()
        assert "the audit log's disk does not answer; its last records may be lost" in caplog.messages
        assert len(records(tmp_path / "audit")) == 2
    finally:
        answers.set()


def test_a_sync_that_failed_is_never_believed_again(
    open_log: Opener, heads: list[tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = open_log()
    fill(log, 1)
    log.flush()

    def fail(_descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)  # only a broken disk does that
        fill(log, 1)
        log.flush()
    fill(log, 1)
    log.flush()
    assert log.problem == "the disk did not take the audit log: Input/output error"
    assert [number for number, _ in heads] == [1]
