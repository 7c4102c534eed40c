"""Every fault of a dongle, seen by people and clients: the agent answers in time, says what to do, and works again."""

import subprocess
from dataclasses import dataclass

import pytest

from mover.sandbox.agent import Agent
from mover.sandbox.ca import CertificateAuthority
from mover.sandbox.dongle import Dongle
from proxyagent.client import obtain_proxy
from tests.integration.proxyagent.conftest import AgentMaker, Shim, robot_status
from tests.integration.proxyagent.test_helper_matrix import (
    DEVICE_ERROR,
    DEVICE_REMOVED,
    FINAL_TRY,
    FUNCTION_CANCELED,
    GENERAL_ERROR,
    LOCKED,
    PIN_EXPIRED,
    PIN_INCORRECT,
    PIN_LOCKED,
    PIN_PAD,
    VENDOR,
)

SECONDS = 60.0
SHORT = "module_timeout_seconds = 4.0"


@dataclass(frozen=True)
class Fault:
    """A switch of the module, and what `proxyagent renew` says of it."""

    switch: str
    value: int
    exit_code: int
    says: str
    hint: str
    logins: int = 1

    def __str__(self) -> str:
        return f"{self.switch}={self.value:#x}"


FAULTS = [
    Fault("sign_removes", 1, 8, "the dongle was pulled", "plug it in again"),
    Fault("sign_hang", 1, 12, "did not answer within 4 s and was stopped", "replug the dongle"),
    Fault("sign_crash", 1, 12, "ended (SIGSEGV)", "run `proxyagent renew`"),
    Fault("sign_rv", VENDOR, 12, "0x80000001", "loads the module afresh"),
    Fault("login_hang", 1, 12, "an attempt of the PIN may be used up", "enter the PIN once more"),
    Fault("login_crash", 1, 12, "an attempt of the PIN may be used up", "enter the PIN once more"),
    Fault("login_rv", PIN_INCORRECT, 10, "refused the PIN", "enter the right PIN"),
    Fault("login_rv", PIN_LOCKED, 11, "is locked", "PUK"),
    Fault("login_rv", PIN_EXPIRED, 11, "has expired", "vendor's own tool"),
    Fault("login_rv", VENDOR, 10, "vendor code 0x80000001", "enter the PIN once more"),
    Fault("login_rv", GENERAL_ERROR, 10, "CKR_GENERAL_ERROR", "enter the PIN once more"),
    Fault("login_rv", DEVICE_REMOVED, 10, "CKR_DEVICE_REMOVED", "enter the PIN once more"),
    Fault("open_session_rv", DEVICE_ERROR, 12, "DeviceError", "loads the module afresh", logins=0),
    Fault("flags", FINAL_TRY, 11, "would lock the dongle", "right PIN", logins=0),
    Fault("flags", LOCKED, 11, "PIN is locked", "PUK", logins=0),
    Fault("removed", 1, 8, "no dongle that matches", "plug it in", logins=0),
    Fault("slot_list_rv", GENERAL_ERROR, 12, "GeneralError", "loads the module afresh", logins=0),
    Fault("token_info_crash", 1, 12, "ended (SIGSEGV)", "", logins=0),
    Fault("initialize_hang", 1, 12, "did not answer within 4 s", "", logins=0),
]


def renew(agent: Agent, pin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        agent.command("renew"),
        input="" if pin is None else f"{pin}\n",
        capture_output=True,
        check=False,
        timeout=SECONDS,
        text=True,
    )


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_fault_is_told_with_its_remedy_and_over_when_it_is_gone(
    start_agent: AgentMaker, shim: Shim, fault: Fault
) -> None:
    agent = start_agent(settings=SHORT)
    before = shim.logins
    if fault.switch.startswith("initialize"):
        # Only a module that is loaded afresh is initialised.
        agent.halt()
        agent.start()
        shim.set(fault.switch, fault.value)
        refused = renew(agent, agent.dongle.pin)
        shim.clear(fault.switch)
    else:
        shim.set(fault.switch, fault.value)
        refused = renew(agent, agent.dongle.pin)
        # The session that there is serves its clients all the while.
        obtain_proxy(agent.socket, agent.profile, 60, timeout_seconds=SECONDS).close()
        shim.clear(fault.switch)
    assert refused.returncode == fault.exit_code, refused.stderr
    assert fault.says in refused.stderr
    assert fault.hint in refused.stderr
    assert "Traceback" not in refused.stderr + agent.log
    assert shim.logins == before + fault.logins
    if fault.switch == "sign_removes":
        shim.clear("removed")
    # A PIN that was refused for sure is not sent again; the person who is sure of it restarts the agent.
    if fault.value in {PIN_INCORRECT, PIN_LOCKED} and fault.switch == "login_rv":
        again = renew(agent, agent.dongle.pin)
        assert shim.logins == before + fault.logins
        assert ("was not sent again" in again.stderr) or again.returncode == 0
        agent.halt()
        agent.start()
    done = renew(agent, agent.dongle.pin)
    assert done.returncode == 0, done.stderr
    assert shim.logins == before + fault.logins + 1
    obtain_proxy(agent.socket, agent.profile, 60, timeout_seconds=SECONDS).close()
    assert robot_status(agent).dongle.logged_in


