"""From the dongle to a client's proxy: what comes out is a chain that Grid software accepts."""

import gc
import json
import os
import subprocess
import weakref
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from mover.sandbox.agent import Agent
from mover.sandbox.ca import CertificateAuthority
from proxyagent.chain import certificates_from_pem
from proxyagent.client import obtain_proxy
from proxyagent.errors import AgentUnreachableError, DeniedError, NoSessionError, RequestError
from proxyagent.proxy import Language, ProxyInfo, proxy_info
from proxyagent.verify import verify_chain
from tests.integration.proxyagent.conftest import AgentMaker, robot_status

SECONDS = 20.0


def chain_of(path: str) -> tuple[x509.Certificate, ...]:
    return certificates_from_pem(Path(path).read_text())


def test_a_client_proxy_is_a_chain_down_from_the_dongle(
    agent: Agent, authority: CertificateAuthority, tmp_path: Path
) -> None:
    before = datetime.now(UTC)
    with obtain_proxy(agent.socket, agent.profile, 600, timeout_seconds=SECONDS) as proxy:
        pem = Path(proxy.path).read_text()
        leaf, session, eec = certificates_from_pem(pem)
        assert eec == agent.dongle.certificate
        assert session.not_valid_after_utc - before > timedelta(hours=11, minutes=59)
        assert proxy.not_after == leaf.not_valid_after_utc
        assert timedelta(seconds=590) < proxy.not_after - before < timedelta(seconds=610)
        assert proxy.identity == "/C=UK/O=Sandbox/CN=Robot - sandbox mover"
        assert proxy.subject.startswith(f"{proxy.identity}/CN=")
        verify_chain(pem, authority.directory)
        file = tmp_path / "chain.pem"
        file.write_text("".join(part for part in pem.partition("-----BEGIN RSA")[0]))
        command = ["openssl", "verify", "-allow_proxy_certs", "-CApath", str(authority.directory)]
        (tmp_path / "rest.pem").write_text(pem.rpartition("-----END RSA PRIVATE KEY-----\n")[2])
        subprocess.run([*command, "-untrusted", str(tmp_path / "rest.pem"), str(file)], check=True, timeout=SECONDS)


def test_the_profile_decides(start_agent: AgentMaker) -> None:
    profiles = f"""
    [[profile]]
    name = "short"
    max_lifetime_seconds = 60
    limited = true
    path_length = 0
    uids = [{os.geteuid()}]

    [[profile]]
    name = "others"
    uids = [4000000000]
    """
    agent = start_agent(settings="session_lifetime_seconds = 300", profiles=profiles)
    with obtain_proxy(agent.socket, "short", 3600, timeout_seconds=SECONDS) as proxy:
        leaf, session, _ = chain_of(proxy.path)
        assert proxy_info(leaf) == ProxyInfo(Language.LIMITED, 0)
        assert proxy.not_after - datetime.now(UTC) <= timedelta(seconds=60)
    # The session's end clamps what the profile would allow.
    with obtain_proxy(agent.socket, agent.profile, 7200, timeout_seconds=SECONDS) as proxy:
        assert proxy_info(chain_of(proxy.path)[0]) == ProxyInfo(Language.INHERIT_ALL)
        assert proxy.not_after == session.not_valid_after_utc
    with pytest.raises(DeniedError):
        obtain_proxy(agent.socket, "others", 60, timeout_seconds=SECONDS)
    with pytest.raises(RequestError, match="no profile"):
        obtain_proxy(agent.socket, "nothing", 60, timeout_seconds=SECONDS)
    with pytest.raises(RequestError, match="can be asked for"):
        obtain_proxy(agent.socket, "short", 0, timeout_seconds=SECONDS)


def test_every_proxy_has_a_key_of_its_own(agent: Agent) -> None:
    proxies = [obtain_proxy(agent.socket, agent.profile, 60, timeout_seconds=SECONDS) for _ in range(3)]
    keys = set()
    for proxy in proxies:
        key = chain_of(proxy.path)[0].public_key()
        assert isinstance(key, rsa.RSAPublicKey)
        keys.add(key.public_numbers().n)
    assert len(keys) == 3


def test_a_proxy_is_gone_when_nobody_holds_it(agent: Agent) -> None:
    proxy = obtain_proxy(agent.socket, agent.profile, 60, timeout_seconds=SECONDS)
    path, reference = Path(proxy.path), weakref.ref(proxy)
    assert "memfd:" in str(path.readlink())
    del proxy
    gc.collect()
    assert reference() is None
    assert not path.exists() or "memfd:" not in str(path.readlink())
    closed = obtain_proxy(agent.socket, agent.profile, 60, timeout_seconds=SECONDS)
    closed.close()
    closed.close()
    with pytest.raises(ValueError, match="closed"):
        _ = closed.path


def test_without_a_session_the_remedy_is_named(start_agent: AgentMaker) -> None:
    agent = start_agent(unlock=False)
    with pytest.raises(NoSessionError) as caught:
        obtain_proxy(agent.socket, agent.profile, 60, timeout_seconds=SECONDS)
    assert "proxyagent renew" in caught.value.hint
    agent.unlock()
    obtain_proxy(agent.socket, agent.profile, 60, timeout_seconds=SECONDS).close()
    # The session is in memory only.
    agent.halt()
    with pytest.raises(AgentUnreachableError):
        obtain_proxy(agent.socket, agent.profile, 60, timeout_seconds=SECONDS)
    agent.start()
    with pytest.raises(NoSessionError):
        obtain_proxy(agent.socket, agent.profile, 60, timeout_seconds=SECONDS)


def test_status_tells_session_dongle_and_profiles(start_agent: AgentMaker) -> None:
    agent = start_agent(unlock=False)
    status = robot_status(agent)
    assert status.session is None
    assert status.dongle.present
    assert not status.dongle.logged_in
    agent.unlock()
    shown = subprocess.run(agent.command("status", "--json"), capture_output=True, check=True, timeout=SECONDS)
    values = json.loads(shown.stdout)
    assert values["level"] == "ok"
    (robot,) = values["identities"]
    assert robot["session"]["identity"] == "/C=UK/O=Sandbox/CN=Robot - sandbox mover"
    assert datetime.fromisoformat(robot["session"]["not_after"]) > datetime.now(UTC)
    assert robot["dongle"]["pin_state"] == "ok"
    assert robot["dongle"]["logged_in"] is True
    assert values["profiles"] == ["mover"]
    plain = subprocess.run(agent.command("status"), capture_output=True, check=True, timeout=SECONDS, text=True)
    assert f"serial {robot['dongle']['serial']}" in plain.stdout


def test_exec_runs_a_command_with_a_working_proxy(agent: Agent, authority: CertificateAuthority) -> None:
    script = 'cat "$X509_USER_PROXY"; test -z "$X509_USER_KEY" || exit 1; exit 7'
    done = subprocess.run(
        agent.command("exec", "--lifetime", "60", "--", "sh", "-c", script),
        capture_output=True,
        check=False,
        timeout=SECONDS,
        text=True,
        env={**os.environ, "X509_USER_KEY": "/elsewhere"},
    )
    assert done.returncode == 7, done.stderr
    assert "BEGIN RSA PRIVATE KEY" in done.stdout
    verify_chain(done.stdout, authority.directory)


def test_exec_says_what_is_wrong_with_the_command(agent: Agent) -> None:
    done = subprocess.run(
        agent.command("exec", "--", "no-such-command"), capture_output=True, check=False, timeout=SECONDS, text=True
    )
    assert done.returncode == 127
    assert "error: cannot run no-such-command" in done.stderr
    assert "hint:" in done.stderr
