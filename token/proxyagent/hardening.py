"""What a process can do by itself to keep its memory to itself."""

import ctypes
import mmap
import os
import resource
import sys

from proxyagent.errors import ProxyAgentError

# linux/prctl.h, bits/mman-linux.h
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_MCL_CURRENT = 1
_MCL_FUTURE = 2
_MCL_ONFAULT = 4

_libc = ctypes.CDLL(None, use_errno=True)


def harden_process(*, no_new_privileges: bool = True) -> None:
    """Forbid core dumps, ptrace and reading /proc/self/mem by others of our uid, and gaining privileges by exec.

    Raises:
        ProxyAgentError: the kernel refused. A process that cannot protect a key must not hold one.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(_PR_SET_DUMPABLE, 0)
    if no_new_privileges:
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def open_standard_streams() -> None:
    """Put /dev/null in place of a standard stream that is closed.

    Otherwise the next socket or memory file would get its number, and be read as input or written to as output.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one
            os.set_inheritable(descriptor, True)
    # Python has put None in place of those that were closed.
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def lock_memory() -> bool:
    """Keep this process's pages out of swap if the limit allows; tell whether they are.

    Only where memory locking is unlimited: under a small limit a later allocation would fail instead.
    """
    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] != resource.RLIM_INFINITY and os.geteuid() != 0:
        return False
    return int(_libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT)) == 0


def protect_buffer(buffer: bytearray) -> bool:
    """Keep one small buffer, and what shares its pages, out of swap and out of dumps; tell whether the kernel does so.

    The buffer must not change its size afterwards.
    """
    if not buffer:
        return False
    view = (ctypes.c_char * len(buffer)).from_buffer(buffer)
    address = ctypes.addressof(view)
    start = address - address % mmap.PAGESIZE
    length = ctypes.c_size_t(address + len(buffer) - start)
    undumped = bool(_libc.madvise(ctypes.c_void_p(start), length, mmap.MADV_DONTDUMP) == 0)
    locked = bool(_libc.mlock(ctypes.c_void_p(start), length) == 0)
    return undumped and locked


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise ProxyAgentError(
            f"the kernel refused prctl {option}: {os.strerror(ctypes.get_errno())}",
            hint="run the agent on Linux without a filter on prctl",
        )
