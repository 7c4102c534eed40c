"""Standard input, output and error: what happens where one of them is closed, full, or knows few characters."""

import errno
import fcntl
import io
import os
import sys
from contextlib import suppress
from typing import TextIO

from mover.errors import OutputError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def open_standard_streams() -> None:
    """Put /dev/null in place of a standard stream that is closed; print what the terminal cannot show as escapes.

    Otherwise the next file that is opened would get its number, and be written what is meant for people. Writing to a
    standard output that was closed stays an error.
    """
    for descriptor, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, flags)  # gets the lowest number that is free: this one
            os.set_inheritable(descriptor, True)
    # Python has put None in place of those that were closed.
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def output_error(error: OSError) -> OutputError | None:
    """What an error of writing to standard output means; None if it is about something else."""
    if error.filename is not None:
        return None
    if error.errno in _FULL:
        return OutputError(
            f"cannot write the output: {os.strerror(error.errno).lower()}", hint="make space, or write it elsewhere"
        )
    if error.errno == errno.EBADF and _is_closed(1):
        return OutputError(
            "cannot write the output: standard output is closed", hint="send it to /dev/null if nobody is to have it"
        )
    return None


def forget_output(stream: TextIO) -> None:
    """Let what is still held for a stream go to nobody: at its end, Python would fail over it once more."""
    with suppress(OSError, ValueError):  # it is no file
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _is_closed(descriptor: int) -> bool:
    """Whether it was closed when the program was started."""
    return fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
