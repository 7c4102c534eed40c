"""Several dongles at once, one identity each: none is taken for another, and a sick one holds up no other."""

import os
import subprocess

import pytest

from mover.sandbox.agent import Agent
from mover.sandbox.ca import CertificateAuthority
from mover.sandbox.dongle import Dongle
from proxyagent.client import agent_status, obtain_proxy
from proxyagent.errors import NoSessionError
from proxyagent.messages import IdentityStatus
from tests.integration.proxyagent.conftest import AgentMaker, Shim
from tests.integration.proxyagent.test_module import wait_until

SECONDS = 60.0


@pytest.fixture
def second(dongle: Dongle, authority: CertificateAuthority) -> Dongle:
    """Another dongle in the same computer."""
    second = Dongle(dongle.directory / "second", authority, "Robot - sandbox reco")
    second.plug_beside(dongle)
    return second


@pytest.fixture
def agent(start_agent: AgentMaker, second: Dongle) -> Agent:
    """An agent for both, with nothing unlocked."""
    profile = f'[[profile]]\nname = "reco"\nidentity = "reco"\nlimited = true\nuids = [{os.geteuid()}]\n'
    return start_agent(others={"reco": second}, profiles=profile, unlock=False)


def renew(agent: Agent, pin: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        agent.command("renew", *arguments),
        input=f"{pin}\n",
        capture_output=True,
        check=False,
        timeout=SECONDS,
        text=True,
    )


def status(agent: Agent) -> dict[str, IdentityStatus]:
    return {each.name: each for each in agent_status(agent.socket, timeout_seconds=SECONDS).identities}


def test_each_identity_has_its_own_session(agent: Agent, second: Dongle) -> None:
    unclear = renew(agent, agent.dongle.pin)
    assert unclear.returncode == 4
    assert "choose with --identity: robot, reco" in unclear.stderr
    assert renew(agent, second.pin, "--identity", "reco").returncode == 0
    with pytest.raises(NoSessionError):
        obtain_proxy(agent.socket, "mover", 60, timeout_seconds=SECONDS)
    with obtain_proxy(agent.socket, "reco", 60, timeout_seconds=SECONDS) as proxy:
        assert proxy.identity == "/C=UK/O=Sandbox/CN=Robot - sandbox reco"
    assert renew(agent, agent.dongle.pin, "--identity", "robot").returncode == 0
    with obtain_proxy(agent.socket, "mover", 60, timeout_seconds=SECONDS) as proxy:
        assert proxy.identity == "/C=UK/O=Sandbox/CN=Robot - sandbox mover"
    found = status(agent)
    assert found["robot"].dongle.serial != found["reco"].dongle.serial
    assert all(each.dongle.logged_in and each.level == "ok" for each in found.values())


def test_a_pin_goes_to_no_other_dongle(agent: Agent, second: Dongle) -> None:
    wrong = renew(agent, second.pin, "--identity", "robot")
    assert wrong.returncode == 10
    found = status(agent)
    assert found["robot"].dongle.pin_state == "low"
    assert found["reco"].dongle.pin_state == "ok"
    assert renew(agent, second.pin, "--identity", "reco").returncode == 0


def test_a_hanging_dongle_holds_up_no_other(
    start_agent: AgentMaker, second: Dongle, dongle: Dongle, shim: Shim
) -> None:
    profile = f'[[profile]]\nname = "reco"\nidentity = "reco"\nuids = [{os.geteuid()}]\n'
    agent = start_agent(
        settings="module_timeout_seconds = 300.0", profiles=f"{second.config('reco')}\n{profile}", unlock=False
    )
    assert dongle.module == shim.module
    shim.set("login_hang")
    with subprocess.Popen(
        agent.command("renew", "--identity", "robot"), stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as hanging:
        try:
            assert hanging.stdin is not None
            hanging.stdin.write(f"{agent.dongle.pin}\n".encode())
            hanging.stdin.close()
            wait_until(shim.is_hanging)
            assert renew(agent, second.pin, "--identity", "reco").returncode == 0
            obtain_proxy(agent.socket, "reco", 60, timeout_seconds=SECONDS).close()
            agent.halt()
        finally:
            hanging.kill()


def test_a_uri_that_means_both_is_refused_with_their_names(
    start_agent: AgentMaker, second: Dongle, dongle: Dongle
) -> None:
    agent = start_agent(unlock=False)
    agent.halt()
    agent.config.write_text(agent.config.read_text().replace(dongle.uri, "pkcs11:manufacturer=SoftHSM%20project"))
    agent.start()
    refused = renew(agent, dongle.pin)
    assert refused.returncode == 8
    assert "several dongles match" in refused.stderr
    for each in (dongle, second):
        assert each.uri.removeprefix("pkcs11:token=").replace("%20", " ") in refused.stderr


def test_all_dongles_are_listed_without_a_pin(agent: Agent, second: Dongle, dongle: Dongle) -> None:
    shown = subprocess.run(
        agent.command("dongles"),
        capture_output=True,
        check=True,
        timeout=SECONDS,
        text=True,
        env={**os.environ, **dongle.environment},
    ).stdout
    for each in (dongle, second):
        assert each.uri.removeprefix("pkcs11:token=").replace("%20", " ") in shown
        assert each.pin not in shown
    for line in ("key robot", "RSA 2048", "CN=Robot - sandbox mover", "CN=Robot - sandbox reco", "PIN ok"):
        assert line in shown
    assert shown.count("uri: pkcs11:serial=") == 2
