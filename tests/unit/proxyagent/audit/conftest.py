"""An audit log to record in, one to tamper with, and what is in them."""

import json
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from proxyagent.audit import AuditLog, verify_audit
from proxyagent.audit.record import START, Head, encode
from proxyagent.errors import AuditError

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


def fill(log: AuditLog, count: int) -> None:
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


def problem_of(directory: Path, head: tuple[int, str] | None = None) -> AuditError:
    with pytest.raises(AuditError) as caught:
        verify_audit(directory, head=head)
    return caught.value


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


def noted(name: str, call: Callable[..., object], done: list[str]) -> Callable[..., object]:
    """The same function, which notes its name when it is called."""

    def noting(*arguments: object, **options: object) -> object:
        done.append(name)
        return call(*arguments, **options)

    return noting
