"""Recording: what is in the file and on the disk, when, and in which directory."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from proxyagent.audit import AuditLog, AuditReport, verify_audit
from proxyagent.audit.record import START, Head
from proxyagent.errors import AuditError
from tests.unit.proxyagent.audit.conftest import FOR_EVER, Now, Opener, events, files, fill, noted, records


def test_what_is_recorded_is_in_the_file_at_once_and_verifies(open_log: Opener, tmp_path: Path) -> None:
    log = open_log()
    log.record("issued", uid=1000, profile="mover", limited=False, identity=None)
    (record,) = records(tmp_path / "audit")
    assert record["event"] == "issued"
    assert record["fields"] == {"uid": 1000, "profile": "mover", "limited": False, "identity": None}
    assert record["time"] == "2026-11-22T12:00:00.000000+00:00"
    assert (record["sequence"], record["version"], record["previous"]) == (1, 1, START.digest)
    log.close()
    report = verify_audit(tmp_path / "audit")
    assert report == AuditReport(1, 0, 1, Head(1, str(record["digest"])), 0)
    assert log.problem is None


def test_nobody_else_can_read_it(open_log: Opener, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        fill(open_log(), 1)
    finally:
        os.umask(before)
    assert (tmp_path / "audit").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "audit").iterdir()} == {0o600}


def test_the_head_is_told_only_after_it_is_on_the_disk(
    open_log: Opener, tmp_path: Path, heads: list[tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    for name in ("fdatasync", "fsync", "rename"):
        call = getattr(os, name)
        monkeypatch.setattr(os, name, noted(name, call, done))
    log = open_log()
    fill(log, 3)
    assert heads == []
    done.clear()
    log.flush()
    assert done == ["fdatasync", "fsync", "rename", "fsync"]
    assert heads == [(3, records(tmp_path / "audit")[-1]["digest"])]
    assert json.loads((tmp_path / "audit" / "audit-head.json").read_bytes()) == list(heads[0])
    log.flush()
    assert len(heads) == 1  # nothing new, nothing told


def test_the_disk_gets_it_without_being_asked(tmp_path: Path) -> None:
    told = threading.Event()
    log = AuditLog(tmp_path, now=Now(), on_head=lambda _number, _digest: told.set(), flush_seconds=0.01)
    try:
        log.record("started")
        assert told.wait(60)
    finally:
        log.close()


def test_a_restart_continues_the_chain(open_log: Opener, tmp_path: Path, heads: list[tuple[int, str]]) -> None:
    for _ in range(3):
        log = open_log()
        fill(log, 2)
        log.close()
        assert log.problem is None
    assert [record["sequence"] for record in records(tmp_path / "audit")] == [1, 2, 3, 4, 5, 6]
    assert verify_audit(tmp_path / "audit").records == 6
    assert [number for number, _ in heads] == [2, 2, 4, 4, 6]  # also at the start, for a journal that begins then


def test_what_a_killed_agent_recorded_is_there(tmp_path: Path) -> None:
    script = (
        "import os, sys; from datetime import UTC, datetime; from pathlib import Path\n"
        "from proxyagent.audit import AuditLog\n"
        "now = lambda: datetime.now(UTC)\n"
        "log = AuditLog(Path(sys.argv[1]), now=now, on_head=lambda n, d: None, flush_seconds=99)\n"
        "for number in range(7): log.record('issued', number=number)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", script, str(tmp_path / "audit")], check=False, timeout=60)
    assert done.returncode == -9
    log = AuditLog(tmp_path / "audit", now=Now(), on_head=lambda _number, _digest: None)
    log.close()
    assert log.problem is None
    assert verify_audit(tmp_path / "audit").records == 7
    assert set(events(tmp_path / "audit")) == {"issued"}


def test_long_files_are_followed_by_others(written: Path) -> None:
    assert [file.name for file in files(written)] == [
        "audit-000000000001.jsonl",
        "audit-000000000015.jsonl",
        "audit-000000000029.jsonl",
    ]
    assert verify_audit(written) == AuditReport(38, 0, 3, verify_audit(written).head, 0)


def test_the_end_of_a_file_is_on_the_disk_before_the_next_begins(tmp_path: Path) -> None:
    heads: list[int] = []

    def told(number: int, _digest: str) -> None:
        heads.append(number)
        if number == 1:
            log.record("issued")  # in the moment between

    log = AuditLog(tmp_path / "audit", now=Now(), on_head=told, max_file_bytes=100, flush_seconds=FOR_EVER)
    log.record("issued")
    log.flush()
    assert json.loads((tmp_path / "audit" / "audit-head.json").read_bytes())[0] == 2
    assert heads == [1, 2]
    log.flush()
    assert [file.name for file in files(tmp_path / "audit")] == ["audit-000000000001.jsonl", "audit-000000000003.jsonl"]
    log.close()
    assert heads == [1, 2]


def test_threads_may_record_at_once(open_log: Opener, tmp_path: Path) -> None:
    log = open_log(max_file_bytes=20_000)
    stop = threading.Event()

    def flush() -> None:
        while not stop.is_set():
            log.flush()

    flusher = threading.Thread(target=flush)
    threads = [threading.Thread(target=fill, args=(log, 200)) for _ in range(8)]
    for thread in (flusher, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    flusher.join()
    log.close()
    report = verify_audit(tmp_path / "audit")
    assert report.records == 1600
    assert report.files > 1


def test_foreign_text_is_cut_and_escaped(open_log: Opener, tmp_path: Path) -> None:
    log = open_log()
    log.record("plugged", label='"}\n{"sequence":1\0\u202e\udcff', long="x" * 1000, nothing="")
    log.close()
    (record,) = records(tmp_path / "audit")
    assert record["fields"] == {"label": '"}\n{"sequence":1\0\u202e\udcff', "long": "x" * 255 + "…", "nothing": ""}
    assert verify_audit(tmp_path / "audit").records == 1


@pytest.mark.parametrize("event", ["", "Issued", "log-torn", "log-", "a b", "x" * 33])
def test_what_is_no_event_is_a_mistake(open_log: Opener, event: str) -> None:
    with pytest.raises(ValueError, match="event"):
        open_log().record(event)


@pytest.mark.parametrize("value", [b"bytes", 1.5, 2**63, ["list"]])
def test_what_is_no_value_is_a_mistake(open_log: Opener, value: object) -> None:
    with pytest.raises(TypeError):
        open_log().record("issued", field=value)  # type: ignore[arg-type]  # that is the test


def test_as_few_fields_as_an_event_has(open_log: Opener) -> None:
    with pytest.raises(ValueError, match="17 fields"):
        open_log().record("issued", **{f"field{number}": 1 for number in range(17)})


def test_what_is_recorded_after_the_end_is_lost_and_said(open_log: Opener, tmp_path: Path) -> None:
    log = open_log()
    log.close()
    log.record("issued")
    assert log.problem == "the audit log is closed"
    log.close()
    assert events(tmp_path / "audit") == []


def test_the_log_survives_whoever_is_told_its_head(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    told: list[int] = []
    twice = threading.Event()

    def fail(number: int, _digest: str) -> None:
        told.append(number)
        if len(told) == 2:
            twice.set()
        raise RuntimeError

    log = AuditLog(tmp_path / "audit", now=Now(), on_head=fail, flush_seconds=0.01)
    log.record("issued")
    while not told:
        twice.wait(0.01)
    log.record("issued")
    assert twice.wait(60)
    log.close()
    assert caplog.messages == ["the audit log failed"] * 2


def test_two_agents_do_not_share_a_directory(open_log: Opener, tmp_path: Path) -> None:
    open_log()
    with pytest.raises(AuditError, match="another agent writes the audit log in "):
        open_log()


def test_a_directory_that_others_can_write_is_refused(open_log: Opener, tmp_path: Path) -> None:
    (tmp_path / "audit").mkdir()
    (tmp_path / "audit").chmod(0o770)
    with pytest.raises(AuditError, match="others than the agent's user can write "):
        open_log()


def test_a_directory_that_cannot_be_made_is_refused(open_log: Opener, tmp_path: Path) -> None:
    with pytest.raises(AuditError, match=r"cannot use .* for the audit log: No such file or directory"):
        open_log(tmp_path / "none" / "audit")
