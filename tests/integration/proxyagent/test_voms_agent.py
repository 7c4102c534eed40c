"""From the dongle to a proxy with VOMS attributes, by the real VOMS server and the process that fetches them."""

import base64
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from mover.sandbox.agent import Agent
from mover.sandbox.ca import CertificateAuthority
from mover.sandbox.process import ServerProcess
from mover.sandbox.voms import VomsServer
from proxyagent import policy
from proxyagent.chain import certificates_from_pem
from proxyagent.client import obtain_proxy
from proxyagent.connection import ask
from proxyagent.errors import DeniedError, NoSessionError, VomsError, VomsRefusedError
from proxyagent.messages import (
    IssueAnswer,
    VomsDeliverRequest,
    VomsProxyRequest,
    VomsWaitRequest,
    WantedAttributes,
    parse_answer,
)
from proxyagent.protocol import Message
from proxyagent.proxy import Language, ProxyInfo, proxy_info
from proxyagent.request import make_request, new_key
from proxyagent.voms.service import VomsFetcher
from tests.integration.proxyagent.conftest import AgentMaker, robot_status
from tests.integration.proxyagent.test_module import wait_until
from tests.integration.voms_server import need_voms_server
from tests.voms_maker import AcMaker

SECONDS = 60.0
NAME = "/C=UK/O=Sandbox/CN=Robot - sandbox mover"
PRODUCTION = "/mice/Role=production"
VOMS = "1.3.6.1.4.1.8005.100.100.5"


@pytest.fixture(scope="module")
def voms(tmp_path_factory: pytest.TempPathFactory, authority: CertificateAuthority) -> Iterator[VomsServer]:
    need_voms_server()
    server = VomsServer(
        tmp_path_factory.mktemp("voms") / "server", authority, members={NAME: [PRODUCTION]}, longest_seconds=7200
    )
    try:
        server.start()
        yield server
    finally:
        server.close()


def configuration(voms: VomsServer) -> str:
    uid = os.geteuid()
    sections = f'[voms]\nuid = {uid}\nvomses = "{voms.vomses}"\nvomsdir = "{voms.vomsdir}"\nlifetime_seconds = 43200\n'
    for name, fqan in (("production", PRODUCTION), ("manager", "/mice/Role=manager")):
        sections += f'[[profile]]\nname = "{name}"\nidentity = "robot"\nfqans = ["{fqan}"]\nuids = [{uid}]\n'
    return sections


@pytest.fixture
def agent(start_agent: AgentMaker, voms: VomsServer) -> Agent:
    return start_agent(profiles=configuration(voms), unlock=False)


@contextmanager
def fetcher(agent: Agent) -> Iterator[ServerProcess]:
    """`proxyagent voms`, as its own process."""
    process = ServerProcess(
        "voms-fetcher", agent.command("voms"), directory=agent.directory, package="", environment=dict(os.environ)
    )
    process.start(lambda log: "serves the agent" in log, seconds=SECONDS)
    try:
        yield process
    finally:
        process.stop()


def attributes_in(certificate: x509.Certificate) -> x509.ExtensionType | None:
    return next((each.value for each in certificate.extensions if each.oid.dotted_string == VOMS), None)


