"""The agent as a service: systemd holds its socket, hears that it is ready and alive, and sees it end in order."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mover.sandbox.agent import Agent
from proxyagent.client import obtain_proxy
from tests.integration.proxyagent.conftest import AgentMaker, robot_status
from tests.integration.proxyagent.test_module import is_listening, wait_until

SECONDS = 60.0


@pytest.fixture
def stopped(start_agent: AgentMaker) -> Agent:
    """An agent that does not run; its configuration is there."""
    agent = start_agent(unlock=False)
    agent.halt()
    return agent


@contextmanager
def notified(directory: Path) -> Iterator[tuple[str, socket.socket]]:
    """A socket that hears what services tell systemd, and its path."""
    path = directory / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(str(path))
        ear.settimeout(SECONDS)
        yield str(path), ear


@contextmanager
def running(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_socket_unit_starts_the_agent_with_the_first_client(stopped: Agent) -> None:
    activate = shutil.which("systemd-socket-activate")
    if activate is None:
        pytest.skip("needs the package systemd")
    environment = [f"--setenv={name}={value}" for name, value in stopped.dongle.environment.items()]
    command = [activate, f"--listen={stopped.socket}", *environment, *stopped.command("serve")]
    with running(command, {**os.environ}) as process:
        wait_until(lambda: is_listening(stopped.socket))
        inode = stopped.socket.stat().st_ino
        stopped.unlock()
        obtain_proxy(stopped.socket, stopped.profile, 60, timeout_seconds=SECONDS).close()
        process.terminate()
        assert process.wait(SECONDS) == 0
    # The socket is systemd's: the agent leaves it.
    assert stopped.socket.stat().st_ino == inode


def test_systemd_hears_ready_alive_and_stopping(stopped: Agent) -> None:
    with notified(stopped.directory) as (path, ear):
        environment = {
            **os.environ,
            **stopped.dongle.environment,
            "NOTIFY_SOCKET": path,
            "WATCHDOG_USEC": "500000",
        }
        with running(stopped.command("serve"), environment) as process:
            heard = [ear.recv(1000) for _ in range(3)]
            assert heard[0] == b"READY=1"
            assert set(heard[1:]) == {b"WATCHDOG=1"}
            assert robot_status(stopped).dongle.present
            process.send_signal(signal.SIGTERM)
            while heard[-1] != b"STOPPING=1":
                heard.append(ear.recv(1000))
            assert process.wait(SECONDS) == 0


def test_the_watchdog_goes_hungry_when_nobody_is_served(stopped: Agent) -> None:
    with notified(stopped.directory) as (path, ear):
        environment = {**os.environ, **stopped.dongle.environment, "NOTIFY_SOCKET": path, "WATCHDOG_USEC": "200000"}
        with running(stopped.command("serve"), environment) as process:
            assert ear.recv(1000) == b"READY=1"
            assert ear.recv(1000) == b"WATCHDOG=1"
            process.send_signal(signal.SIGSTOP)
            wait_until(lambda: " T " in Path(f"/proc/{process.pid}/stat").read_text())
            ear.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while ear.recv(1000):
                    pass
            with pytest.raises(BlockingIOError):
                ear.recv(1000)
            process.send_signal(signal.SIGCONT)
            ear.settimeout(SECONDS)
            assert ear.recv(1000) == b"WATCHDOG=1"


def test_the_audit_log_tells_the_story_and_a_change_of_it_is_found(agent: Agent) -> None:
    obtain_proxy(agent.socket, agent.profile, 60, timeout_seconds=SECONDS).close()
    agent.halt()
    verify = agent.command("audit", "verify")
    good = subprocess.run(verify, capture_output=True, check=True, timeout=SECONDS, text=True)
    assert "are as they were written" in good.stdout
    (file,) = agent.directory.glob("audit-*.jsonl")
    story = file.read_text()
    for event in ("started", "dongle-plugged", "session", "unlocked", "issued", "stopped"):
        assert f'"event":"{event}"' in story, event
    assert agent.dongle.pin not in story
    # The journal has every head; the last one is that of the log.
    sequence, digest = good.stdout.splitlines()[-1].removeprefix("head: ").split()
    assert f"audit head {sequence} {digest}" in agent.log
    lines = story.splitlines(keepends=True)
    for changed in (story.replace('"uid":', '"uid":1', 1), "".join(lines[:2] + lines[3:]), "".join(lines[:-2])):
        file.write_text(changed)
        bad = subprocess.run(verify, capture_output=True, check=False, timeout=SECONDS, text=True)
        assert bad.returncode == 15, bad.stdout
        assert "error: " in bad.stderr
        assert "hint: " in bad.stderr
