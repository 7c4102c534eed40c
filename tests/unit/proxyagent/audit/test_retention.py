"""The log stays as short as it may be, and what is left of it can still be verified."""

import os
import shutil
from pathlib import Path

import pytest

from proxyagent.audit import AuditLog, verify_audit
from proxyagent.audit.record import Head, decode
from proxyagent.errors import AuditError
from tests.unit.proxyagent.audit.conftest import FOR_EVER, Now, files, fill, noted, problem_of, records

BOUND = 20_000


def long_log(directory: Path, rotations: int = 20, **options: int) -> AuditLog:
    """A log that has grown beyond its bound several times; it is open."""
    bounds = {"max_file_bytes": 4000, "max_bytes": BOUND, **options}
    log = AuditLog(directory, now=Now(), on_head=lambda _number, _digest: None, flush_seconds=FOR_EVER, **bounds)
    for _ in range(rotations):
        fill(log, 14)
        log.flush()
    return log


@pytest.fixture
def pruned(tmp_path: Path) -> Path:
    long_log(tmp_path / "audit").close()
    return tmp_path / "audit"


def size(directory: Path) -> int:
    return sum(file.stat().st_size for file in files(directory))


def test_the_oldest_files_go_and_the_rest_verifies(pruned: Path) -> None:
    assert BOUND / 2 < size(pruned) <= BOUND + 4000
    found = verify_audit(pruned)
    assert found.head is not None
    assert found.removed > 100
    assert found.records == len(records(pruned))
    assert found.removed + found.records == found.head.sequence
    removals = [each["fields"] for each in records(pruned) if each["event"] == "log-pruned"]
    first = decode(files(pruned)[0].read_bytes().splitlines(keepends=True)[0])
    assert removals[-1] == {"through": first.sequence - 1, "previous": first.previous}


def test_a_removal_is_on_record_on_the_disk_before_it_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    for owner, name in ((os, "write"), (os, "fdatasync"), (Path, "unlink")):
        monkeypatch.setattr(owner, name, noted(name, getattr(owner, name), done))
    long_log(tmp_path / "audit").close()
    assert done.count("unlink") > 5
    before = [done[place - 2 : place] for place, name in enumerate(done) if name == "unlink"]
    assert before == [["write", "fdatasync"]] * done.count("unlink")


def test_a_restart_goes_on_behind_what_was_removed(pruned: Path) -> None:
    before = verify_audit(pruned)
    long_log(pruned).close()
    after = verify_audit(pruned)
    assert after.removed > before.removed
    assert size(pruned) <= BOUND + 4000


def test_nothing_goes_from_a_log_that_may_be_longer(tmp_path: Path) -> None:
    long_log(tmp_path / "audit", max_bytes=1 << 30).close()
    assert files(tmp_path / "audit")[0].name == "audit-000000000001.jsonl"
    assert verify_audit(tmp_path / "audit").removed == 0


def test_one_file_more_is_missing(pruned: Path) -> None:
    files(pruned)[0].unlink()
    name = files(pruned)[0].name
    assert problem_of(pruned).message == (
        f"{name}: audit-000000000001.jsonl should stand in its place: records are missing before it"
    )


def test_a_file_in_the_middle_is_missing(pruned: Path) -> None:
    gone = files(pruned)[1]
    gone.unlink()
    assert f"{gone.name} should stand in its place" in problem_of(pruned).message


def test_a_removal_that_was_recorded_but_not_done_is_no_damage(tmp_path: Path) -> None:
    """As after a power cut between the record and the removal: the file is there still."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    long_log(whole, max_bytes=1 << 30).close()
    shutil.copytree(whole, cut)
    long_log(cut, rotations=1).close()
    last = max({file.name for file in files(whole)} - {file.name for file in files(cut)})
    shutil.copy(whole / last, cut / last)
    assert files(cut)[0].name == last
    assert verify_audit(cut).removed == int(last[6:-6]) - 1


def test_a_forged_beginning_is_not_attested(pruned: Path) -> None:
    """Another digest in the first record that is left, and in all behind it, is not what the head says."""
    name = files(pruned)[0]
    content = name.read_bytes()
    first = decode(content.splitlines(keepends=True)[0])
    forged = content.replace(first.previous.encode(), b"0" * 64, 1)
    name.write_bytes(forged)
    assert ".jsonl" in problem_of(pruned).message


def test_a_head_of_what_was_removed_cannot_be_compared(pruned: Path) -> None:
    report = verify_audit(pruned)
    first = decode(files(pruned)[0].read_bytes().splitlines(keepends=True)[0])
    with pytest.raises(AuditError, match=f"record 5 cannot be compared: all up to {report.removed} were removed"):
        verify_audit(pruned, head=(5, "1" * 64))
    verify_audit(pruned, head=(report.removed, first.previous))
    with pytest.raises(AuditError, match="cannot be compared"):
        verify_audit(pruned, head=(report.removed, "1" * 64))
    assert report.head is not None
    verify_audit(pruned, head=Head(report.head.sequence, report.head.digest))


def test_a_broken_log_is_evidence_and_stays(tmp_path: Path, pruned: Path) -> None:
    last = files(pruned)[-1]
    last.write_bytes(last.read_bytes()[:-200])
    before = files(pruned)
    long_log(pruned).close()
    assert all(file.exists() for file in before)
