"""Reading the PIN from standard inputs that are none."""

import os
import subprocess
import sys

import pytest

SECONDS = 20.0
SCRIPT = """
from proxyagent.errors import PinNotSentError
from proxyagent.pinentry import read_pin
try:
    print(bytes(read_pin("PIN: ", timeout_seconds=10).buffer).decode())
except PinNotSentError as error:
    print(error.message, error.hint, sep="; ")
"""


def test_nobody_waits_for_ever() -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader), os.fdopen(writer, "w") as silent:
        script = SCRIPT.replace("timeout_seconds=10", "timeout_seconds=0.1")
        command = [sys.executable, "-P", "-c", script]
        said = subprocess.run(command, stdin=reader, capture_output=True, check=True, timeout=SECONDS, text=True).stdout
        assert not silent.closed
    assert said.startswith("nobody entered the PIN in time; ")


def read(redirection: str, text: str = "") -> str:
    command = ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-P", "-c", SCRIPT]
    return subprocess.run(command, input=text, capture_output=True, check=True, timeout=SECONDS, text=True).stdout


@pytest.mark.parametrize("redirection", ["<&-", "0>/dev/null"])
def test_an_input_that_cannot_be_read_is_told_in_words(redirection: str) -> None:
    said = read(redirection)
    assert said.startswith("cannot read the PIN from standard input: Bad file descriptor")
    assert "; enter the PIN on a terminal, or give it as one line" in said


@pytest.mark.parametrize("text", ["1234\n", "1234\r\n", "1234", "1234\n5678\n"])
def test_one_line_is_read(text: str) -> None:
    assert read("", text) == "1234\n"


def test_an_input_without_a_line_is_no_pin() -> None:
    assert read("</dev/null").startswith("no PIN was entered; ")
