"""The PKCS#11 module crashes, hangs or is killed: the agent carries on and says what to do."""

import contextlib
import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mover.errors import SandboxError
from mover.sandbox.agent import Agent
from mover.sandbox.dongle import Dongle
from proxyagent.client import obtain_proxy
from tests.integration.proxyagent.conftest import AgentMaker, Shim, robot_status

SECONDS = 30.0
CKR_GENERAL_ERROR = 5


def renew(agent: Agent) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        agent.command("renew"),
        input=f"{agent.dongle.pin}\n",
        capture_output=True,
        check=False,
        timeout=SECONDS,
        text=True,
    )


def processes(module: str, agent: Agent) -> list[int]:
    """The processes of this agent that run a Python module: only its configuration or dongle is in their arguments."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        own = str(agent.config).encode() in arguments or agent.dongle.uri.encode() in arguments
        if module.encode() in arguments and own and b"setpriv" not in arguments and b"-ISs" not in arguments:
            found.append(int(entry.name))
    return found


def agent_helper(agent: Agent) -> list[int]:
    """The helper process of this agent."""
    return processes("proxyagent.hsm_helper", agent)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def is_listening(path: Path) -> bool:
    """Whether clients can connect; a socket is there a moment before that."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def wait_until_none(module: str, agent: Agent) -> None:
    wait_until(lambda: not processes(module, agent))


def test_a_killed_helper_is_replaced(agent: Agent) -> None:
    (helper,) = agent_helper(agent)
    os.kill(helper, signal.SIGKILL)
    wait_until_none("proxyagent.hsm_helper", agent)
    # The session goes on, and the next look at the dongle starts another helper, which is not logged in.
    obtain_proxy(agent.socket, agent.profile, 60, timeout_seconds=SECONDS).close()
    status = robot_status(agent)
    assert status.dongle.present
    assert not status.dongle.logged_in
    assert agent_helper(agent) != [helper]
    assert renew(agent).returncode == 0


def test_a_crash_is_told_with_its_remedy(start_agent: AgentMaker, shim: Shim) -> None:
    agent = start_agent()
    shim.set("sign_crash")
    crashed = renew(agent)
    assert crashed.returncode == 12
    assert "error: the process of the PKCS#11 module ended (SIGSEGV)" in crashed.stderr
    assert "hint: run `proxyagent renew`" in crashed.stderr
    obtain_proxy(agent.socket, agent.profile, 60, timeout_seconds=SECONDS).close()
    shim.clear("sign_crash")
    assert renew(agent).returncode == 0


def test_a_module_that_failed_is_loaded_afresh(agent: Agent) -> None:
    (helper,) = agent_helper(agent)
    tokens = agent.dongle.directory / "tokens"
    away = tokens.rename(tokens.with_name("away"))
    for _ in range(2):
        broken = robot_status(agent).dongle
        assert broken.kind == "module"
        assert "the PKCS#11 module answered" in (broken.problem or "")
        assert "loads the module afresh" in (broken.hint or "")
    assert "the login is lost" in agent.log
    away.rename(tokens)
    # Nobody knows the PIN: the dongle is there, and the person with the PIN is needed.
    status = robot_status(agent)
    assert status.dongle.present, status.dongle.problem
    assert not status.dongle.logged_in
    assert status.session is not None
    assert helper not in agent_helper(agent)
    assert renew(agent).returncode == 0
    assert robot_status(agent).dongle.logged_in


def test_a_fresh_module_is_sent_no_pin(start_agent: AgentMaker, shim: Shim) -> None:
    agent = start_agent(unlock=False)
    # The module fails after the login: the login is gone with its helper, and is not made again by itself.
    shim.set("sign_rv", CKR_GENERAL_ERROR)
    failed = renew(agent)
    assert failed.returncode == 12
    assert "GeneralError" in failed.stderr
    assert "the login is lost: run `proxyagent renew`" in failed.stderr
    shim.clear("sign_rv")
    assert not robot_status(agent).dongle.logged_in
    assert shim.logins == 1
    # A wrong PIN is remembered by the agent, not by the helper that dies.
    with pytest.raises(SandboxError, match="refused the PIN"):
        agent.unlock("000000000")
    tokens = agent.dongle.directory / "tokens"
    away = tokens.rename(tokens.with_name("away"))
    assert robot_status(agent).dongle.kind == "module"
    away.rename(tokens)
    with pytest.raises(SandboxError, match="was not sent again"):
        agent.unlock("000000000")
    assert shim.logins == 2


