"""The processes of a job, found and ended wherever they hide: in groups and sessions of their own, too."""

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_POLL_SECONDS = 0.02


def become_reaper() -> None:
    """Let whatever our children leave behind become children of ours.

    Raises:
        OSError: the kernel does not let us.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot become the reaper of the job's processes")


def below_us() -> set[int]:
    """The processes that we have started, and those that they have started; of a reaper, all that there are."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name stands in brackets and may hold anything; state and parent are the fields after it.
            state, parent = stat.read_bytes().rpartition(b")")[2].split()[:2]
            if state not in {b"Z", b"X"}:
                children.setdefault(int(parent), []).append(int(stat.parent.name))
    found = list(children.get(os.getpid(), []))
    for one in found:
        found.extend(children.get(one, []))
    return set(found)


def end(processes: Callable[[], Iterable[int]], *, grace_seconds: float, patience_seconds: float = 5.0) -> bool:
    """Ask all of `processes()` to end, and kill those that are there after `grace_seconds`; whether none is left.

    They are looked for again and again, since they may start others meanwhile.
    """
    asked: set[int] = set()
    kill_at = time.monotonic() + grace_seconds
    give_up_at = kill_at + patience_seconds
    while left := set(processes()):
        now = time.monotonic()
        if now > give_up_at:
            return False
        if now >= kill_at:
            _signal(left, processes, signal.SIGKILL)
        else:
            _signal(left - asked, processes, signal.SIGTERM)
        asked |= left
        time.sleep(_POLL_SECONDS)
    return True


def _signal(chosen: set[int], processes: Callable[[], Iterable[int]], number: signal.Signals) -> None:
    handles: dict[int, int] = {}
    try:
        for process in chosen:
            with contextlib.suppress(OSError):
                handles[process] = os.pidfd_open(process)
        # What is one of them still, now that we have a handle of it, is no other process that got the same pid.
        for process in handles.keys() & set(processes() if handles else ()):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(handles[process], number)
    finally:
        for handle in handles.values():
            os.close(handle)


def marked(variable: str, value: str) -> list[int]:
    """The processes that were started with that variable in their environment, as far as we may look at it."""
    mark = f"\0{variable}={value}\0".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark in b"\0" + path.read_bytes():
                found.append(int(path.parent.name))
    return found
