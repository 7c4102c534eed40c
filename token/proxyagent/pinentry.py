"""Reading a PIN from a person or a pipe, straight into wipeable memory."""

import contextlib
import os
import sys
import termios
from collections.abc import Iterator

from proxyagent.errors import PinNotSentError
from proxyagent.pin import MAX_PIN_BYTES, Secret

_STDIN = 0
_HINT = "enter the PIN on a terminal, or give it as one line on standard input"


def read_pin(prompt: str) -> Secret:
    """One line from standard input, without echo if that is a terminal.

    Raises:
        PinNotSentError: the line is too long, the input ended without one, or it cannot be read.
    """
    try:
        return _ask(prompt) if os.isatty(_STDIN) else _read_line()
    except (OSError, termios.error) as error:
        reason = error.args[-1]
        raise PinNotSentError(f"cannot read the PIN from standard input: {reason}", hint=_HINT) from error


def _ask(prompt: str) -> Secret:
    sys.stderr.write(prompt)
    sys.stderr.flush()
    try:
        with _no_echo():
            return _read_line()
    finally:
        sys.stderr.write("\n")


def _read_line() -> Secret:
    buffer = bytearray(MAX_PIN_BYTES + 2)
    length = 0
    with Secret(buffer), memoryview(buffer) as view:
        # Byte by byte, so that what follows the line stays in the pipe.
        while length < len(view):
            if os.readv(_STDIN, [view[length : length + 1]]) == 0 or view[length] == ord("\n"):
                break
            length += 1
        if length > 0 and view[length - 1] == ord("\r"):
            length -= 1
        pin = Secret(bytearray(view[:length]))
    if length > MAX_PIN_BYTES:
        pin.wipe()
        raise PinNotSentError(f"the PIN is longer than {MAX_PIN_BYTES} bytes", hint="enter the PIN alone, on one line")
    if length == 0:
        raise PinNotSentError("no PIN was entered", hint=_HINT)
    return pin


@contextlib.contextmanager
def _no_echo() -> Iterator[None]:
    before = termios.tcgetattr(_STDIN)
    silent = termios.tcgetattr(_STDIN)
    silent[3] &= ~(termios.ECHO | termios.ECHONL)
    termios.tcsetattr(_STDIN, termios.TCSAFLUSH, silent)
    try:
        yield
    finally:
        termios.tcsetattr(_STDIN, termios.TCSAFLUSH, before)
