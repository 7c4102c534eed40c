"""Who holds a claim: an engine process, named so that it can be told whether it still runs."""

import os
from pathlib import Path

_STARTTIME_FIELD = 22  # proc(5), /proc/[pid]/stat


def this_process() -> str:
    """The name of this process: host, boot, pid namespace, pid, and start time, since pids are used again."""
    return "/".join([os.uname().nodename, _boot_id(), _namespace(), str(os.getpid()), str(_start_time(os.getpid()))])


def is_dead(owner: str) -> bool:
    """Whether `owner` is known not to run any more; False also where that cannot be known (another machine)."""
    if not is_of_this_machine(owner):
        return False
    _, boot, namespace, pid, started = owner.split("/")
    if boot != _boot_id():
        return True
    return namespace == _namespace() and _start_time(int(pid)) != started


def host_of(owner: str) -> str:
    """The name of the machine that `owner` runs on."""
    return owner.partition("/")[0]


def is_of_this_machine(owner: str) -> bool:
    """Whether `owner` runs, or ran, on this machine."""
    return host_of(owner) == os.uname().nodename


def _namespace() -> str:
    return Path("/proc/self/ns/pid").readlink().name


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _start_time(pid: int) -> str | None:
    """The process's start time in clock ticks; None if it does not run."""
    try:
        line = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field, the program's name in parentheses, may itself have blanks and parentheses.
    after_name = line.rpartition(")")[2].split()
    if after_name[0] in {"Z", "X"}:
        return None
    return after_name[_STARTTIME_FIELD - 3]
