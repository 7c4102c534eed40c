"""Setting up a dongle from the command line: every kind of key, the request, the certificate, and then proxies."""

import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from mover.sandbox.agent import Agent
from mover.sandbox.ca import CertificateAuthority
from mover.sandbox.dongle import Dongle
from proxyagent.client import obtain_proxy
from proxyagent.verify import verify_chain
from tests.integration.proxyagent.conftest import AgentMaker, robot_status

SECONDS = 120.0


def init(agent: Agent, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        agent.command("init", "--identity", "robot", *arguments),
        input=f"{agent.dongle.pin}\n",
        capture_output=True,
        check=False,
        timeout=SECONDS,
        text=True,
        env={**os.environ, **agent.dongle.environment},
    )


@pytest.mark.parametrize("kind", ["rsa-3072", "rsa-4096", "ec-p256"])
def test_a_new_key_of_every_kind_comes_to_proxies(
    start_agent: AgentMaker, authority: CertificateAuthority, dongle: Dongle, tmp_path: Path, kind: str
) -> None:
    agent = start_agent(unlock=False)
    agent.halt()
    # Beside the key that is there already: the object= of the URI says which one is meant.
    agent.config.write_text(agent.config.read_text().replace(dongle.uri, f"{dongle.uri};object=second"))
    request = tmp_path / "robot.csr"
    made = init(agent, "--label", "second", "--key", kind, "--subject", "CN=Second,C=UK", "--request", str(request))
    assert made.returncode == 0, made.stderr
    assert f"made a key ({kind}) on the dongle" in made.stderr
    csr = x509.load_pem_x509_csr(request.read_bytes())
    assert csr.is_signature_valid
    key = csr.public_key()
    assert isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey)
    assert f"{key.key_size}" in kind
    certificate = tmp_path / "robot.pem"
    robot = authority.issue_robot(f"Robot - {kind}", key)
    certificate.write_bytes(robot.public_bytes(serialization.Encoding.PEM))
    # The certificate of another key is refused.
    other = tmp_path / "other.pem"
    other.write_bytes(dongle.certificate.public_bytes(serialization.Encoding.PEM))
    refused = init(agent, "--certificate", str(other))
    assert refused.returncode == 9
    assert "not for the dongle's key" in refused.stderr
    assert init(agent, "--certificate", str(certificate)).returncode == 0
    agent.start()
    agent.unlock()
    assert robot_status(agent).session is not None
    with obtain_proxy(agent.socket, agent.profile, 600, timeout_seconds=SECONDS) as proxy:
        assert proxy.identity == f"/C=UK/O=Sandbox/CN=Robot - {kind}"
        verify_chain(Path(proxy.path).read_text(), authority.directory, now=datetime.now(UTC))


def test_an_earlier_request_is_not_overwritten(start_agent: AgentMaker, tmp_path: Path) -> None:
    agent = start_agent(unlock=False)
    request = tmp_path / "robot.csr"
    request.write_text("precious")
    refused = init(agent, "--request", str(request))
    assert refused.returncode == 3
    assert "exists already" in refused.stderr
    assert request.read_text() == "precious"
