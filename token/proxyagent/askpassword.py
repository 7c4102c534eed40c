"""Asking for the PIN through systemd's password agents: on the console, a desktop, or wherever one runs."""

import math
import os
import re
import resource
import select
import shutil
import subprocess
import time

from proxyagent.errors import ConfigError, PinNotSentError
from proxyagent.pin import MAX_PIN_BYTES, Secret

_PROGRAM = "systemd-ask-password"
_PATH = "/usr/bin:/bin"
_MAX_PROMPT_CHARACTERS = 200
_MAX_IDENTIFIER_CHARACTERS = 100
_MAX_ERROR_BYTES = 1000
_GRACE_SECONDS = 5.0
_END_SECONDS = 2.0
_HINT = "enter it on the terminal, or see that a password agent runs (`systemctl status systemd-ask-password-*`)"

#: What the program says in the C locale, and what that means for the person: reason and remedy.
_REFUSALS = {
    b"Timer expired": ("nobody entered the PIN in time", _HINT),
    b"Operation canceled": ("the PIN's entry was cancelled", "run the command again when the PIN is at hand"),
    b"Permission denied": (
        "systemd's password agents serve nobody but root",
        "run this as root, or enter the PIN on the terminal",
    ),
}


def ask_pin(prompt: str, *, timeout_seconds: float, identifier: str) -> Secret:
    """The PIN that a person enters where systemd asks for passwords, read straight into wipeable memory.

    systemd writes the question, not the answer, into a file; nothing is kept in the kernel's keyring. What the programs
    on the way hold is theirs: they are root's, and end when they have answered.

    Args:
        prompt: may contain foreign text such as a dongle's label; it is cut and made harmless for agents.
        timeout_seconds: how long a person may take.
        identifier: names the question for agents that look for it, such as proxyagent:SERIAL.

    Raises:
        PinNotSentError: nobody entered one in time, or they cancelled, or we may not ask.
        ConfigError: systemd-ask-password is not installed.
    """
    program = shutil.which(_PROGRAM, path=_PATH)
    if program is None:
        raise ConfigError(f"{_PROGRAM} is not installed", hint="install the package systemd")
    seconds = max(1, math.ceil(timeout_seconds))  # 0 would be for ever
    with subprocess.Popen(
        [
            program,
            "--no-tty",
            "--echo=no",
            "-n",
            f"--timeout={seconds}",
            f"--id={re.sub('[^A-Za-z0-9:._-]', '_', identifier)[:_MAX_IDENTIFIER_CHARACTERS]}",
            "--icon=drive-removable-media",
            "--",
            _harmless(prompt),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PATH": _PATH, "LC_ALL": "C"},
        bufsize=0,
    ) as process:
        try:
            # Nothing of it, which holds the PIN for a moment, may be dumped.
            resource.prlimit(process.pid, resource.RLIMIT_CORE, (0, 0))
            return _read_answer(process, time.monotonic() + seconds + _GRACE_SECONDS)
        finally:
            _end(process)


def _read_answer(process: subprocess.Popen[bytes], deadline_seconds: float) -> Secret:
    assert process.stdout is not None and process.stderr is not None  # noqa: S101, PT018  # as they were asked for
    buffer = bytearray(MAX_PIN_BYTES + 1)
    length = 0
    with Secret(buffer), memoryview(buffer) as view:
        while length < len(view):
            _wait(process.stdout.fileno(), deadline_seconds)
            count = os.readv(process.stdout.fileno(), [view[length:]])
            if count == 0:
                break
            length += count
        if length > MAX_PIN_BYTES:
            raise PinNotSentError(f"the PIN is longer than {MAX_PIN_BYTES} bytes", hint="enter the PIN alone")
        pin = Secret(bytearray(view[:length]))
    try:
        _check_end(process, process.stderr.fileno(), deadline_seconds)
    except BaseException:
        pin.wipe()
        raise
    if length == 0:
        raise PinNotSentError("no PIN was entered", hint=_HINT)
    return pin


def _check_end(process: subprocess.Popen[bytes], errors: int, deadline_seconds: float) -> None:
    _wait(errors, deadline_seconds)
    said = os.read(errors, _MAX_ERROR_BYTES)
    try:
        status = process.wait(max(0.0, deadline_seconds - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise _too_late() from None
    if status == 0:
        return
    for text, (reason, hint) in _REFUSALS.items():
        if text in said:
            raise PinNotSentError(reason, hint=hint)
    reason = _harmless(said.decode(errors="replace").strip()) or f"exit code {status}"
    raise PinNotSentError(f"{_PROGRAM} failed: {reason}", hint=_HINT)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()  # then it withdraws its question
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()


def _wait(descriptor: int, deadline_seconds: float) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    if not poll.poll(max(0.0, 1000 * (deadline_seconds - time.monotonic()))):
        raise _too_late()


def _too_late() -> PinNotSentError:
    return PinNotSentError("nobody entered the PIN in time", hint=_HINT)


def _harmless(text: str) -> str:
    """Foreign text for one line of the question's file, in which a backslash at the end continues the line."""
    safe = "".join(each if each.isprintable() and each != "\\" else "?" for each in text)
    return safe if len(safe) <= _MAX_PROMPT_CHARACTERS else safe[: _MAX_PROMPT_CHARACTERS - 1] + "…"
