"""Look into a member of a job's output: each look is a process of its own, which may hang or die without harm."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mover.errors import OutputUncheckedError
from mover.reco.limits import Limits

# Libraries that would start a thread a core and reserve memory for each.
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


#: `alive` is called so often while a look lasts.
_ALIVE_SECONDS = 2.0

Alive = Callable[[], None]


class LookError(Exception):
    """The member is not what it should be; the text goes on after its name."""


def tree_entries(path: Path, tree: str, limits: Limits, alive: Alive) -> int:
    """The number of entries of a ROOT file's tree, all of it read. What `alive` raises ends the look.

    Raises:
        LookError: there is no such tree, it cannot all be read, or not within the limits.
        OutputUncheckedError: the machine is in no state to tell.
    """
    entries = _look("mover.reco.rootfile", {"path": str(path), "tree": tree}, limits, alive).get("entries")
    if type(entries) is not int or entries < 0:
        raise LookError(f"says nonsense of its tree {tree!r}")
    return entries


def log_lines(path: Path, expressions: Sequence[str], limits: Limits, alive: Alive) -> list[str | None]:
    """For each regular expression the first line of the log that it is found in, or None; as `tree_entries`.

    Raises:
        LookError: that takes more than the limits.
        OutputUncheckedError: the machine is in no state to tell.
    """
    request = {"path": str(path), "expressions": list(expressions), "line_bytes": limits.log_line_bytes}
    lines: list[str | None] = _look("mover.reco.logscan", request, limits, alive)["lines"]
    return lines


def _look(program: str, request: dict[str, object], limits: Limits, alive: Alive) -> dict[str, Any]:
    request |= {"memory_bytes": limits.memory_bytes, "cpu_seconds": limits.cpu_seconds}
    try:
        done = _run([sys.executable, "-P", "-B", "-m", program], json.dumps(request).encode(), limits, alive)
    except subprocess.TimeoutExpired as error:
        raise OutputUncheckedError(
            f"looking into a member of an output took over {limits.wall_seconds:.0f} s, though little of the processor",
            hint="see whether this machine is overloaded, or its scratch disk hangs; it is tried again",
        ) from error
    except OSError as error:
        raise OutputUncheckedError(
            f"cannot start a process to look into an output: {error.strerror}",
            hint="see whether the mover has run out of processes, memory or open files; it is tried again",
        ) from error
    if done.returncode == -signal.SIGXCPU:
        raise LookError(f"takes over {limits.cpu_seconds} s of processor time to be read")
    if done.returncode == -signal.SIGKILL:
        raise OutputUncheckedError(
            "the process that looks into an output was killed", hint="see whether this machine has run out of memory"
        )
    if done.returncode < 0:
        raise LookError(f"kills what reads it (signal {-done.returncode})")
    try:
        answer = json.loads(done.stdout) if not done.returncode else None
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        words = done.stderr.decode("utf-8", "backslashreplace").strip().splitlines()
        raise OutputUncheckedError(
            f"the process that looks into an output failed: {words[-1][:300] if words else 'without a word'}",
            hint="please report it, with the log",
        )
    if "fault" in answer:
        raise LookError(str(answer["fault"])[:500])
    return answer


def _run(command: list[str], request: bytes, limits: Limits, alive: Alive) -> subprocess.CompletedProcess[bytes]:
    """Run it to its end.

    Raises:
        TimeoutExpired: it takes longer than the limit, and was killed.
        OSError: it cannot be started.
    """
    deadline = time.monotonic() + limits.wall_seconds
    pipe, unsent = subprocess.PIPE, [request]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=_ENVIRONMENT, cwd="/") as process:
        try:
            while True:
                left = deadline - time.monotonic()
                try:
                    output, errors = process.communicate(
                        unsent.pop() if unsent else None, timeout=max(0.0, min(_ALIVE_SECONDS, left))
                    )
                except subprocess.TimeoutExpired:
                    if left <= _ALIVE_SECONDS:
                        raise
                    alive()
                else:
                    return subprocess.CompletedProcess(command, process.returncode, output, errors)
        except BaseException:
            process.kill()
            raise
