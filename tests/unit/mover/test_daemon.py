"""A daemon under systemd: it says when it can be used, that it lives, and that it stops."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SECONDS = 60.0
SCRIPT = """
import sys, threading
from mover.cli.daemon import run_until_signalled
from mover.errors import ConfigError

class Works:
    def __init__(self):
        self._stop = threading.Event()
    def run(self):
        self._stop.wait()
    def stop(self):
        self._stop.set()

class Fails(Works):
    def run(self):
        raise ConfigError("it cannot begin", hint="see why")

run_until_signalled({"works": Works, "fails": Fails}[sys.argv[1]](), "engine")
"""


@contextmanager
def started(kind: str, tmp_path: Path, ear: socket.socket) -> Iterator[subprocess.Popen[str]]:
    ear.bind(str(tmp_path / "notify"))
    ear.settimeout(SECONDS)
    environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000"}
    command = [sys.executable, "-P", "-c", SCRIPT, kind]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_systemd_hears_ready_alive_and_stopping(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear, started("works", tmp_path, ear) as process:
        heard = [ear.recv(1000) for _ in range(4)]
        assert heard.count(b"READY=1") == 1
        assert heard.count(b"WATCHDOG=1") == 3
        process.send_signal(signal.SIGTERM)
        while heard[-1] != b"STOPPING=1":
            heard.append(ear.recv(1000))
        assert heard.count(b"READY=1") == 1
        assert process.wait(SECONDS) == 0


def test_one_that_cannot_begin_is_never_ready(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear, started("fails", tmp_path, ear) as process:
        _, said = process.communicate(timeout=SECONDS)
        assert process.returncode == 1
        assert "it cannot begin" in said
        ear.setblocking(False)
        with pytest.raises(BlockingIOError):
            ear.recv(1000)