def test_a_pin_pad_asks_the_person_at_the_reader(start_agent: AgentMaker, shim: Shim) -> None:
    agent = start_agent(unlock=False)
    shim.set("flags", PIN_PAD)
    shim.write("pin_pad", agent.dongle.pin)
    done = renew(agent)
    assert done.returncode == 0, done.stderr
    assert "at the reader's pin pad" in done.stderr
    assert shim.logins == 1
    assert robot_status(agent).dongle.pin_pad
    obtain_proxy(agent.socket, agent.profile, 60, timeout_seconds=SECONDS).close()


def test_a_person_who_cancels_at_the_pin_pad_may_try_again(start_agent: AgentMaker, shim: Shim) -> None:
    agent = start_agent(unlock=False)
    shim.set("flags", PIN_PAD)
    shim.set("login_rv", FUNCTION_CANCELED)
    cancelled = renew(agent)
    assert cancelled.returncode == 10
    assert "was cancelled at the reader" in cancelled.stderr
    shim.clear("login_rv")
    shim.write("pin_pad", agent.dongle.pin)
    assert renew(agent).returncode == 0
    assert shim.logins == 2


def test_nobody_at_the_pin_pad_meets_a_deadline(start_agent: AgentMaker, shim: Shim) -> None:
    agent = start_agent(settings="pin_pad_timeout_seconds = 3.0", unlock=False)
    shim.set("flags", PIN_PAD)
    shim.set("login_hang")
    silent = renew(agent)
    assert silent.returncode == 10
    assert "nobody entered the PIN at the reader in time" in silent.stderr
    shim.clear("login_hang")
    shim.write("pin_pad", agent.dongle.pin)
    assert renew(agent).returncode == 0


def test_a_pin_pad_that_is_not_wanted_is_not_used(start_agent: AgentMaker, shim: Shim) -> None:
    agent = start_agent(identity="pin_pad = false", unlock=False)
    shim.set("flags", PIN_PAD)
    assert renew(agent, agent.dongle.pin).returncode == 0


def test_another_dongle_with_the_same_label_signs_nothing_and_is_asked_for_nothing(
    start_agent: AgentMaker, shim: Shim, authority: CertificateAuthority
) -> None:
    agent = start_agent()
    tokens = agent.dongle.directory / "tokens"
    tokens.rename(agent.dongle.directory / "own")
    label = agent.dongle.uri.removeprefix("pkcs11:token=").replace("%20", " ")
    other = Dongle(agent.dongle.directory / "other", authority, "Robot - somebody else", label=label)
    (other.directory / "tokens").rename(tokens)
    logins = shim.logins
    for pin in (agent.dongle.pin, other.pin):
        refused = renew(agent, pin)
        assert refused.returncode in {8, 12}, refused.stderr
    refused = renew(agent, other.pin)
    assert "holds the certificate of /C=UK/O=Sandbox/CN=Robot - somebody else, not of" in refused.stderr
    assert "nothing was asked of this one" in refused.stderr
    assert shim.logins == logins
    # What clients get is still the right robot's.
    with obtain_proxy(agent.socket, agent.profile, 60, timeout_seconds=SECONDS) as proxy:
        assert proxy.identity.endswith("Robot - sandbox mover")
    tokens.rename(agent.dongle.directory / "away")
    (agent.dongle.directory / "own").rename(tokens)
    # The module may have kept what it knew of the other one; it is loaded afresh.
    done = renew(agent, agent.dongle.pin)
    done = done if done.returncode == 0 else renew(agent, agent.dongle.pin)
    assert done.returncode == 0, done.stderr


def test_the_subject_in_the_configuration_is_demanded_even_without_a_session(
    start_agent: AgentMaker, shim: Shim
) -> None:
    agent = start_agent(identity='subject = "/C=UK/O=Sandbox/CN=Robot - another"', unlock=False)
    refused = renew(agent, agent.dongle.pin)
    assert refused.returncode == 8
    assert "not of /C=UK/O=Sandbox/CN=Robot - another" in refused.stderr
    assert shim.logins == 0


def test_a_pulled_dongle_takes_the_session_along_if_the_policy_says_so(start_agent: AgentMaker, shim: Shim) -> None:
    agent = start_agent(settings='on_removal = "wipe"')
    obtain_proxy(agent.socket, agent.profile, 60, timeout_seconds=SECONDS).close()
    shim.set("removed")
    status = robot_status(agent)
    assert status.session is None
    assert status.level == "expired"
    shim.clear("removed")
    assert robot_status(agent).session is None
    assert renew(agent, agent.dongle.pin).returncode == 0
    assert "session-wiped" in "".join(file.read_text() for file in agent.directory.glob("audit-*.jsonl"))
