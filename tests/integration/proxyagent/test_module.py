"""The PKCS#11 module crashes, hangs or is killed: the agent carries on and says what to do."""

import os
import signal
import subprocess
import time
from pathlib import Path

from mover.sandbox.agent import Agent
from mover.sandbox.dongle import Dongle
from proxyagent.client import agent_status, obtain_proxy
from tests.integration.proxyagent.conftest import AgentMaker, Shim

SECONDS = 30.0


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


def wait_until_none(module: str, agent: Agent) -> None:
    deadline = time.monotonic() + SECONDS
    while processes(module, agent):
        assert time.monotonic() < deadline, f"{module} is still there"
        time.sleep(0.02)


def test_a_killed_helper_is_replaced(agent: Agent) -> None:
    (helper,) = processes("proxyagent.hsm_helper", agent)
    os.kill(helper, signal.SIGKILL)
    wait_until_none("proxyagent.hsm_helper", agent)
    # The session goes on, and the next look at the dongle starts another helper, which is not logged in.
    obtain_proxy(agent.socket, agent.profile, 60, timeout_seconds=SECONDS).close()
    status = agent_status(agent.socket, timeout_seconds=SECONDS)
    assert status.dongle.present
    assert not status.dongle.logged_in
    assert processes("proxyagent.hsm_helper", agent) != [helper]
    assert renew(agent).returncode == 0


def test_a_crash_is_told_with_its_remedy(start_agent: AgentMaker, shim: Shim) -> None:
    agent = start_agent()
    shim.set("crash")
    crashed = renew(agent)
    assert crashed.returncode == 12
    assert "error: the process of the PKCS#11 module ended (SIGABRT)" in crashed.stderr
    assert "hint: run `proxyagent renew`" in crashed.stderr
    obtain_proxy(agent.socket, agent.profile, 60, timeout_seconds=SECONDS).close()
    shim.clear("crash")
    assert renew(agent).returncode == 0


def test_a_hanging_module_meets_its_time_limit(start_agent: AgentMaker, shim: Shim) -> None:
    agent = start_agent(settings="module_timeout_seconds = 4.0")
    (helper,) = processes("proxyagent.hsm_helper", agent)
    shim.set("hang")
    hung = renew(agent)
    assert hung.returncode == 12
    assert "error: the PKCS#11 module did not answer within 4 s and was stopped" in hung.stderr
    assert "hint: replug the dongle" in hung.stderr
    assert helper not in processes("proxyagent.hsm_helper", agent)
    obtain_proxy(agent.socket, agent.profile, 60, timeout_seconds=SECONDS).close()
    shim.clear("hang")
    assert renew(agent).returncode == 0


def test_proxies_are_issued_while_the_module_hangs_and_the_agent_stops_all_the_same(
    start_agent: AgentMaker, shim: Shim
) -> None:
    agent = start_agent(settings="module_timeout_seconds = 300.0")
    shim.set("hang")
    with subprocess.Popen(agent.command("renew"), stdin=subprocess.PIPE, stderr=subprocess.PIPE) as waiting:
        assert waiting.stdin is not None
        waiting.stdin.write(f"{agent.dongle.pin}\n".encode())
        waiting.stdin.close()
        deadline = time.monotonic() + SECONDS
        while shim.logins < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        obtain_proxy(agent.socket, agent.profile, 60, timeout_seconds=SECONDS).close()
        agent.halt()
        wait_until_none("proxyagent.hsm_helper", agent)
        waiting.wait(SECONDS)
        assert waiting.returncode != 0


def test_the_helper_ends_with_a_killed_agent_even_while_the_module_hangs(start_agent: AgentMaker, shim: Shim) -> None:
    agent = start_agent(settings="module_timeout_seconds = 300.0")
    shim.set("hang")
    with subprocess.Popen(agent.command("renew"), stdin=subprocess.PIPE, stderr=subprocess.PIPE) as waiting:
        assert waiting.stdin is not None
        waiting.stdin.write(f"{agent.dongle.pin}\n".encode())
        waiting.stdin.close()
        deadline = time.monotonic() + SECONDS
        while shim.logins < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        (server,) = (pid for pid in processes("proxyagent", agent) if pid != waiting.pid)
        os.kill(server, signal.SIGKILL)
        wait_until_none("proxyagent.hsm_helper", agent)
        waiting.wait(SECONDS)


def test_a_module_that_is_not_there_is_named(start_agent: AgentMaker, dongle: Dongle) -> None:
    dongle.module = Path("/nonexistent/module.so")
    agent = start_agent(unlock=False)
    done = renew(agent)
    assert done.returncode == 12
    assert "/nonexistent/module.so" in done.stderr
