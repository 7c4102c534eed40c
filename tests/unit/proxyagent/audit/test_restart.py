"""Going on after a power cut, which is no tampering, and after tampering, which is no reason to stop."""

import json
import logging
import random
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxyagent.audit import AuditLog, verify_audit
from proxyagent.audit.record import Head, encode
from tests.unit.proxyagent.audit.conftest import (
    FOR_EVER,
    NOON,
    PER_EXAMPLE,
    Now,
    Opener,
    events,
    files,
    fill,
    problem_of,
    records,
    rewrite,
)

# Power cuts


def tear(file: Path, durable_bytes: int, rng: random.Random) -> bytes:
    """What a power cut leaves: all that was synced, the beginning of the rest, and perhaps blocks of anything."""
    content = file.read_bytes()
    length = rng.choice([0, 0, 1, 100, 5000])
    rubbish = rng.choice([bytes(length), rng.randbytes(length), b"\n" * length])
    file.write_bytes(content[: rng.randint(durable_bytes, len(content))] + rubbish)
    return rubbish


@given(seed=st.integers(0, 2**32))
@settings(PER_EXAMPLE, max_examples=60)
def test_a_power_cut_never_looks_like_tampering(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311  # it must be repeatable
    base = tmp_path_factory.mktemp("cut")
    heads: list[Head] = []

    def start() -> AuditLog:
        return AuditLog(
            directory,
            now=Now(),
            on_head=lambda sequence, digest: heads.append(Head(sequence, digest)),
            flush_seconds=FOR_EVER,
            max_file_bytes=rng.choice([100, 10_000]),
        )

    directory = base / "first"
    for cut in range(rng.randint(1, 3)):
        log = start()
        fill(log, rng.randint(0, 6))
        log.flush()
        durable_bytes = files(directory)[-1].stat().st_size
        fill(log, rng.randint(0, 6))
        journal = heads.copy()
        directory = shutil.copytree(directory, base / f"cut{cut}")
        log.close()  # that of another world, where the power did not fail
        heads = journal
        if b"\n" not in tear(files(directory)[-1], durable_bytes, rng):
            verify_audit(directory, head=heads[-1] if heads else None)
    log = start()
    assert log.problem is None
    log.record("started")
    log.close()
    report = verify_audit(directory, head=heads[-1])
    assert report.torn_bytes == 0
    assert report.head == heads[-1]
    shutil.rmtree(base)


def test_a_torn_line_is_closed_off_and_noted(
    open_log: Opener, tmp_path: Path, copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    last = files(copy)[-1]
    with last.open("ab") as file:
        file.write(b'{"event":"issu')
    before = last.read_bytes()
    assert verify_audit(copy).torn_bytes == 14
    with caplog.at_level(logging.WARNING):
        log = open_log(copy)
    assert caplog.messages == ["a power cut tore 14 bytes of the audit log that were not on the disk yet"]
    assert log.problem is None
    log.record("started")
    log.close()
    assert last.read_bytes().startswith(before + b"~\n")
    torn, started = [json.loads(line) for line in last.read_bytes().splitlines()[-2:]]
    assert (torn["sequence"], torn["event"], torn["fields"]["torn_bytes"]) == (39, "log-torn", 14)
    assert (started["sequence"], started["event"]) == (40, "started")
    assert verify_audit(copy).torn_bytes == 0


def test_a_line_that_lacks_only_its_end_is_torn_too(open_log: Opener, copy: Path) -> None:
    last = files(copy)[-1]
    line, _ = encode(Head(38, str(records(copy)[-1]["digest"])), NOON, "issued", {})
    last.write_bytes(last.read_bytes() + line[:-1])
    log = open_log(copy)
    log.record("started")
    log.close()
    assert verify_audit(copy).records == 40
    assert log.problem is None


def test_what_was_torn_cannot_be_changed_either(open_log: Opener, copy: Path) -> None:
    last = files(copy)[-1]
    with last.open("ab") as file:
        file.write(b"torn\ntorn")
    open_log(copy).close()
    assert verify_audit(copy).records == 39
    last.write_bytes(last.read_bytes().replace(b"torn\ntorn", b"torn\nTorn"))
    assert problem_of(copy).message == "audit-000000000029.jsonl line 11: this is no record"


# A log that cannot be continued


def cut_tail(directory: Path) -> None:
    last = files(directory)[-1]
    last.write_bytes(b"".join(last.read_bytes().splitlines(keepends=True)[:-1]))


def change_line(directory: Path) -> None:
    last = files(directory)[-1]
    last.write_bytes(last.read_bytes().replace(b'"pid":5', b'"pid":6'))


def remove_last_file(directory: Path) -> None:
    files(directory)[-1].unlink()


def remove_all_files(directory: Path) -> None:
    for file in files(directory):
        file.unlink()


def remove_head(directory: Path) -> None:
    (directory / "audit-head.json").unlink()


def damage_head(directory: Path) -> None:
    (directory / "audit-head.json").write_text("?")


def take_older_head(directory: Path) -> None:
    (directory / "audit-head.json").write_text(json.dumps([3, records(directory)[2]["digest"]]))


def replace_by_directory(directory: Path) -> None:
    last = files(directory)[-1]
    last.unlink()
    last.mkdir()


def write_anew(directory: Path) -> None:
    rewrite(directory, 50)


DEEDS = [
    cut_tail,
    change_line,
    remove_last_file,
    remove_all_files,
    remove_head,
    damage_head,
    take_older_head,
    replace_by_directory,
    write_anew,
]


@pytest.mark.parametrize("deed", DEEDS)
def test_an_agent_whose_log_was_changed_works_on_and_says_so(
    open_log: Opener, copy: Path, deed: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    deed(copy)
    before = {file: file.read_bytes() for file in files(copy) if file.is_file()}
    log = open_log(copy)
    assert log.problem is not None
    assert log.problem.startswith("the audit log was changed: ")
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    log.record("started")
    log.close()
    for file, content in before.items():
        assert file.read_bytes() == content  # what is left is evidence
    (new,) = set(files(copy)) - set(before) - ({files(copy)[2]} if deed is replace_by_directory else set())
    broken, started = [json.loads(line) for line in new.read_bytes().splitlines()]
    assert (broken["event"], started["event"]) == ("log-broken", "started")
    assert broken["fields"]["reason"] in log.problem
    assert broken["sequence"] > 38 or deed is remove_head or deed is damage_head
    problem_of(copy)
    # It is not forgotten, and needs no further file.
    again = open_log(copy)
    assert again.problem == log.problem
    again.record("started")
    again.close()
    assert len(new.read_bytes().splitlines()) == 3
    problem_of(copy)


def test_a_log_that_began_anew_says_why(open_log: Opener, copy: Path) -> None:
    remove_head(copy)
    open_log(copy).close()
    assert problem_of(copy).message == (
        "audit-000000000039.jsonl line 1: the agent began anew here: "
        "'the head file is missing, and records may be as well'"
    )


def test_moving_a_changed_log_away_ends_the_alarm(open_log: Opener, copy: Path, tmp_path: Path) -> None:
    change_line(copy)
    open_log(copy).close()
    copy.rename(tmp_path / "evidence")
    log = open_log(copy)
    log.record("started")
    log.close()
    assert log.problem is None
    assert verify_audit(copy).records == 1


def test_a_break_is_not_forgotten_in_a_power_cut(open_log: Opener, copy: Path) -> None:
    change_line(copy)
    head = (copy / "audit-head.json").read_bytes()
    open_log(copy).close()
    (copy / "audit-head.json").write_bytes(head)  # as if the new one had not come to the disk
    log = open_log(copy)
    assert log.problem is not None
    assert "the record was changed" in log.problem or "the end is missing" in log.problem
    log.record("started")
    log.close()
    assert events(copy)[-2:] == ["log-broken", "started"]


def test_a_break_on_a_full_disk_is_noted_when_there_is_space(copy: Path, open_log: Opener) -> None:
    remove_head(copy)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        log = open_log(copy)
        problem = log.problem
        log.close()
        names = {file.name for file in files(copy)}
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert problem == "cannot write the audit log: File too large"
    assert len(names) == 3
    again = open_log(copy)
    assert again.problem == "the audit log was changed: the head file is missing, and records may be as well"
