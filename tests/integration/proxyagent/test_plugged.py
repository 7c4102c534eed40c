"""`proxyagent plugged`, as udev has systemd start it: which dongle is asked for its PIN, and which for nothing."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mover.sandbox.agent import Agent
from mover.sandbox.ca import CertificateAuthority
from mover.sandbox.dongle import Dongle
from proxyagent.client import agent_status
from tests.integration.proxyagent.conftest import AgentMaker, Shim, robot_status
from tests.integration.proxyagent.test_askpassword import Agent as Answerer
from tests.integration.proxyagent.test_askpassword import find, wait_for_question
from tests.integration.proxyagent.test_module import wait_until
from tests.integration.proxyagent.test_whose_dongle import exchange, same_label

SECONDS = 120.0
pytestmark = [
    pytest.mark.skipif(shutil.which("systemd-ask-password") is None, reason="needs the package systemd"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: systemd-ask-password serves nobody else"),
]


@contextmanager
def plugged(agent: Agent, *, wait_seconds: float = 1.0) -> Iterator[subprocess.Popen[str]]:
    """The command, as its unit runs it."""
    with subprocess.Popen(
        agent.command("plugged", f"--wait={wait_seconds}"),
        env={**os.environ, "RUNTIME_DIRECTORY": str(agent.directory)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit code, and all that it said."""
    said, _ = process.communicate(timeout=SECONDS)
    return process.returncode, said


def has_open(process: subprocess.Popen[str], file: Path) -> bool:
    return any(path.resolve() == file for path in Path("/proc", str(process.pid), "fd").iterdir())


def question(agent: Agent) -> str:
    return f"proxyagent:{robot_status(agent).dongle.serial}"


def test_the_operator_sees_what_is_plugged_what_is_wanted_and_until_when_it_is_good(start_agent: AgentMaker) -> None:
    agent = start_agent(unlock=False)
    with Answerer(question(agent), f"+{agent.dongle.pin}".encode()) as answerer, plugged(agent) as process:
        code, said = end(process)
    assert code == 0, said
    session = robot_status(agent).session
    assert session is not None
    recognised, good = said.splitlines()
    assert "was recognised; its PIN is wanted" in recognised
    assert f"good until {session.not_after:%Y-%m-%d %H:%M:%S} UTC; the dongle may be unplugged now" in good
    assert str(robot_status(agent).dongle.label) in answerer.question["Message"]
    # Another event for the same dongle asks nobody.
    with plugged(agent) as process:
        code, said = end(process)
    assert (code, "needs no PIN now" in said) == (0, True), said


def test_a_wrong_pin_is_sent_once_and_nobody_is_asked_again(start_agent: AgentMaker, shim: Shim) -> None:
    agent = start_agent(unlock=False)
    identifier = question(agent)
    with plugged(agent) as first:
        wait_for_question(identifier)
        # Another event, as of two dongles plugged together: it has its turn after the first has failed.
        with plugged(agent) as second:
            wait_until(lambda: has_open(second, agent.directory / "asked.json"))
            with Answerer(identifier, b"+000000000"):
                ends = [end(first), end(second)]
    assert sorted(code for code, _ in ends) == [0, 10], ends
    assert shim.logins == 1
    assert sum("no new session" in said for _, said in ends) == 1
    assert robot_status(agent).session is None


def test_a_question_is_withdrawn_when_the_dongle_is_pulled(start_agent: AgentMaker) -> None:
    agent = start_agent(unlock=False)
    identifier = question(agent)
    with plugged(agent) as process:
        path, asked = wait_for_question(identifier)
        # systemd ends a unit that is bound to a device by this, to each of its processes.
        for pid in (int(asked["PID"]), process.pid):
            os.kill(pid, signal.SIGTERM)
        code, _ = end(process)
    assert code != 0
    wait_until(lambda: not path.exists())
    assert find(identifier) is None
    # It was not answered: plugged again, it is asked for again.
    with Answerer(identifier, f"+{agent.dongle.pin}".encode()), plugged(agent) as process:
        assert end(process)[0] == 0


def test_a_dongle_may_take_its_time_to_be_seen(start_agent: AgentMaker, shim: Shim) -> None:
    shim.set("removed")
    agent = start_agent(unlock=False)
    with plugged(agent, wait_seconds=SECONDS) as process:
        wait_until(lambda: not robot_status(agent).dongle.present)
        shim.clear("removed")
        wait_until(lambda: robot_status(agent).dongle.present)
        with Answerer(question(agent), f"+{agent.dongle.pin}".encode()):
            assert end(process)[0] == 0


def test_what_shows_no_dongle_is_an_error(start_agent: AgentMaker, shim: Shim) -> None:
    shim.set("removed")
    agent = start_agent(unlock=False)
    with plugged(agent) as process:
        code, said = end(process)
    assert code == 8
    assert "shows no dongle that could be ours" in said


def test_an_unknown_dongle_raises_an_alarm_and_is_asked_for_nothing(
    start_agent: AgentMaker, shim: Shim, dongle: Dongle, authority: CertificateAuthority
) -> None:
    stranger = Dongle(dongle.directory / "stranger", authority, "Robot - somebody else", label="stranger")
    stranger.plug_beside(dongle)
    agent = start_agent()
    assert shim.logins == 1
    with plugged(agent) as process:
        code, said = end(process)
    assert code == 8, said
    assert "unknown dongle: stranger (serial " in said
    assert shim.logins == 1
    found = agent_status(agent.socket, timeout_seconds=SECONDS)
    assert [each.label for each in found.strangers] == ["stranger"]
    assert found.level == "soon"
    wait_until(lambda: "unknown dongle stranger" in agent.log)
    shown = subprocess.run(agent.command("status"), capture_output=True, text=True, check=False, timeout=SECONDS)
    assert shown.returncode == 16
    assert "unknown dongle: stranger" in shown.stdout


def test_another_identitys_dongle_is_no_stranger(
    start_agent: AgentMaker, dongle: Dongle, authority: CertificateAuthority
) -> None:
    second = Dongle(dongle.directory / "second", authority, "Robot - sandbox reco", label="second")
    second.plug_beside(dongle)
    agent = start_agent(others={"reco": second})
    assert agent_status(agent.socket, timeout_seconds=SECONDS).strangers == ()


def test_a_replaced_dongle_raises_an_alarm_and_is_asked_for_nothing(
    start_agent: AgentMaker, shim: Shim, dongle: Dongle, authority: CertificateAuthority
) -> None:
    exchange(dongle, same_label(dongle, authority, "Robot - somebody else"))
    agent = start_agent(identity='subject = "/C=UK/O=Sandbox/CN=Robot - sandbox mover"', unlock=False)
    with plugged(agent) as process:
        code, said = end(process)
    assert code == 8, said
    assert "holds the certificate of" in said
    assert shim.logins == 0


def test_it_needs_a_directory_of_its_own(agent: Agent, tmp_path: Path) -> None:
    done = subprocess.run(
        agent.command("plugged"),
        env={**os.environ, "RUNTIME_DIRECTORY": str(tmp_path / "none")},
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert done.returncode == 3
    assert "cannot use" in done.stderr
