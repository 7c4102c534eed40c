"""The shipped unit, run by a real systemd: nothing in its hardening keeps the agent from its work."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from mover.sandbox.agent import Agent
from proxyagent.client import obtain_proxy
from tests.cgroups import Cgroup, ServiceManager
from tests.integration.proxyagent.conftest import AgentMaker, robot_status

SECONDS = 60.0
UNIT = Path(__file__).parents[3] / "systemd" / "proxyagent.service"

#: What only the system's own manager can do, what would hide the test's own files from the agent, and what mounts
#: /dev, /proc and /sys again, which a container does not allow.
NOT_HERE = (
    *("User", "Group", "StateDirectory", "StateDirectoryMode", "Requires", "After"),
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


def as_tested(agent: Agent) -> str:
    """The unit with its program, and without what is not here."""
    text = UNIT.read_text()
    for name in NOT_HERE:
        text = re.sub(rf"^{name}=.*\n", "", text, flags=re.MULTILINE)
    command = shlex.join(agent.command("serve"))
    text = re.sub(r"^ExecStart=.*$", f"ExecStart={command}", text, flags=re.MULTILINE)
    environment = "".join(f"Environment={name}={value}\n" for name, value in agent.dongle.environment.items())
    writable = f"ReadWritePaths={agent.directory} {agent.dongle.directory}\n"
    return text.replace("[Service]\n", f"[Service]\n{environment}{writable}", 1)


def test_the_agent_works_behind_its_units_hardening(start_agent: AgentMaker, manager: ServiceManager) -> None:
    agent = start_agent(unlock=False)
    agent.halt()
    manager.install("proxyagent.service", as_tested(agent))
    manager.control("start", "proxyagent.service")
    assert manager.property("proxyagent.service", "SystemCallFilter")
    agent.unlock()
    status = robot_status(agent)
    assert status.confined
    assert status.level == "ok"
    obtain_proxy(agent.socket, agent.profile, 60, timeout_seconds=SECONDS).close()
    manager.control("stop", "proxyagent.service")
    assert manager.property("proxyagent.service", "Result") == "success"
