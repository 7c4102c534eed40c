"""The audit log: whatever is done to it is found, whatever a power cut does is not held against it."""

import hashlib
import json
import logging
import os
import random
import resource
import shutil
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxyagent.audit import AuditLog, AuditReport, verify_audit
from proxyagent.audit.record import START, Head, encode
from proxyagent.errors import AuditError

RECORDS = 40
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
FOR_EVER = 3600.0
PER_EXAMPLE = settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Now:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.time = NOON

    def __call__(self) -> datetime:
        return self.time


Opener = Callable[..., AuditLog]


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
def heads() -> list[tuple[int, str]]:
    """What was made known."""
    return []


@pytest.fixture
def open_log(tmp_path: Path, now: Now, heads: list[tuple[int, str]]) -> Iterator[Opener]:
    """Open the log in tmp_path/audit, which is flushed when the test says so; it is closed when the test ends."""
    opened: list[AuditLog] = []

    def make(directory: Path = tmp_path / "audit", **options: int) -> AuditLog:
        options.setdefault("refusals_per_minute", 5)
        log = AuditLog(
            directory,
            now=now,
            on_head=lambda sequence, digest: heads.append((sequence, digest)),
            flush_seconds=FOR_EVER,
            **options,
        )
        opened.append(log)
        return log

    yield make
    for log in opened:
        log.close()


def fill(log: AuditLog, count: int = RECORDS) -> None:
    for number in range(count):
        log.record("issued", uid=1000, pid=number, profile="mover", limited=True, identity=None)


def files(directory: Path) -> list[Path]:
    return sorted(directory.glob("audit-*.jsonl"))


def records(directory: Path) -> list[dict[str, object]]:
    return [json.loads(line) for file in files(directory) for line in file.read_bytes().splitlines()]


