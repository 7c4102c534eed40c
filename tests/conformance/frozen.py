"""Stops a server in its tracks."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mover.sandbox.server import RobotServer


@contextmanager
def frozen_later(server: RobotServer) -> Iterator[Callable[[], None]]:
    """What stops the server in its tracks when it is called, connections and all; it goes on after the body."""
    pids: list[int] = []

    def freeze() -> None:
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if (process / "cwd").readlink() == server.directory:
                    os.kill(int(process.name), signal.SIGSTOP)
                    pids.append(int(process.name))

    try:
        yield freeze
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
