"""PINs: one attempt per human entry, never twice the same wrong one, never on a dongle that is about to lock."""

import os
import subprocess

import pytest

from mover.sandbox.agent import Agent
from proxyagent.client import obtain_proxy, unlock_agent
from proxyagent.errors import PinAtRiskError
from tests.integration.proxyagent.conftest import AgentMaker, Shim, pin_of, robot_status

SECONDS = 20.0
PIN_PAD = 0x100  # CKF_PROTECTED_AUTHENTICATION_PATH
LOW, FINAL, LOCKED = 0x10000, 0x20000, 0x40000  # CKF_USER_PIN_…
CKR_GENERAL_ERROR = 5
CKR_PIN_INCORRECT = 0xA0


def renew(agent: Agent, pin: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        agent.command("renew"), input=f"{pin}\n", capture_output=True, check=False, timeout=SECONDS, text=True
    )


def pin_state(agent: Agent) -> str | None:
    return robot_status(agent).dongle.pin_state


def test_a_wrong_pin_costs_one_attempt_and_is_not_sent_again(start_agent: AgentMaker, shim: Shim) -> None:
    agent = start_agent(unlock=False)
    wrong = "0" * 9
    first = renew(agent, wrong)
    assert first.returncode == 10
    assert "error: dongle" in first.stderr
    assert "CKR_PIN_INCORRECT" in first.stderr
    assert "hint: " in first.stderr
    assert shim.logins == 1
    assert pin_state(agent) == "low"
    again = renew(agent, wrong)
    assert again.returncode == 10
    assert "was not sent again" in again.stderr
    assert "warning: a wrong PIN" in again.stderr
    assert shim.logins == 1
    right = renew(agent, agent.dongle.pin)
    assert right.returncode == 0, right.stderr
    assert shim.logins == 2
    assert pin_state(agent) == "ok"
    output = agent.log + first.stderr + again.stderr + right.stderr + right.stdout
    assert wrong not in output
    assert agent.dongle.pin not in output


def test_any_error_of_the_login_counts_and_may_be_repeated_once(start_agent: AgentMaker, shim: Shim) -> None:
    agent = start_agent(unlock=False)
    shim.set("login_rv", CKR_GENERAL_ERROR)
    failed = renew(agent, agent.dongle.pin)
    assert failed.returncode == 10
    assert "CKR_GENERAL_ERROR" in failed.stderr
    assert "enter the PIN once more; the second refusal is final" in failed.stderr
    again = renew(agent, agent.dongle.pin)
    assert again.returncode == 10
    assert "once more" not in again.stderr
    shim.clear("login_rv")
    refused = renew(agent, agent.dongle.pin)
    assert "was not sent again" in refused.stderr
    assert "restart the agent" in refused.stderr
    assert shim.logins == 2
    # A person who is sure may insist.
    agent.halt()
    agent.start()
    agent.unlock()
    assert shim.logins == 3


def test_a_pin_refused_just_after_plugging_may_be_entered_once_more(start_agent: AgentMaker, shim: Shim) -> None:
    agent = start_agent(unlock=False)
    assert robot_status(agent).dongle.present
    shim.set("removed")
    assert not robot_status(agent).dongle.present
    shim.clear("removed")
    shim.set("login_rv", CKR_PIN_INCORRECT)
    refused = renew(agent, agent.dongle.pin)
    assert refused.returncode == 10
    assert "a right PIN may be refused just after plugging" in refused.stderr
    shim.clear("login_rv")
    agent.unlock()
    assert shim.logins == 2


@pytest.mark.parametrize(("flag", "message"), [(FINAL, "would lock the dongle"), (LOCKED, "PIN is locked")])
def test_no_pin_is_sent_to_a_dongle_that_may_lock(start_agent: AgentMaker, shim: Shim, flag: int, message: str) -> None:
    agent = start_agent(unlock=False)
    shim.set("flags", flag)
    with pin_of(agent.dongle) as pin, pytest.raises(PinAtRiskError, match=message):
        unlock_agent(agent.socket, pin, timeout_seconds=SECONDS)
    assert shim.logins == 0
    # It was not an attempt, so that the same PIN may be sent when the dongle is in order again.
    shim.clear("flags")
    agent.unlock()
    assert shim.logins == 1


