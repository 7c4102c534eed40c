"""Limits and the system call filter, tried in a process of its own; the integration tests try them with a module."""

import subprocess
import sys

import pytest

LIMITS = "[resource.getrlimit(each) for each in (resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE, resource.RLIMIT_AS)]"
WANTED_LIMITS = str([(1 << 20, 1 << 20), (128, 128), (2 << 30, 2 << 30)])
PREPARE = """
import errno, os, resource, socket, sys
from proxyagent.hardening import harden_process
harden_process()
"""
CONFINE = "from proxyagent.confinement import confine\nprint(confine())\n"
TRY_NETWORK = """
try:
    socket.socket()
    print("socket")
except OSError as error:
    print(errno.errorcode[error.errno])
"""


def run(code: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-I", "-c", PREPARE + code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_limits_and_filter() -> None:
    pytest.importorskip("seccomp", reason="needs the package python3-seccomp")
    assert run(CONFINE + TRY_NETWORK + f"print({LIMITS})") == ["True", "EPERM", WANTED_LIMITS]


def test_python_itself_lives_with_it() -> None:
    pytest.importorskip("seccomp", reason="needs the package python3-seccomp")
    code = """
import tempfile, threading
thread = threading.Thread(target=lambda: print("thread"))
thread.start()
thread.join()
with tempfile.TemporaryFile() as file:
    print(file.write(b"x"))
print(len(os.urandom(8)), resource.getrlimit(resource.RLIMIT_CORE))
ours, theirs = socket.socketpair()
os.abort()
"""
    done = subprocess.run(
        [sys.executable, "-I", "-u", "-c", PREPARE + CONFINE + code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.splitlines() == ["True", "thread", "1", "8 (0, 0)"]
    assert done.returncode == -6, "a module's abort() is seen for what it is"


def test_without_the_library_there_are_limits_and_it_says_so() -> None:
    code = 'sys.modules["seccomp"] = None\n' + CONFINE + TRY_NETWORK + f"print({LIMITS})"
    assert run(code) == ["False", "socket", WANTED_LIMITS]


def test_where_the_kernel_takes_no_filter_it_says_so() -> None:
    pytest.importorskip("seccomp", reason="needs the package python3-seccomp")
    refuse = """
import seccomp
filter = seccomp.SyscallFilter(seccomp.ALLOW)
filter.add_rule(seccomp.ERRNO(errno.EINVAL), "seccomp")
filter.add_rule(seccomp.ERRNO(errno.EINVAL), "prctl", seccomp.Arg(0, seccomp.EQ, 22))
filter.load()
"""
    assert run(refuse + CONFINE + TRY_NETWORK + f"print({LIMITS})") == ["False", "socket", WANTED_LIMITS]