def test_a_proxy_carries_what_the_server_granted(agent: Agent, authority: CertificateAuthority) -> None:
    with fetcher(agent):
        # Nothing is fetched before there is a session, and everything soon after.
        with pytest.raises(NoSessionError):
            obtain_proxy(agent.socket, "production", 600, timeout_seconds=SECONDS)
        agent.unlock()
        with obtain_proxy(agent.socket, "production", 86400, timeout_seconds=SECONDS) as proxy:
            leaf, session, eec = certificates_from_pem(Path(proxy.path).read_text())
            # The attributes are in the client's certificate only; it ends with them, as granted: two hours.
            assert attributes_in(leaf) is not None
            assert attributes_in(session) is None
            assert attributes_in(eec) is None
            shown = subprocess.run(
                ["voms-proxy-info", "-all", "-dont-verify-ac", "-file", proxy.path],
                capture_output=True,
                check=False,
                timeout=SECONDS,
                text=True,
                pass_fds=(proxy.fileno(),),
                env={**os.environ, "X509_CERT_DIR": str(authority.directory)},
            )
            assert "attribute : /mice/Role=production/Capability=NULL" in shown.stdout
        attributes = {each.fqans: each for each in robot_status(agent).attributes}[(PRODUCTION,)]
        assert attributes.not_after is not None
        assert proxy.not_after <= attributes.not_after
        assert attributes.not_after < session.not_valid_after_utc
        assert attributes.problem is None
        # One for all clients: the second one has the same, bit by bit.
        with obtain_proxy(agent.socket, "production", 600, timeout_seconds=SECONDS) as proxy:
            second = certificates_from_pem(Path(proxy.path).read_text())[0]
        assert attributes_in(second) == attributes_in(leaf)


def test_a_role_that_is_not_held_is_told_to_clients_and_operators(agent: Agent) -> None:
    with fetcher(agent):
        agent.unlock()
        with pytest.raises(VomsRefusedError, match="refuses"):
            obtain_proxy(agent.socket, "manager", 600, timeout_seconds=SECONDS)
        obtain_proxy(agent.socket, "production", 600, timeout_seconds=SECONDS).close()
        status = robot_status(agent)
        assert status.level == "expired"
        assert any("no VOMS attributes for /mice/Role=manager" in advice for advice in status.advice)


def test_without_a_fetcher_the_client_learns_why(agent: Agent) -> None:
    agent.unlock()
    with pytest.raises(VomsError, match="yet") as caught:
        obtain_proxy(agent.socket, "production", 600, timeout_seconds=SECONDS)
    assert "`proxyagent voms` runs" in caught.value.hint
    # Profiles without attributes need none.
    obtain_proxy(agent.socket, agent.profile, 600, timeout_seconds=SECONDS).close()


def test_a_fetcher_outlives_the_agent_and_serves_the_next_one(agent: Agent) -> None:
    with fetcher(agent) as process:
        agent.unlock()
        obtain_proxy(agent.socket, "production", 600, timeout_seconds=SECONDS).close()
        agent.halt()
        wait_until(lambda: "cannot reach the agent" in process.logged() or "closed the connection" in process.logged())
        agent.start()
        agent.unlock()
        wait_until(lambda: all(each.not_after or each.problem for each in robot_status(agent).attributes))
        obtain_proxy(agent.socket, "production", 600, timeout_seconds=SECONDS).close()


def test_what_no_trusted_server_signed_is_refused(agent: Agent, authority: CertificateAuthority) -> None:
    agent.unlock()
    dongle = agent.dongle
    forger = AcMaker(authority, name="somebody's own VOMS server")
    der = forger.make(
        holder=dongle.certificate,
        fqans=["/mice/Role=manager"],
        not_before=datetime.now(UTC) - timedelta(minutes=1),
        lifetime=timedelta(hours=1),
    )
    want = WantedAttributes(identity="robot", vo="mice", fqans=("/mice/Role=manager",))
    request = VomsDeliverRequest(want=want, ac=base64.b64encode(der).decode())
    with pytest.raises(VomsError, match=r"vomsdir|\.lsc|server"):
        ask(agent.socket, request.model_dump(), None, SECONDS)
    with pytest.raises(VomsError):
        obtain_proxy(agent.socket, "manager", 600, timeout_seconds=SECONDS)


def test_the_fetchers_proxy_is_limited_and_short_and_cannot_be_delegated(agent: Agent) -> None:
    agent.unlock()
    key = new_key()
    request = VomsProxyRequest(identity="robot", csr=make_request(key))
    answer = parse_answer(IssueAnswer, ask(agent.socket, request.model_dump(), None, SECONDS))
    leaf = certificates_from_pem(answer.chain)[0]
    assert proxy_info(leaf) == ProxyInfo(Language.LIMITED, 0)
    assert leaf.not_valid_after_utc - datetime.now(UTC) <= timedelta(minutes=10)