def test_a_hanging_module_meets_its_time_limit(start_agent: AgentMaker, shim: Shim) -> None:
    agent = start_agent(settings="module_timeout_seconds = 4.0")
    (helper,) = agent_helper(agent)
    shim.set("sign_hang")
    hung = renew(agent)
    assert hung.returncode == 12
    assert "error: the PKCS#11 module did not answer within 4 s and was stopped" in hung.stderr
    assert "hint: replug the dongle" in hung.stderr
    assert helper not in agent_helper(agent)
    obtain_proxy(agent.socket, agent.profile, 60, timeout_seconds=SECONDS).close()
    shim.clear("sign_hang")
    assert renew(agent).returncode == 0


@contextlib.contextmanager
def hanging(agent: Agent, shim: Shim) -> Iterator[subprocess.Popen[bytes]]:
    """A server without the sandbox's guard, which would clean up behind it, while its module hangs in C_Sign."""
    agent.halt()
    shim.set("sign_hang")
    environment = {**os.environ, **agent.dongle.environment}
    with subprocess.Popen(agent.command("serve"), env=environment) as server:
        try:
            wait_until(lambda: is_listening(agent.socket))
            with renewing(agent, shim) as waiting:
                yield server
                assert waiting.wait(SECONDS) != 0
        finally:
            server.kill()


@contextlib.contextmanager
def renewing(agent: Agent, shim: Shim) -> Iterator[subprocess.Popen[bytes]]:
    """`proxyagent renew` at the point where the module hangs."""
    with subprocess.Popen(agent.command("renew"), stdin=subprocess.PIPE, stderr=subprocess.PIPE) as waiting:
        try:
            assert waiting.stdin is not None
            waiting.stdin.write(f"{agent.dongle.pin}\n".encode())
            waiting.stdin.close()
            wait_until(shim.is_hanging)
            yield waiting
        finally:
            waiting.kill()


def test_the_agent_stops_while_the_module_hangs(start_agent: AgentMaker, shim: Shim) -> None:
    agent = start_agent(settings="module_timeout_seconds = 300.0", unlock=False)
    with hanging(agent, shim) as server:
        assert agent_helper(agent)
        server.terminate()
        assert server.wait(SECONDS) == 0
        assert not agent.socket.exists()
        wait_until_none("proxyagent.hsm_helper", agent)


def test_the_helper_ends_with_a_killed_agent_even_while_the_module_hangs(start_agent: AgentMaker, shim: Shim) -> None:
    agent = start_agent(settings="module_timeout_seconds = 300.0", unlock=False)
    with hanging(agent, shim) as server:
        assert agent_helper(agent)
        server.kill()
        wait_until_none("proxyagent.hsm_helper", agent)


def test_proxies_are_issued_while_the_module_hangs(start_agent: AgentMaker, shim: Shim) -> None:
    agent = start_agent(settings="module_timeout_seconds = 300.0")
    shim.set("sign_hang")
    with renewing(agent, shim) as waiting:
        obtain_proxy(agent.socket, agent.profile, 60, timeout_seconds=SECONDS).close()
        agent.halt()
        assert waiting.wait(SECONDS) != 0


def test_a_module_that_is_not_there_is_named(start_agent: AgentMaker, dongle: Dongle) -> None:
    dongle.module = Path("/nonexistent/module.so")
    agent = start_agent(unlock=False)
    done = renew(agent)
    assert done.returncode == 3
    assert "/nonexistent/module.so" in done.stderr


def test_nobody_hears_what_a_module_prints(start_agent: AgentMaker, shim: Shim) -> None:
    agent = start_agent()
    shim.write("talk", "proxyagent.audit: audit head 1 of a module that tells the PIN")
    assert robot_status(agent).dongle.present
    agent.halt()
    assert "tells the PIN" not in agent.log


def test_no_descriptor_left_for_a_helper_is_told_in_words(agent: Agent) -> None:
    (server,) = processes("proxyagent", agent)
    (helper,) = agent_helper(agent)
    soft, hard = resource.prlimit(server, resource.RLIMIT_NOFILE)
    # One for the connection, one for what is looked at meanwhile, and none for a pair of sockets.
    resource.prlimit(server, resource.RLIMIT_NOFILE, (len([*Path(f"/proc/{server}/fd").iterdir()]) + 1, hard))
    os.kill(helper, signal.SIGKILL)
    wait_until_none("proxyagent.hsm_helper", agent)
    # The first look may still tell how the helper ended.
    wait_until(lambda: "Too many open files" in (robot_status(agent).dongle.problem or ""))
    resource.prlimit(server, resource.RLIMIT_NOFILE, (soft, hard))
    assert "Traceback" not in agent.log
    wait_until(lambda: robot_status(agent).dongle.present)