def events(directory: Path) -> list[object]:
    return [record["event"] for record in records(directory)]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of three files, orderly closed."""
    directory = tmp_path_factory.mktemp("written") / "audit"
    log = AuditLog(directory, now=Now(), on_head=lambda _number, _digest: None, max_file_bytes=4000)
    for count in (14, 14, 10):
        fill(log, count)
        log.flush()
    log.close()
    assert [len(file.read_bytes().splitlines()) for file in files(directory)] == [14, 14, 10]
    return directory


@pytest.fixture
def copy(written: Path, tmp_path: Path) -> Path:
    return shutil.copytree(written, tmp_path / "copy", dirs_exist_ok=True)


# What is written


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
    assert report == AuditReport(1, 1, Head(1, str(record["digest"])), 0)
    assert log.problem is None


def test_nobody_else_can_read_it(open_log: Opener, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        fill(open_log())
    finally:
        os.umask(before)
    assert (tmp_path / "audit").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "audit").iterdir()} == {0o600}


def noted(name: str, call: Callable[..., None], done: list[str]) -> Callable[..., None]:
    def noting(*arguments: int, **options: int) -> None:
        done.append(name)
        call(*arguments, **options)

    return noting


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
    assert verify_audit(written) == AuditReport(38, 3, verify_audit(written).head, 0)


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


# Floods


def test_a_flood_of_refusals_is_counted(open_log: Opener, tmp_path: Path, now: Now) -> None:
    log = open_log()
    for _ in range(1000):
        log.record("refused", uid=1000, error="denied")
        log.record("busy", uid=1000)
    for _ in range(3):
        log.record("refused", uid=1001, error="denied")
    log.record("issued", uid=1000)
    now.time += timedelta(minutes=1)
    log.record("refused", uid=1000, error="denied")
    log.close()
    found = records(tmp_path / "audit")
    assert [record["event"] for record in found[:10]] == ["refused", "busy"] * 5
    assert [record["event"] for record in found[10:14]] == ["refused"] * 3 + ["issued"]
    assert [record["fields"] for record in found[14:16]] == [
        {"event": "refused", "uid": 1000, "count": 995},
        {"event": "busy", "uid": 1000, "count": 995},
    ]
    assert [record["event"] for record in found[14:]] == ["log-limited", "log-limited", "refused"]


def test_a_flood_is_summed_up_at_the_end_and_when_the_clock_is_set_back(
    open_log: Opener, tmp_path: Path, now: Now
) -> None:
    log = open_log()
    for _ in range(2):
        for _ in range(7):
            log.record("refused", uid=0)
        now.time -= timedelta(hours=1)
    log.close()
    assert events(tmp_path / "audit") == (["refused"] * 5 + ["log-limited"]) * 2


def test_a_flood_from_ever_other_users_is_bounded_too(open_log: Opener, tmp_path: Path) -> None:
    log = open_log()
    for uid in range(10_000):
        log.record("refused", uid=uid)
    log.close()
    assert len(records(tmp_path / "audit")) == 64 + 5 + 1
    assert records(tmp_path / "audit")[-1]["fields"] == {"event": "refused", "uid": None, "count": 10_000 - 64 - 5}


# Somebody changes it


def problem_of(directory: Path, head: tuple[int, str] | None = None) -> AuditError:
    with pytest.raises(AuditError) as caught:
        verify_audit(directory, head=head)
    return caught.value


@given(data=st.data())
@PER_EXAMPLE
def test_any_changed_byte_is_found(copy: Path, data: st.DataObject) -> None:
    file = data.draw(st.sampled_from(files(copy)))
    content = file.read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda byte: byte != content[place]))
    file.write_bytes(content[:place] + bytes([byte]) + content[place + 1 :])
    try:
        assert ".jsonl" in problem_of(copy).message
    finally:
        file.write_bytes(content)


@given(data=st.data())
@PER_EXAMPLE
def test_any_cut_is_found(copy: Path, data: st.DataObject) -> None:
    file = data.draw(st.sampled_from(files(copy)))
    content = file.read_bytes()
    begin = data.draw(st.integers(0, len(content) - 1))
    end = data.draw(st.one_of(st.just(len(content)), st.integers(begin + 1, len(content))))
    file.write_bytes(content[:begin] + content[end:])
    try:
        assert ".jsonl" in problem_of(copy).message
    finally:
        file.write_bytes(content)


def lines_of(directory: Path) -> list[tuple[Path, int]]:
    return [(file, number) for file in files(directory) for number in range(len(file.read_bytes().splitlines()))]


@given(data=st.data())
@PER_EXAMPLE
def test_any_removed_copied_or_moved_line_is_found(copy: Path, data: st.DataObject) -> None:
    before = {file: file.read_bytes() for file in files(copy)}
    lines = {file: content.splitlines(keepends=True) for file, content in before.items()}
    places = lines_of(copy)
    file, number = data.draw(st.sampled_from(places))
    other, at = data.draw(st.sampled_from(places))
    match data.draw(st.sampled_from(["remove", "insert", "swap", "replace"])):
        case "remove":
            del lines[file][number]
        case "insert":
            lines[other].insert(at, lines[file][number])
        case "swap" if (file, number) != (other, at):
            lines[file][number], lines[other][at] = lines[other][at], lines[file][number]
        case _:
            lines[file][number] = encode(Head(number, "0" * 64), NOON, "issued", {})[0]
    for path, content in lines.items():
        path.write_bytes(b"".join(content))
    try:
        assert ".jsonl" in problem_of(copy).message
    finally:
        for path, text in before.items():
            path.write_bytes(text)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_removed_file_is_found(copy: Path, which: int) -> None:
    files(copy)[which].unlink()
    wanted = ["audit-000000000001.jsonl", "audit-000000000015.jsonl", "its end was cut off"][which]
    assert wanted in problem_of(copy).message


def test_all_files_removed_are_found(copy: Path) -> None:
    for file in files(copy):
        file.unlink()
    assert problem_of(copy).message == (
        "all files: the log ends with record 0, but record 38 was written: its end was cut off"
    )


def test_errors_name_file_and_line(copy: Path) -> None:
    file = files(copy)[1]
    content = file.read_bytes()
    file.write_bytes(content.replace(b'"pid":5', b'"pid":6'))
    assert problem_of(copy).message == "audit-000000000015.jsonl line 6: the record was changed"
    lines = content.splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:3] + lines[4:]))
    assert problem_of(copy).message == (
        "audit-000000000015.jsonl line 4: record 19 stands where record 18 belongs: "
        "lines were removed, inserted or moved"
    )


def rewrite(directory: Path, count: int) -> list[Head]:
    """What somebody does who knows how it is made: another log with matching digests, and its heads."""
    for file in files(directory):
        file.unlink()
    heads = [START]
    lines = []
    for _ in range(count):
        line, head = encode(heads[-1], NOON, "issued", {"uid": 0})
        lines.append(line)
        heads.append(head)
    (directory / "audit-000000000001.jsonl").write_bytes(b"".join(lines))
    return heads


def test_a_log_that_was_written_anew_does_not_hold_against_the_head(copy: Path) -> None:
    rewrite(copy, 50)
    assert problem_of(copy).message == (
        "audit-000000000001.jsonl line 38: record 38 is not the one that the agent made known"
    )


def test_a_head_from_the_journal_finds_a_forged_head_file(copy: Path) -> None:
    journal = verify_audit(copy).head
    assert journal is not None
    heads = rewrite(copy, 50)
    (copy / "audit-head.json").write_text(json.dumps(heads[-1]))
    assert verify_audit(copy).records == 50
    assert "record 38 is not the one" in problem_of(copy, journal).message
    heads = rewrite(copy, 37)
    (copy / "audit-head.json").write_text(json.dumps(heads[-1]))
    assert "its end was cut off" in problem_of(copy, journal).message


def test_an_older_head_from_the_journal_is_enough(copy: Path) -> None:
    head = (20, str(records(copy)[19]["digest"]))
    (copy / "audit-head.json").unlink()
    assert verify_audit(copy, head=head).records == 38
    assert "not the one that" in problem_of(copy, (21, head[1])).message


def test_a_missing_head_file_is_said(copy: Path) -> None:
    (copy / "audit-head.json").unlink()
    assert problem_of(copy).message == "the head file is missing, so the log's end may be as well"


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'[-1,"' + b"0" * 64 + b'"]', b"[" * 250, b"[1,2]"])
def test_a_damaged_head_file_is_said(copy: Path, content: bytes) -> None:
    (copy / "audit-head.json").write_bytes(content)
    assert problem_of(copy).message == "audit-head.json was changed"


def test_what_is_no_digest_is_no_head(copy: Path) -> None:
    assert problem_of(copy, (38, "ABC")).message == "'ABC' is not the digest of a record"


def test_there_must_be_a_log(tmp_path: Path) -> None:
    assert problem_of(tmp_path).message.startswith("there is no audit log in ")
    assert problem_of(tmp_path / "none").message.startswith("cannot read ")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_a_file_that_is_none_is_refused_at_once(copy: Path, make: Callable[[Path], None]) -> None:
    last = files(copy)[-1]
    last.unlink()
    make(last)
    assert last.name in problem_of(copy).message


# Hostile content


def forged(body: bytes) -> bytes:
    """A line with the right digest."""
    return body[:-1] + b',"digest":"' + hashlib.sha256(body).hexdigest().encode() + b'"}\n'


def valid_body(**changes: object) -> bytes:
    values: dict[str, object] = {
        "version": 1,
        "sequence": 39,
        "time": "",
        "event": "issued",
        "fields": {},
        "previous": "0" * 64,
    }
    return json.dumps(values | changes, sort_keys=True, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"version":1}',
        b'{"version":NaN}',
        b'{"version":' + b"9" * 5000 + b"}",
        b'{"a":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
        b'{"a":"\xff"}',
        valid_body(version=2),
        valid_body(sequence=True),
        valid_body(sequence=-1),
        valid_body(sequence=2**64),
        valid_body(sequence="39"),
        valid_body(fields=[]),
        valid_body(event=None),
        valid_body(previous="x"),
        valid_body(more=1),
        valid_body().replace(b":39", b": 39"),
        valid_body().replace(b'"event"', b'"event":"other","event"'),
    ],
)
def test_forged_lines_with_the_right_digest_are_refused(copy: Path, body: bytes) -> None:
    with files(copy)[-1].open("ab") as file:
        file.write(forged(body))
    assert problem_of(copy).message.startswith("audit-000000000029.jsonl line 11: ")


@given(st.binary(max_size=300))
@PER_EXAMPLE
def test_any_bytes_are_judged(copy: Path, content: bytes) -> None:
    last = files(copy)[-1]
    before = last.read_bytes()
    try:
        last.write_bytes(before + content)
        if b"\n" in content:
            assert problem_of(copy).message.startswith("audit-000000000029.jsonl line 11: ")
        else:
            assert verify_audit(copy).torn_bytes == len(content)
        last.write_bytes(content)
        assert "audit-" in problem_of(copy).message
    finally:
        last.write_bytes(before)


def test_big_hostile_files_take_little_memory(copy: Path) -> None:
    last = files(copy)[-1]
    with last.open("ab") as file:
        file.truncate(last.stat().st_size + 50_000_000)  # zeros without a line feed
    tracemalloc.start()
    try:
        assert verify_audit(copy).torn_bytes == 50_000_000
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


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
    assert last.read_bytes().startswith(before + b"\n")
    torn, started = [json.loads(line) for line in last.read_bytes().splitlines()[-2:]]
    assert (torn["sequence"], torn["event"], torn["fields"]["torn_bytes"]) == (39, "log-torn", 14)
    assert (started["sequence"], started["event"]) == (40, "started")
    assert verify_audit(copy).torn_bytes == 0


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


# A disk that does not take it

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


def test_a_disk_that_is_full_from_the_start_stops_nobody(open_log: Opener, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        log = open_log()
        assert log.problem == "cannot write the audit log: File too large"
        log.record("issued")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    log.close()


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


# The directory


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
