"""Whatever is done to the log is found."""

import hashlib
import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyagent.audit import verify_audit
from proxyagent.audit.record import TORN, Head, Value, decode, encode
from tests.unit.proxyagent.audit.conftest import (
    NOON,
    PER_EXAMPLE,
    files,
    problem_of,
    records,
    rewrite,
)

# Somebody changes it


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
    assert problem_of(copy).message in {
        f"{last.name} is not a file",
        f"cannot read {last.name}: Too many levels of symbolic links",
    }


def test_a_link_to_a_file_is_none(copy: Path, tmp_path: Path) -> None:
    last = files(copy)[-1]
    last.rename(tmp_path / "elsewhere")
    last.symlink_to(tmp_path / "elsewhere")
    assert problem_of(copy).message == f"cannot read {last.name}: Too many levels of symbolic links"


@pytest.mark.parametrize(
    ("event", "change"), [("issued", {}), (TORN, {"bytes": 7}), (TORN, {"sha256": "0" * 64}), (TORN, {"bytes": None})]
)
def test_only_a_note_of_just_that_explains_what_was_torn(copy: Path, event: str, change: dict[str, Value]) -> None:
    last, before = files(copy)[-1], Head(38, str(records(copy)[-1]["digest"]))
    rubbish = b"rubbish\n"
    note: dict[str, Value] = {"bytes": 8, "sha256": hashlib.sha256(rubbish).hexdigest()}
    content = last.read_bytes() + rubbish
    last.write_bytes(content + encode(before, NOON, TORN, note)[0])
    assert verify_audit(copy).records == 39
    last.write_bytes(content + encode(before, NOON, event, note | change)[0])
    assert problem_of(copy).message == f"{last.name} line 11: this is no record"


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
    with pytest.raises(ValueError, match=r"record|limit|float|utf-8"):
        decode(forged(body))
    with files(copy)[-1].open("ab") as file:
        file.write(forged(body))
    assert problem_of(copy).message.startswith("audit-000000000029.jsonl line 11: ")


def test_an_honest_line_is_read() -> None:
    assert decode(forged(valid_body())).sequence == 39


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
