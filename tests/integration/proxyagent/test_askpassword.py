"""The real systemd-ask-password, answered by an agent of ours (systemd.io/PASSWORD_AGENTS)."""

import configparser
import contextlib
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxyagent.askpassword import ask_pin
from proxyagent.errors import PinNotSentError
from tests.other_user import need_readable_checkout

QUESTIONS = Path("/run/systemd/ask-password")
SECONDS = 60.0
NOBODY = 65534
SCRIPT = """
import signal, sys
from proxyagent.askpassword import ask_pin
from proxyagent.errors import PinNotSentError
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may ignore it
try:
    ask_pin("PIN", timeout_seconds=60, identifier=sys.argv[1])
except PinNotSentError as error:
    print(error.message, error.hint, sep="; ")
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.fixture(autouse=True)
def program() -> None:
    if shutil.which("systemd-ask-password") is None:
        pytest.skip("needs the package systemd")
    if os.geteuid() != 0:
        pytest.skip("needs root: systemd-ask-password serves nobody else")


@pytest.fixture
def identifier() -> str:
    """So that nobody else's question is answered."""
    return f"test:{uuid.uuid4()}"


def find(identifier: str) -> tuple[Path, dict[str, str]] | None:
    """The question with this Id, if it is asked now."""
    for path in QUESTIONS.glob("ask.*"):
        parser = configparser.RawConfigParser(strict=False)
        parser.optionxform = str  # type: ignore[assignment,method-assign]  # as its documentation says
        with contextlib.suppress(FileNotFoundError):  # somebody else's, answered meanwhile
            parser.read_string(path.read_text(encoding="utf-8"))
            question = dict(parser["Ask"])
            if question.get("Id") == identifier:
                return path, question
    return None


def wait_for_question(identifier: str) -> tuple[Path, dict[str, str]]:
    deadline = time.monotonic() + SECONDS
    while (found := find(identifier)) is None:
        assert time.monotonic() < deadline, "nobody asks"
        time.sleep(0.01)
    return found


def wait_until_it_cannot_be_dumped(pid: int) -> None:
    """What ask_pin does first of all after it started the program."""
    deadline = time.monotonic() + SECONDS
    while resource.prlimit(pid, resource.RLIMIT_CORE) != (0, 0):
        assert time.monotonic() < deadline, "it can be dumped"
        time.sleep(0.01)


class Agent:
    """Answers one question, and keeps it."""

    def __init__(self, identifier: str, reply: bytes) -> None:
        self.question: dict[str, str] = {}
        self.command = b""
        self._identifier = identifier
        self._reply = reply
        self._thread = threading.Thread(target=self._answer)
        self._thread.start()

    def __enter__(self) -> "Agent":
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(SECONDS)

    def _answer(self) -> None:
        _, self.question = wait_for_question(self._identifier)
        self.command = Path("/proc", self.question["PID"], "cmdline").read_bytes()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.sendto(self._reply, self.question["Socket"])


def refusal(identifier: str, reply: bytes) -> str:
    with Agent(identifier, reply), pytest.raises(PinNotSentError) as caught:
        ask_pin("PIN", timeout_seconds=SECONDS, identifier=identifier)
    assert caught.value.hint
    return caught.value.message


@pytest.mark.parametrize("pin", [b"1234", b"x" * 255, "pïn".encode(), b"with space ", b"-", b"+"])
def test_what_is_entered_is_the_pin(identifier: str, pin: bytes) -> None:
    with (
        Agent(identifier, b"+" + pin) as agent,
        ask_pin("PIN of the dongle", timeout_seconds=SECONDS, identifier=identifier) as secret,
    ):
        assert bytes(secret.buffer) == pin
    assert agent.question["Message"] == "PIN of the dongle"
    assert agent.question["Echo"] == "0"
    assert agent.question["AcceptCached"] == "0"
    assert agent.question["Icon"] == "drive-removable-media"
    assert b"keyname" not in agent.command
    assert find(identifier) is None


def test_foreign_text_cannot_change_the_question(identifier: str) -> None:
    label = "\x1b[2J\nSocket=/tmp/evil\nPIN für \u202e%n " + "x" * 300 + "\\"
    with (
        Agent(identifier, b"+1234") as agent,
        ask_pin(label, timeout_seconds=SECONDS, identifier=identifier),
    ):
        pass
    begin = "?[2J?Socket=/tmp/evil?PIN für ?%n "
    assert agent.question["Message"] == begin + "x" * (199 - len(begin)) + "…"
    assert agent.question["Socket"].startswith(str(QUESTIONS))


def test_a_line_is_not_continued(identifier: str) -> None:
    with (
        Agent(identifier, b"+1234") as agent,
        ask_pin("-dongle\\", timeout_seconds=SECONDS, identifier=identifier),
    ):
        pass
    assert agent.question["Message"] == "-dongle?"


def test_the_identifier_is_made_of_safe_characters(identifier: str) -> None:
    with (
        Agent(f"{identifier}:a_b_" + "c" * (95 - len(identifier)), b"+1234") as agent,
        ask_pin("PIN", timeout_seconds=SECONDS, identifier=f"{identifier}:a\nb=" + "c" * 200),
    ):
        pass
    assert agent.question


def test_a_cancelled_entry_is_no_pin(identifier: str) -> None:
    assert refusal(identifier, b"-") == "the PIN's entry was cancelled"


def test_an_empty_entry_is_no_pin(identifier: str) -> None:
    assert refusal(identifier, b"+") == "no PIN was entered"


@pytest.mark.parametrize("length", [256, 1000])
def test_too_long_an_entry_is_no_pin(identifier: str, length: int) -> None:
    assert refusal(identifier, b"+" + b"x" * length) == "the PIN is longer than 255 bytes"


def test_nobody_enters_it_in_time(identifier: str) -> None:
    asked: list[dict[str, str]] = []
    watcher = threading.Thread(target=lambda: asked.append(wait_for_question(identifier)[1]))
    watcher.start()
    with pytest.raises(PinNotSentError, match="nobody entered the PIN in time"):
        ask_pin("PIN", timeout_seconds=0.1, identifier=identifier)
    watcher.join(SECONDS)
    assert int(asked[0]["NotAfter"]) > 0  # which would be for ever
    assert find(identifier) is None


def test_another_user_is_told_that_it_may_not_ask(identifier: str) -> None:
    need_readable_checkout()
    done = subprocess.run(
        [sys.executable, "-P", "-c", SCRIPT, identifier],
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        capture_output=True,
        text=True,
        check=True,
        timeout=SECONDS,
    )
    assert done.stdout == (
        "systemd's password agents serve nobody but root; run this as root, or enter the PIN on the terminal\n"
    )


@pytest.fixture
def asking(identifier: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-P", "-c", SCRIPT, identifier]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_an_interrupted_question_is_withdrawn(identifier: str, asking: subprocess.Popen[str]) -> None:
    path, question = wait_for_question(identifier)
    wait_until_it_cannot_be_dumped(int(question["PID"]))
    asking.send_signal(signal.SIGINT)
    assert asking.communicate(timeout=SECONDS)[0] == "interrupted\n"
    assert not path.exists()
    assert not Path(question["Socket"]).exists()
    assert not Path("/proc", question["PID"]).exists()
