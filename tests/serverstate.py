"""What the servers of a test process are doing, for the report of a failed test: a hang leaves no other trace."""

import os
from collections import Counter
from contextlib import suppress
from pathlib import Path

_LOG_LINES = 3
_LONGEST_LINE = 160


def servers_below(base: Path) -> str:
    """The processes that run in a directory below `base`: state, where their threads wait, the ends of their logs."""
    lines: list[str] = []
    for process in sorted(Path("/proc").glob("[0-9]*"), key=lambda one: int(one.name)):
        # It may end while it is looked at, or be another user's.
        with suppress(OSError):
            directory = (process / "cwd").readlink()
            if directory.is_relative_to(base) and int(process.name) != os.getpid():
                lines.append(f"{process.name} in {directory.relative_to(base)}: {_state(process)}")
    for log in sorted(base.glob("*/*/log/*")):
        with suppress(OSError):
            if log.parents[2].is_symlink():
                continue
            tail = log.read_bytes()[-4096:].decode("utf-8", "replace").splitlines()[-_LOG_LINES:]
            lines += [f"{log.relative_to(base)}: {line[:_LONGEST_LINE]}" for line in tail]
    return "\n".join(lines)


def _state(process: Path) -> str:
    name = (process / "comm").read_text().strip()
    state = (process / "stat").read_text().rpartition(")")[2].split()[0]
    waits = Counter((thread / "wchan").read_text() for thread in (process / "task").iterdir())
    return f"{name} {state}, threads in " + ", ".join(f"{where} ({count})" for where, count in waits.most_common(6))
