"""Server processes and ports: started, awaited, ended with all they started; never two with one port."""

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mover.errors import SandboxError
from mover.sandbox.ports import PortLease
from mover.sandbox.process import ServerProcess, together
from tests.integration.sandbox.clients import eventually

# A server whose child leaves its session and ignores polite requests, as the worst of them do.
_STUBBORN = """trap '' TERM; setsid sh -c 'trap "" TERM; echo child $$; sleep 1000' & echo server $$; wait"""
_ENVIRONMENT = {"PATH": os.defpath}


def _server(directory: Path, script: str, *, grace_seconds: float = 3.0) -> ServerProcess:
    argv = ["sh", "-c", script]
    return ServerProcess(
        "test", argv, directory=directory, package="dash", environment=_ENVIRONMENT, grace_seconds=grace_seconds
    )


def _pids(log: str) -> list[int]:
    return [int(line.split()[1]) for line in log.splitlines()]


def _gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def _both_said(log: str) -> bool:
    return "server" in log and "child" in log


def test_stop_ends_children_in_sessions_of_their_own(tmp_path: Path) -> None:
    server = _server(tmp_path, _STUBBORN, grace_seconds=0.2)
    server.start(_both_said)
    pids = _pids(server.logged())
    assert not any(_gone(pid) for pid in pids)
    server.stop()
    assert not server.running
    assert all(_gone(pid) for pid in pids)


def test_servers_survive_the_thread_that_started_them(tmp_path: Path) -> None:
    server = _server(tmp_path, "echo server $$; exec sleep 1000")
    thread = threading.Thread(target=server.start, args=(lambda log: "server" in log,))
    thread.start()
    thread.join()
    try:
        # A parent-death signal would arrive when the kernel has done with the thread, which is not when join returns.
        eventually(lambda: not Path(f"/proc/self/task/{thread.native_id}").exists())
        assert not _gone(_pids(server.logged())[0])
        assert server.running
    finally:
        server.stop()


def test_servers_end_when_the_process_that_started_them_is_killed(tmp_path: Path) -> None:
    program = f"""
import sys
from pathlib import Path
from mover.sandbox.process import ServerProcess
server = ServerProcess("test", ["sh", "-c", {_STUBBORN!r}], directory=Path({str(tmp_path)!r}), package="dash",
                       environment={_ENVIRONMENT!r}, grace_seconds=0.2)
server.start(lambda log: "server" in log and "child" in log)
print(server.logged(), flush=True)
print("ready", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as starter:
        assert starter.stdout is not None
        said = ""
        while "ready" not in said:
            line = starter.stdout.readline()
            assert line
            said += line
        starter.send_signal(signal.SIGKILL)
    pids = [int(line.split()[1]) for line in said.splitlines() if line.startswith(("server", "child"))]
    assert len(pids) == 2
    eventually(lambda: all(_gone(pid) for pid in pids))


def test_a_server_that_ends_at_once_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    server = _server(tmp_path, "echo the disk is on fire; exit 7")
    with pytest.raises(SandboxError, match=r"ended before it was ready.*\n.*the disk is on fire") as caught:
        server.start(lambda _: False)
    assert "dash" in caught.value.hint


def test_a_server_that_does_not_get_ready_is_stopped(tmp_path: Path) -> None:
    server = _server(tmp_path, "echo server $$; exec sleep 1000")
    with pytest.raises(SandboxError, match="was not ready after"):
        server.start(lambda _: False, seconds=0.3)
    assert not server.running
    assert all(_gone(pid) for pid in _pids(server.log.read_text()))


def test_what_is_not_installed_is_named_with_its_package(tmp_path: Path) -> None:
    server = ServerProcess(
        "test", ["no-such-server"], directory=tmp_path, package="no-such-package", environment=_ENVIRONMENT
    )
    with pytest.raises(SandboxError, match="no-such-server is not installed") as caught:
        server.start(lambda _: True)
    assert "no-such-package" in caught.value.hint


def test_together_waits_for_all_and_raises_the_first_error() -> None:
    done: list[int] = []

    def fail() -> None:
        raise SandboxError("broken", hint="mend it")

    with pytest.raises(SandboxError, match="broken"):
        together(fail, lambda: done.append(1))
    assert done == [1]


def test_a_leased_port_is_free_and_nobody_else_gets_it() -> None:
    lease = PortLease()
    try:
        before = lease.in_use
        with socket.create_server(("127.0.0.1", lease.number)):
            assert (before, lease.in_use) == (False, True)
        claim = f"import socket; socket.socket(socket.AF_UNIX).bind('\\0mover-sandbox-port-{lease.number}')"
        other = subprocess.run([sys.executable, "-c", claim], capture_output=True, text=True, check=False)
        assert "Address already in use" in other.stderr
    finally:
        lease.close()


def test_leases_at_the_same_time_are_different() -> None:
    leases = [PortLease() for _ in range(50)]
    assert len({lease.number for lease in leases}) == len(leases)
    for lease in leases:
        lease.close()
