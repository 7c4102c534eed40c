"""A profile's units, with real cgroups: the right one is served, and another, or none, gets nothing."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from mover.sandbox.agent import Agent
from tests.cgroups import Cgroup
from tests.integration.proxyagent.conftest import AgentMaker

SECONDS = 60.0
CLIENT = """
import sys
from pathlib import Path
from proxyagent.client import obtain_proxy
from proxyagent.errors import DeniedError
try:
    obtain_proxy(Path(sys.argv[1]), "narrow", 60, timeout_seconds=30).close()
    print("issued")
except DeniedError as error:
    print(error.message)
"""


@pytest.fixture
def cgroup() -> Iterator[Cgroup]:
    cgroup = Cgroup()
    yield cgroup
    cgroup.remove()


@pytest.fixture
def agent(start_agent: AgentMaker) -> Agent:
    profile = f'[[profile]]\nname = "narrow"\nidentity = "robot"\nuids = [{os.geteuid()}]\nunits = ["mover.service"]\n'
    return start_agent(profiles=profile)


def ask_from(agent: Agent, cgroup: Cgroup, group: str) -> str:
    client = [sys.executable, "-P", "-c", CLIENT, str(agent.socket)]
    done = subprocess.run(cgroup.command(group, *client), capture_output=True, check=True, timeout=SECONDS, text=True)
    return done.stdout.strip()


def test_only_the_unit_of_the_profile_is_served(agent: Agent, cgroup: Cgroup) -> None:
    assert ask_from(agent, cgroup, "mover.service") == "issued"
    # What a service starts is the service, wherever in its own cgroup it is.
    assert ask_from(agent, cgroup, "mover.service/below/other.service") == "issued"
    for other in ("other.service", "mover@1.service", "user.slice/user@1000.service/app.slice/mover.service"):
        assert "may not use profile 'narrow'" in ask_from(agent, cgroup, other), other
    assert "outside any system service" in ask_from(agent, cgroup, "system.slice")
    audit = "".join(file.read_text() for file in agent.directory.glob("audit-*.jsonl"))
    assert audit.count('"event":"refused"') == 4