@pytest.mark.parametrize("command", ["renew", "init"])
@pytest.mark.parametrize(
    ("flags", "message"), [(FINAL, "would lock the dongle"), (LOCKED, "PIN is locked"), (LOCKED | PIN_PAD, "is locked")]
)
def test_no_pin_is_asked_for_that_would_not_be_sent(
    start_agent: AgentMaker, shim: Shim, command: str, flags: int, message: str
) -> None:
    agent = start_agent(unlock=False)
    shim.set("flags", flags)
    done = subprocess.run(
        ["sh", "-c", '"$@"; echo "exit $?"; cat', "sh", *agent.command(command)],
        env={**os.environ, **agent.dongle.environment},
        input="left in the pipe\n",
        capture_output=True,
        check=True,
        timeout=SECONDS,
        text=True,
    )
    assert done.stdout == "exit 11\nleft in the pipe\n"
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert shim.logins == 0


def test_a_low_count_warns_and_goes_on(start_agent: AgentMaker, shim: Shim) -> None:
    agent = start_agent(unlock=False)
    shim.set("flags", LOW)
    done = renew(agent, agent.dongle.pin)
    assert done.returncode == 0
    assert "warning: a wrong PIN" in done.stderr
    assert "few attempts are left" in agent.log


def shown_session(agent: Agent) -> str:
    shown = subprocess.run(agent.command("status"), capture_output=True, check=False, timeout=SECONDS, text=True)
    (line,) = (line.strip() for line in shown.stdout.splitlines() if line.strip().startswith("session: "))
    return line


def test_a_wrong_pin_leaves_the_session_and_says_that_it_is_not_renewed(agent: Agent) -> None:
    consequence = "will not be renewed until `proxyagent renew` succeeds"
    assert consequence not in shown_session(agent)
    session = robot_status(agent).session
    assert session is not None
    for _ in range(2):  # the second time it is not even sent
        refused = renew(agent, "000000000")
        assert refused.returncode == 10
        assert f"the session stays until {session.not_after:%Y-%m-%d %H:%M:%S} UTC, but {consequence}" in refused.stderr
        assert shown_session(agent).endswith(f"; it {consequence}")
    obtain_proxy(agent.socket, agent.profile, 60, timeout_seconds=SECONDS).close()
    agent.unlock()
    assert consequence not in shown_session(agent)
    # Nothing is lost by what cannot be a PIN.
    assert consequence not in renew(agent, "12\x0134").stderr
    assert consequence not in shown_session(agent)


def test_a_refused_pin_without_a_session_says_nothing_of_one(start_agent: AgentMaker) -> None:
    agent = start_agent(unlock=False)
    assert "session" not in renew(agent, "000000000").stderr
    assert shown_session(agent) == "session: none"


@pytest.mark.parametrize("command", ["renew", "init"])
def test_a_closed_standard_input_is_no_pin(agent: Agent, command: str) -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", *agent.command(command)],
        env={**os.environ, **agent.dongle.environment},
        capture_output=True,
        check=False,
        timeout=SECONDS,
        text=True,
    )
    assert done.returncode == 10
    assert done.stderr.startswith("error: no PIN was entered\nhint: enter the PIN on a terminal")
    assert robot_status(agent).dongle.logged_in


@pytest.mark.parametrize("pin", ["", "12\x0134", "x" * 300])
def test_what_cannot_be_a_pin_is_not_sent(start_agent: AgentMaker, shim: Shim, pin: str) -> None:
    agent = start_agent(unlock=False)
    done = renew(agent, pin)
    assert done.returncode == 10
    assert done.stderr.startswith("error: ")
    assert shim.logins == 0


def test_a_dongle_that_is_out_is_said_before_the_pin_is_asked_for(start_agent: AgentMaker, shim: Shim) -> None:
    agent = start_agent()
    shim.set("removed")
    done = renew(agent, agent.dongle.pin)
    assert done.returncode == 8
    assert "error: no dongle that matches pkcs11:token=" in done.stderr
    assert "hint: plug it in" in done.stderr
    # The session outlives the dongle.
    obtain_proxy(agent.socket, agent.profile, 60, timeout_seconds=SECONDS).close()
    shim.clear("removed")
    agent.unlock()
