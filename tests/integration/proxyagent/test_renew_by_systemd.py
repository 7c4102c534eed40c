"""`proxyagent renew --ask-password`: a person answers wherever systemd asks, as when udev has started the renewal."""

import os
import shutil
import subprocess

import pytest

from mover.sandbox.agent import Agent
from tests.integration.proxyagent.conftest import AgentMaker, robot_status
from tests.integration.proxyagent.test_askpassword import Agent as Answerer

SECONDS = 60.0
pytestmark = [
    pytest.mark.skipif(shutil.which("systemd-ask-password") is None, reason="needs the package systemd"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: systemd-ask-password serves nobody else"),
]


def renew(agent: Agent) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        agent.command("renew", "--ask-password"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=SECONDS,
        text=True,
    )


def test_the_answer_unlocks_the_agent(start_agent: AgentMaker) -> None:
    agent = start_agent(unlock=False)
    dongle = robot_status(agent).dongle
    with Answerer(f"proxyagent:{dongle.serial}", f"+{agent.dongle.pin}".encode()) as answerer:
        done = renew(agent)
    assert done.returncode == 0, done.stderr
    assert "may be unplugged now" in done.stdout
    assert robot_status(agent).session is not None
    assert str(dongle.label) in answerer.question["Message"]
    assert agent.dongle.pin.encode() not in answerer.command


def test_a_person_who_cancels_costs_no_attempt(start_agent: AgentMaker) -> None:
    agent = start_agent(unlock=False)
    with Answerer(f"proxyagent:{robot_status(agent).dongle.serial}", b"-"):
        done = renew(agent)
    assert done.returncode == 10
    assert "error: " in done.stderr
    assert robot_status(agent).dongle.pin_state == "ok"
