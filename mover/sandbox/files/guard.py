"""Runs one server and ends it, with everything that it started, when its parent asks or is gone.

Called as `guard.py PARENT_PID GRACE_SECONDS PROGRAM ARGUMENT…`; the end of standard input is the request to stop. A
program of its own because a parent-death signal follows the parent's *thread*, and because servers give their children
process groups of their own: as the reaper of all orphans below it, the guard finds them wherever they hide. Standard
library only, so that it starts in milliseconds and as any user.
"""

import contextlib
import ctypes
import os
import resource
import select
import signal
import sys
import time
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36


def main() -> int:
    """Run the program to its end or ours; the exit status is the program's (128 + the signal that ended it)."""
    parent, grace_seconds, argv = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot become the reaper of the server's children")
    if os.getppid() != parent:
        return 1
    parent_handle = os.pidfd_open(parent)
    # A server that crashes holds its ports as long as its memory is written out, and there are keys in that.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    no_input = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
    # Our parent may have blocked or ignored signals (gfal2 does), and Python ignores some: not so the server.
    defaults = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
    child = os.posix_spawnp(argv[0], argv, os.environ, file_actions=no_input, setsigmask=(), setsigdef=defaults)
    child_handle = os.pidfd_open(child)
    ready, _, _ = select.select([0, parent_handle, child_handle], [], [])
    if child_handle not in ready:
        signal.pidfd_send_signal(child_handle, signal.SIGTERM)
        if not select.select([child_handle], [], [], grace_seconds)[0]:
            signal.pidfd_send_signal(child_handle, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    _end_orphans(time.monotonic() + grace_seconds)
    return status if status >= 0 else 128 - status


def _end_orphans(deadline: float) -> None:
    while time.monotonic() < deadline:
        for orphan in _children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(orphan, signal.SIGKILL)
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.005)
        except ChildProcessError:
            return


def _children() -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            # The name stands in brackets and may hold anything; the parent is the second field after it.
            if int(stat.read_bytes().rpartition(b")")[2].split()[1]) == os.getpid():
                found.append(int(stat.parent.name))
    return found


if __name__ == "__main__":
    sys.exit(main())
