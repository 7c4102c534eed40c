"""Robots that log in without a person: a sealed PIN is tried once, and after a failure a person must say so first."""

import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mover.sandbox.agent import Agent
from mover.sandbox.dongle import Dongle
from proxyagent.client import obtain_proxy
from tests.integration.proxyagent.conftest import AgentMaker, Shim, robot_status
from tests.integration.proxyagent.test_helper_matrix import FINAL_TRY, PIN_INCORRECT
from tests.integration.proxyagent.test_module import processes, wait_until, wait_until_none

SECONDS = 60.0
SEALED = 'pin_credential = "robot-pin"'
Sealer = Callable[[str], None]


@pytest.fixture
def seal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sealer]:
    """Puts a PIN where systemd puts decrypted credentials: into a file in memory, of the service's own."""
    directory = Path(tempfile.mkdtemp(prefix="pytest-credentials-", dir="/dev/shm"))  # in memory, as systemd's
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(directory))
    file = directory / "robot-pin"

    def write(pin: str) -> None:
        file.unlink(missing_ok=True)
        file.touch(mode=0o400)
        file.write_text(f"{pin}\n")

    yield write
    file.unlink(missing_ok=True)
    directory.rmdir()


def logged_in(agent: Agent) -> bool:
    return robot_status(agent).session is not None


def pin_retry(agent: Agent) -> subprocess.CompletedProcess[str]:
    return subprocess.run(agent.command("pin", "retry"), capture_output=True, check=False, timeout=SECONDS, text=True)


def test_a_robot_logs_itself_in_and_stays_so_across_restarts(
    start_agent: AgentMaker, seal: Sealer, shim: Shim, dongle: Dongle
) -> None:
    seal(dongle.pin)
    agent = start_agent(identity=SEALED, unlock=False)
    for count in (1, 2):
        wait_until(lambda: logged_in(agent))
        obtain_proxy(agent.socket, agent.profile, 60, timeout_seconds=SECONDS).close()
        status = robot_status(agent)
        assert status.unattended == "ready"
        assert status.plug_before is None
        assert shim.logins == count
        agent.halt()
        agent.start()
    assert dongle.pin not in agent.log


@pytest.mark.parametrize(
    ("sealed", "said"),
    [
        pytest.param("Whxqht+dQJax1aZeCGLxmiAAAAAB", "a stolen disk yields it", id="host"),
        pytest.param(None, "nobody knows", id="unknown"),
        pytest.param("k6iUCUh0RJCQyvL8k8q1UyAAAAAB", None, id="tpm2"),
    ],
)
def test_the_status_says_what_the_pin_is_sealed_to(
    start_agent: AgentMaker, seal: Sealer, dongle: Dongle, sealed: str | None, said: str | None
) -> None:
    seal(dongle.pin)
    file = Path(os.environ["CREDENTIALS_DIRECTORY"], "robot-pin.sealed")
    if sealed is not None:
        file.write_text(sealed)
    try:
        agent = start_agent(identity=SEALED, unlock=False)
        wait_until(lambda: logged_in(agent))
        shown = subprocess.run(agent.command("status"), capture_output=True, check=True, timeout=SECONDS, text=True)
    finally:
        file.unlink(missing_ok=True)
    assert ("sealed PIN: sealed " in shown.stdout) == (said is not None)
    assert (said or "") in shown.stdout
    assert ("the sealed PIN is sealed" in agent.log) == (said is not None)


