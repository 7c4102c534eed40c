"""The shipped units, run by a real systemd: nothing in their hardening keeps the agent, or its question, from work."""

import re
import shlex
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mover.sandbox.agent import Agent
from proxyagent.client import obtain_proxy
from tests.cgroups import Cgroup, ServiceManager
from tests.integration.proxyagent.conftest import AgentMaker, robot_status
from tests.integration.proxyagent.test_module import wait_until

SECONDS = 60.0
UNITS = Path(__file__).parents[3] / "systemd"

#: What only the system's own manager can do, what would hide the test's own files from the agent, and what mounts
#: /dev, /proc and /sys again, which a container does not allow.
NOT_HERE = (
    *("User", "Group", "SupplementaryGroups", "StateDirectory", "StateDirectoryMode"),
    *("Requires", "After", "BindsTo", "PartOf"),
    *("PrivateTmp", "ProtectHome"),
    *("PrivateDevices", "ProtectControlGroups", "ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables"),
)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ServiceManager]:
    cgroup = Cgroup()
    try:
        manager = ServiceManager(cgroup, tmp_path)
        try:
            yield manager
        finally:
            manager.stop()
    finally:
        cgroup.remove()


def as_tested(name: str, agent: Agent, *arguments: str) -> str:
    """The unit with its program, and without what is not here."""
    text = (UNITS / name).read_text()
    for setting in NOT_HERE:
        text = re.sub(rf"^{setting}=.*\n", "", text, flags=re.MULTILINE)
    command = shlex.join(agent.command(*arguments))
    text = re.sub(r"^ExecStart=.*$", f"ExecStart={command}", text, flags=re.MULTILINE)
    environment = "".join(f"Environment={name}={value}\n" for name, value in agent.dongle.environment.items())
    writable = f"ReadWritePaths={agent.directory} {agent.dongle.directory}\n"
    return text.replace("[Service]\n", f"[Service]\n{environment}{writable}", 1)


def test_the_agent_works_behind_its_units_hardening(start_agent: AgentMaker, manager: ServiceManager) -> None:
    agent = start_agent(unlock=False)
    agent.halt()
    manager.install("proxyagent.service", as_tested("proxyagent.service", agent, "serve"))
    manager.control("start", "proxyagent.service")
    assert manager.property("proxyagent.service", "SystemCallFilter")
    agent.unlock()
    status = robot_status(agent)
    assert status.confined
    assert status.level == "ok"
    obtain_proxy(agent.socket, agent.profile, 60, timeout_seconds=SECONDS).close()
    manager.control("stop", "proxyagent.service")
    assert manager.property("proxyagent.service", "Result") == "success"


def test_the_pin_is_asked_for_behind_its_units_hardening(start_agent: AgentMaker, manager: ServiceManager) -> None:
    agent = start_agent(unlock=False)
    root = Path(f"/proc/{manager.pid}/root")  # of the manager, which has a /run of its own
    questions = root / "run/systemd/ask-password"
    questions.mkdir(parents=True)
    manager.install("proxyagent-renew@.service", as_tested("proxyagent-renew@.service", agent, "plugged"))
    manager.control("start", "proxyagent-renew@dongle.service")
    wait_until(lambda: any(questions.glob("ask.*")))
    (question,) = questions.glob("ask.*")
    answer_to = re.search(r"^Socket=(.*)$", question.read_text(), re.MULTILINE)
    assert answer_to is not None
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.sendto(f"+{agent.dongle.pin}".encode(), f"{root}{answer_to[1]}")
    wait_until(lambda: manager.property("proxyagent-renew@dongle.service", "SubState") != "running")
    assert manager.property("proxyagent-renew@dongle.service", "SubState") == "exited"
    assert robot_status(agent).session is not None
    # Another event for it, and its end, as when it is pulled.
    manager.control("restart", "proxyagent-renew@dongle.service")
    manager.control("stop", "proxyagent-renew@dongle.service")
    assert manager.property("proxyagent-renew@dongle.service", "Result") == "success"


def test_a_pulled_dongles_question_is_withdrawn_by_systemd(start_agent: AgentMaker, manager: ServiceManager) -> None:
    agent = start_agent(unlock=False)
    questions = Path(f"/proc/{manager.pid}/root/run/systemd/ask-password")
    questions.mkdir(parents=True)
    manager.install("proxyagent-renew@.service", as_tested("proxyagent-renew@.service", agent, "plugged"))
    manager.control("start", "proxyagent-renew@dongle.service")
    wait_until(lambda: any(questions.glob("ask.*")))
    manager.control("stop", "proxyagent-renew@dongle.service")  # what BindsTo= does
    assert list(questions.iterdir()) == []
    assert manager.property("proxyagent-renew@dongle.service", "Result") == "success"
