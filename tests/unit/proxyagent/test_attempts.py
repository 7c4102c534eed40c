"""The record of unattended logins: durable before the PIN is sent, and nothing of the PIN in it."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from proxyagent.attempts import UnattendedAttempts
from proxyagent.errors import ProxyAgentError

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def test_an_attempt_is_there_for_the_next_process_until_it_is_forgotten(tmp_path: Path) -> None:
    UnattendedAttempts(tmp_path).begin("A1", NOW)
    after_a_crash = UnattendedAttempts(tmp_path)
    found = after_a_crash.unfinished("A1")
    assert found is not None
    assert (found.time, found.count) == (NOW, 1)
    assert after_a_crash.unfinished("B2") is None
    after_a_crash.begin("A1", NOW)
    again = after_a_crash.unfinished("A1")
    assert again is not None
    assert again.count == 2
    assert after_a_crash.forget("A1")
    assert not after_a_crash.forget("A1")
    assert UnattendedAttempts(tmp_path).unfinished("A1") is None


def test_the_file_says_when_and_how_often_and_no_more(tmp_path: Path) -> None:
    UnattendedAttempts(tmp_path).begin("A1/../\n", NOW)
    (file,) = tmp_path.iterdir()
    assert json.loads(file.read_text()) == {"A1?..??": {"time": "2026-11-22T12:00:00Z", "count": 1}}
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", [b"", b"[]", b'{"A": 1}', b'{"A": {"time": "x", "count": 0}}', b"\xff" * 100_000])
def test_a_damaged_file_allows_nothing(tmp_path: Path, content: bytes) -> None:
    attempts = UnattendedAttempts(tmp_path)
    attempts.begin("A1", NOW)
    (file,) = tmp_path.iterdir()
    file.write_bytes(content)
    for call in (lambda: attempts.unfinished("A1"), lambda: attempts.begin("A1", NOW), lambda: attempts.forget("A1")):
        with pytest.raises(ProxyAgentError, match="is damaged"):
            call()
    assert file.read_bytes() == content


def test_what_cannot_be_recorded_is_not_begun(tmp_path: Path) -> None:
    with pytest.raises(ProxyAgentError, match="cannot write"):
        UnattendedAttempts(tmp_path / "gone").begin("A1", NOW)