def test_a_sealed_pin_that_failed_waits_for_a_person_across_restarts(
    start_agent: AgentMaker, seal: Sealer, shim: Shim, dongle: Dongle
) -> None:
    seal("000000000")
    agent = start_agent(identity=SEALED, unlock=False)
    wait_until(lambda: robot_status(agent).unattended == "waits")
    assert shim.logins == 1
    for _ in range(2):
        agent.halt()
        agent.start()
        wait_until(lambda: "and did not log in" in agent.log)
        assert not logged_in(agent)
    assert shim.logins == 1
    # The right PIN alone changes nothing: nobody but a person knows that it is right.
    seal(dongle.pin)
    agent.halt()
    agent.start()
    wait_until(lambda: "and did not log in" in agent.log)
    assert shim.logins == 1
    said = pin_retry(agent)
    assert said.returncode == 0, said.stderr
    assert "tried again" in said.stdout
    wait_until(lambda: logged_in(agent))
    assert shim.logins == 2
    assert "no sealed PIN was waiting" in pin_retry(agent).stdout


def test_a_crash_during_the_attempt_counts_as_one(
    start_agent: AgentMaker, seal: Sealer, shim: Shim, dongle: Dongle
) -> None:
    seal(dongle.pin)
    shim.set("login_hang")
    agent = start_agent(identity=SEALED, unlock=False, settings="module_timeout_seconds = 300.0")
    wait_until(shim.is_hanging)
    (server,) = processes("proxyagent", agent)
    os.kill(server, signal.SIGKILL)
    wait_until_none("proxyagent", agent)
    wait_until_none("proxyagent.hsm_helper", agent)
    shim.clear("login_hang")
    agent.start()
    wait_until(lambda: robot_status(agent).unattended == "waits")
    assert shim.logins == 1
    assert pin_retry(agent).returncode == 0
    wait_until(lambda: logged_in(agent))
    assert shim.logins == 2


def test_a_person_may_log_in_while_the_sealed_pin_waits(
    start_agent: AgentMaker, seal: Sealer, shim: Shim, dongle: Dongle
) -> None:
    seal(dongle.pin)
    shim.set("login_rv", PIN_INCORRECT)
    agent = start_agent(identity=SEALED, unlock=False)
    wait_until(lambda: robot_status(agent).unattended == "waits")
    shim.clear("login_rv")
    # The very PIN failed, so it is not sent; that is what a restart is for.
    agent.halt()
    agent.start()
    agent.unlock()
    assert logged_in(agent)
    assert robot_status(agent).unattended == "waits"


def test_no_sealed_pin_is_sent_to_a_dongle_that_would_lock(
    start_agent: AgentMaker, seal: Sealer, shim: Shim, dongle: Dongle
) -> None:
    seal(dongle.pin)
    shim.set("flags", FINAL_TRY)
    agent = start_agent(identity=SEALED, unlock=False)
    wait_until(lambda: "one more wrong PIN would lock the dongle" in agent.log)
    assert shim.logins == 0


def test_a_credential_on_a_disk_is_refused(
    start_agent: AgentMaker, shim: Shim, dongle: Dongle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if subprocess.run(
        ["stat", "-f", "-c", "%T", tmp_path], capture_output=True, text=True, check=True
    ).stdout.strip() in {"tmpfs", "ramfs"}:
        pytest.skip("needs temporary files on a disk")
    (tmp_path / "robot-pin").write_text(dongle.pin)
    (tmp_path / "robot-pin").chmod(0o400)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    agent = start_agent(identity=SEALED, unlock=False)
    wait_until(lambda: "cannot go on without a person" in agent.log)
    assert shim.logins == 0
    assert not logged_in(agent)


def test_a_persons_wrong_pin_does_not_end_the_renewals_of_a_robot(
    start_agent: AgentMaker, seal: Sealer, dongle: Dongle
) -> None:
    seal(dongle.pin)
    agent = start_agent(identity=SEALED, unlock=False)
    wait_until(lambda: logged_in(agent))
    refused = subprocess.run(
        agent.command("renew"), input="000000000\n", capture_output=True, check=False, timeout=SECONDS, text=True
    )
    shown = subprocess.run(agent.command("status"), capture_output=True, check=False, timeout=SECONDS, text=True)
    assert refused.returncode == 10
    assert "will not be renewed" not in refused.stderr + shown.stdout
    wait_until(lambda: robot_status(agent).dongle.logged_in)
