"""Asking through a program that is missing, or behaves as the real one, which the integration tests run, never does."""

from pathlib import Path

import pytest

from proxyagent import askpassword
from proxyagent.askpassword import ask_pin
from proxyagent.errors import ConfigError, PinNotSentError


@pytest.fixture
def misbehave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a shell script is put in the real program's place."""
    monkeypatch.setattr(askpassword, "_PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path / "systemd-ask-password"


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def reason() -> str:
    with pytest.raises(PinNotSentError) as caught:
        ask_pin("PIN", timeout_seconds=1, identifier="test")
    assert caught.value.hint
    assert "1234" not in caught.value.message
    return caught.value.message


def test_a_missing_program_is_a_matter_of_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(askpassword, "_PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="systemd-ask-password is not installed") as caught:
        ask_pin("PIN", timeout_seconds=1, identifier="test")
    assert caught.value.hint == "install the package systemd"


@pytest.mark.parametrize(
    "hang", ["exec sleep 1000", "printf 1234; exec sleep 1000", "exec >&-; exec sleep 1000", "exec yes >&2"]
)
def test_a_program_that_hangs_is_ended(misbehave: Path, monkeypatch: pytest.MonkeyPatch, hang: str) -> None:
    monkeypatch.setattr(askpassword, "_GRACE_SECONDS", -0.9)
    script(misbehave, hang)
    assert reason() == "nobody entered the PIN in time"


def test_a_program_that_does_not_want_to_end_is_killed(misbehave: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(askpassword, "_GRACE_SECONDS", -0.5)
    monkeypatch.setattr(askpassword, "_END_SECONDS", 0.1)
    script(misbehave, "trap '' TERM; while :; do sleep 0.01; done")
    assert reason() == "nobody entered the PIN in time"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("exit 3", "systemd-ask-password failed: exit code 3"),
        ("echo 'Failed\\033[2J' >&2; exit 1", "systemd-ask-password failed: Failed?[2J"),
        ("printf 1234; exit 1", "systemd-ask-password failed: exit code 1"),
        ("exit 0", "no PIN was entered"),
        ("head -c 256 /dev/zero", "the PIN is longer than 255 bytes"),
        ("exec cat /dev/zero", "the PIN is longer than 255 bytes"),
    ],
)
def test_what_is_no_answer_is_no_pin(misbehave: Path, text: str, said: str) -> None:
    script(misbehave, text)
    assert reason() == said


def test_the_program_gets_neither_our_environment_nor_a_way_to_dump(
    misbehave: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAP", "set")
    script(misbehave, 'until [ "$(ulimit -Hc)" = 0 ]; do sleep 0.01; done; printf "%s-" "$TRAP"')
    with ask_pin("PIN", timeout_seconds=30, identifier="test") as pin:
        assert bytes(pin.buffer) == b"-"