def test_nobody_else_fetches(start_agent: AgentMaker, voms: VomsServer) -> None:
    text = configuration(voms).replace(f"uid = {os.geteuid()}", "uid = 4000000000", 1)
    agent = start_agent(profiles=text)
    want = WantedAttributes(identity="robot", vo="mice", fqans=(PRODUCTION,))
    for request in (
        VomsWaitRequest(),
        VomsProxyRequest(identity="robot", csr=make_request(new_key())),
        VomsDeliverRequest(want=want, kind="voms", problem="x", hint="y"),
    ):
        with pytest.raises(DeniedError, match="may not deliver VOMS attributes"):
            ask(agent.socket, request.model_dump(), None, SECONDS)


def silent_voms(agent_directory: Path) -> str:
    """A configuration whose only VOMS server has nobody at its port."""
    uid = os.geteuid()
    (agent_directory / "vomses").mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        (agent_directory / "vomses" / "mice").write_text(
            f'"mice" "localhost" "{free.getsockname()[1]}" "/C=UK/CN=voms" "mice"\n'
        )
    sections = f'[voms]\nuid = {uid}\nvomses = "{agent_directory / "vomses"}"\n'
    for role in ("production", "reco", "user"):
        sections += f'[[profile]]\nname = "{role}"\nidentity = "robot"\nfqans = ["/mice/Role={role}"]\nuids = [{uid}]\n'
    return sections


def test_servers_that_are_not_there_are_told_for_every_want(start_agent: AgentMaker, tmp_path: Path) -> None:
    agent = start_agent(profiles=silent_voms(tmp_path))
    config = policy.load(agent.config)
    assert config.voms is not None
    fetching = VomsFetcher(config, config.voms)
    assert fetching.serve_once() == 3
    assert fetching.wait(SECONDS)
    assert [each.problem is not None for each in robot_status(agent).attributes] == [True] * 3


def test_a_vo_whose_servers_are_silent_delays_no_other(
    start_agent: AgentMaker, voms: VomsServer, tmp_path: Path
) -> None:
    vomses = tmp_path / "both"
    vomses.mkdir()
    for file in voms.vomses.iterdir() if voms.vomses.is_dir() else (voms.vomses,):
        (vomses / file.name).write_bytes(file.read_bytes())
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the kernel accepts, and nobody answers
        port = silent.getsockname()[1]
        (vomses / "silent").write_text(f'"silent" "localhost" "{port}" "/C=UK/CN=voms" "silent"\n')
        first = f'[[profile]]\nname = "silent"\nidentity = "robot"\nfqans = ["/silent"]\nuids = [{os.geteuid()}]\n'
        text = (
            configuration(voms).replace(str(voms.vomses), str(vomses)).replace("[[profile]]", f"{first}[[profile]]", 1)
        )
        agent = start_agent(profiles=text)
        with fetcher(agent):
            obtain_proxy(agent.socket, "production", 600, timeout_seconds=SECONDS).close()
            (attributes,) = (each for each in robot_status(agent).attributes if each.vo == "silent")
            assert attributes.problem is None  # that one is still being asked


def test_whoever_waits_is_answered_when_the_agent_stops(start_agent: AgentMaker, tmp_path: Path) -> None:
    agent = start_agent(profiles=silent_voms(tmp_path), unlock=False)
    answers: list[Message] = []
    waiting = threading.Thread(
        target=lambda: answers.append(ask(agent.socket, VomsWaitRequest().model_dump(), None, SECONDS))
    )
    waiting.start()
    wait_until(lambda: connections(agent) == 1)
    agent.halt()
    waiting.join(SECONDS)
    assert [answer["wants"] for answer in answers] == [[]]


def connections(agent: Agent) -> int:
    """How many clients are connected, as the kernel knows."""
    lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
    return sum(1 for line in lines if line[-1] == str(agent.socket) and line[5] == "03")  # SS_CONNECTED
