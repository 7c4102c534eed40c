"""Reading a PIN from a person or a pipe, straight into wipeable memory."""

import contextlib
import os
import select
import signal
import sys
import termios
import time
from collections.abc import Iterator
from types import FrameType

from proxyagent.errors import PinNotSentError
from proxyagent.pin import MAX_PIN_BYTES, Secret

_STDIN = 0
_ENDS = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)  # by default, without a word
_HINT = "enter the PIN on a terminal, or give it as one line on standard input"


def read_pin(prompt: str, *, timeout_seconds: float) -> Secret:
    """One line from standard input, without echo if that is a terminal. Call it from the main thread.

    Raises:
        PinNotSentError: the line is too long, the input ended without one, it cannot be read, or nobody entered one
            in time.
    """
    deadline_seconds = time.monotonic() + timeout_seconds
    try:
        return _ask(prompt, deadline_seconds) if os.isatty(_STDIN) else _read_line(deadline_seconds)
    except (OSError, termios.error) as error:
        reason = error.args[-1]
        raise PinNotSentError(f"cannot read the PIN from standard input: {reason}", hint=_HINT) from error


def _ask(prompt: str, deadline_seconds: float) -> Secret:
    sys.stderr.write(prompt)
    sys.stderr.flush()
    try:
        with _no_echo():
            return _read_line(deadline_seconds)
    finally:
        sys.stderr.write("\n")


def _read_line(deadline_seconds: float) -> Secret:
    buffer = bytearray(MAX_PIN_BYTES + 2)
    length = 0
    with Secret(buffer), memoryview(buffer) as view:
        # Byte by byte, so that what follows the line stays in the pipe.
        while length < len(view):
            _wait(deadline_seconds)
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


def _wait(deadline_seconds: float) -> None:
    poll = select.poll()
    poll.register(_STDIN, select.POLLIN)
    if not poll.poll(max(0.0, 1000 * (deadline_seconds - time.monotonic()))):
        raise PinNotSentError("nobody entered the PIN in time", hint=_HINT)


@contextlib.contextmanager
def _no_echo() -> Iterator[None]:
    before = termios.tcgetattr(_STDIN)
    silent = termios.tcgetattr(_STDIN)
    silent[3] &= ~(termios.ECHO | termios.ECHONL)

    def end(number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(termios.error):  # it hung up
            termios.tcsetattr(_STDIN, termios.TCSAFLUSH, before)
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)

    # Otherwise these would leave the person with a shell that shows nothing.
    caught = [number for number in _ENDS if signal.getsignal(number) is signal.SIG_DFL]
    try:
        for number in caught:
            signal.signal(number, end)
        termios.tcsetattr(_STDIN, termios.TCSAFLUSH, silent)
        yield
    finally:
        termios.tcsetattr(_STDIN, termios.TCSAFLUSH, before)
        for number in caught:
            signal.signal(number, signal.SIG_DFL)
