"""The socket: hostile peers, other users, too many of them, and a clean end."""

import json
import os
import signal
import socket
import stat
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mover.sandbox.agent import Agent
from proxyagent.client import agent_status, obtain_proxy
from proxyagent.errors import BusyError
from tests.integration.proxyagent.conftest import AgentMaker, robot_status
from tests.integration.proxyagent.test_module import processes, wait_until_none

SECONDS = 20.0
NOBODY = 65534
VALUES = st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.lists(st.integers(), max_size=3)
BODIES = st.binary(max_size=300) | st.fixed_dictionaries(
    {},
    optional={
        "version": st.just(1),
        "verb": st.sampled_from(["status", "issue", "unlock", "sign", "login"]) | VALUES,
        "profile": st.just("mover") | VALUES,
        "csr": st.text(max_size=50) | VALUES,
        "lifetime_seconds": st.integers(1, 100) | VALUES,
        "more": VALUES,
    },
).map(lambda message: json.dumps(message).encode())

CLIENT = """
import os
import sys
from pathlib import Path
from proxyagent.client import agent_status, obtain_proxy, unlock_agent
from proxyagent.errors import ProxyAgentError
from proxyagent.pin import Secret
path, nobody = Path(sys.argv[1]), int(sys.argv[2])
# Only now: the checkout may be in a home that nobody else may look into.
os.setgroups([])
os.setresgid(nobody, nobody, nobody)
os.setresuid(nobody, nobody, nobody)
calls = [
    lambda: obtain_proxy(path, "mover", 60, timeout_seconds=20),
    lambda: agent_status(path, timeout_seconds=20),
    lambda: unlock_agent(path, Secret(bytearray(b"12345678")), timeout_seconds=20),
]
for call in calls:
    try:
        call()
        print("allowed")
    except ProxyAgentError as error:
        print(type(error).__name__)
"""


def as_nobody(agent: Agent) -> list[str]:
    """What obtain_proxy, agent_status and unlock_agent answer another user."""
    agent.directory.chmod(0o711)
    done = subprocess.run(
        [sys.executable, "-P", "-B", "-c", CLIENT, str(agent.socket), str(NOBODY)],
        capture_output=True,
        check=True,
        timeout=SECONDS,
        text=True,
    )
    return done.stdout.split()


def exchange(path: Path, data: bytes) -> bytes:
    """Send bytes, close our half, and return everything that comes back."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(SECONDS)
        connection.connect(str(path))
        answer = b""
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while chunk := connection.recv(65536):
                answer += chunk
        except (BrokenPipeError, ConnectionResetError):
            pass  # it may close before it has read everything
        return answer


def test_the_server_survives_whatever_is_sent(start_agent: AgentMaker) -> None:
    agent = start_agent()

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(body=BODIES, length=st.none() | st.integers(0, 2**32 - 1), tail=st.binary(max_size=50))
    def bombard(body: bytes, length: int | None, tail: bytes) -> None:
        frame = struct.pack("!I", len(body) if length is None else length) + body + tail
        answer = exchange(agent.socket, frame)
        if answer:
            (size,) = struct.unpack("!I", answer[:4])
            assert size == len(answer) - 4
            assert json.loads(answer[4:])["version"] == 1
            assert b"PRIVATE KEY" not in answer

    bombard()
    obtain_proxy(agent.socket, agent.profile, 60, timeout_seconds=SECONDS).close()
    assert "in the agent" not in agent.log
    assert "Traceback" not in agent.log


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to act as another user")
def test_another_user_gets_nothing(start_agent: AgentMaker) -> None:
    agent = start_agent(settings='socket_mode = "0666"')
    assert as_nobody(agent) == ["DeniedError"] * 3
    assert "issued" not in agent.log


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to act as another user")
def test_another_user_gets_what_the_policy_says_and_may_not_unlock(start_agent: AgentMaker) -> None:
    agent = start_agent(settings='socket_mode = "0666"')
    text = agent.config.read_text().replace("uids = [0]", f"gids = [{NOBODY}]")
    agent.halt()
    agent.config.write_text(text)
    agent.start()
    agent.unlock()
    assert as_nobody(agent) == ["allowed", "allowed", "DeniedError"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to act as another user")
def test_the_socket_mode_keeps_others_out(agent: Agent) -> None:
    assert stat.S_IMODE(agent.socket.stat().st_mode) == 0o660
    assert as_nobody(agent) == ["AgentUnreachableError"] * 3


def test_connections_are_bounded_and_silent_ones_do_not_stop_the_others(start_agent: AgentMaker) -> None:
    agent = start_agent(settings="max_connections_per_user = 3")
    silent = []
    try:
        for _ in range(2):
            silent.append(socket.socket(socket.AF_UNIX))
            silent[-1].connect(str(agent.socket))
        obtain_proxy(agent.socket, agent.profile, 60, timeout_seconds=SECONDS).close()
        # Fresh ones, for the agent bears silence for ten seconds only.
        for _ in range(3):
            silent.append(socket.socket(socket.AF_UNIX))
            silent[-1].connect(str(agent.socket))
        with pytest.raises(BusyError):
            agent_status(agent.socket, timeout_seconds=SECONDS)
    finally:
        for each in silent:
            each.close()


def test_sigterm_ends_it_cleanly(agent: Agent) -> None:
    (server,) = processes("proxyagent", agent)
    os.kill(server, signal.SIGTERM)
    wait_until_none("proxyagent", agent)
    wait_until_none("proxyagent.hsm_helper", agent)
    assert not agent.socket.exists()
    assert "Traceback" not in agent.log


def test_a_second_agent_on_the_same_socket_is_refused_and_a_dead_ones_socket_is_taken(
    agent: Agent, tmp_path: Path
) -> None:
    # Not even beside each other's audit log, and with another one not on the same socket.
    second = subprocess.run(agent.command("serve"), capture_output=True, check=False, timeout=SECONDS, text=True)
    assert second.returncode == 15
    assert "another agent writes the audit log" in second.stderr
    text = agent.config.read_text()
    agent.config.write_text(text.replace(f'state_directory = "{agent.directory}"', f'state_directory = "{tmp_path}"'))
    second = subprocess.run(agent.command("serve"), capture_output=True, check=False, timeout=SECONDS, text=True)
    assert second.returncode == 3
    assert "another agent listens" in second.stderr
    agent.config.write_text(text)
    obtain_proxy(agent.socket, agent.profile, 60, timeout_seconds=SECONDS).close()
    (server,) = processes("proxyagent", agent)
    os.kill(server, signal.SIGKILL)
    wait_until_none("proxyagent", agent)
    assert agent.socket.exists()
    agent.start()
    assert robot_status(agent).session is None


def test_a_file_in_place_of_the_socket_is_left_alone(start_agent: AgentMaker) -> None:
    agent = start_agent(unlock=False)
    agent.halt()
    agent.socket.write_text("precious")
    refused = subprocess.run(agent.command("serve"), capture_output=True, check=False, timeout=SECONDS, text=True)
    assert refused.returncode == 3
    assert agent.socket.read_text() == "precious"
