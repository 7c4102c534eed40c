"""Fetching from servers that misbehave. A double stands for them: no real one can be made to."""

import contextlib
import os
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from mover.sandbox.ca import CertificateAuthority
from mover.sandbox.ports import PortLease
from proxyagent.chain import proxy_pem
from proxyagent.errors import VomsError, VomsRefusedError
from proxyagent.memfd import sealed_memfd
from proxyagent.voms.fetch import FetchedAc, fetch_ac
from proxyagent.voms.vomses import VomsServer
from tests.unit.proxyagent.conftest import Credential
from tests.unit.proxyagent.test_voms_answer import AC, BASE64, REFUSED, http, item, legacy, rest

NAME = "/C=UK/O=Sandbox/CN=localhost"
GRANTED = rest("200 OK", f"<ac>{BASE64}</ac>")
REFUSAL = rest("403 Forbidden", REFUSED)
NO_REST = http("404 Not Found", "", "Content-Length: 0")
DRIP = b"a byte now and then"


class DoubleServer:
    """A double of a VOMS server: a TLS server that answers each request as it is told, and remembers them."""

    def __init__(self, context: ssl.SSLContext, answers: Sequence[bytes | None], address: str) -> None:
        """`answers` are for one request each; None is silence until the client hangs up."""
        self.requests: list[bytes] = []
        self._context = context
        self._answers = queue.SimpleQueue[bytes | None]()
        for answer in answers:
            self._answers.put(answer)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._listener = socket.create_server((address, 0), family=family)
        self.description = VomsServer("double", address, self._listener.getsockname()[1], NAME, "mice")
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(timeout=30)
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            # A client that does not like us goes away in any way it wants.
            with connection, contextlib.suppress(OSError, queue.Empty):
                connection.settimeout(30)
                with self._context.wrap_socket(connection, server_side=True) as encrypted:
                    self._answer(encrypted)

    def _answer(self, connection: socket.socket) -> None:
        request = b""
        while not request.endswith((b"\r\n\r\n", b"</voms>")):
            received = connection.recv(65536)
            if not received:
                return
            request += received
        self.requests.append(request)
        answer = self._answers.get(block=False)
        if answer is None:
            connection.recv(1)
        elif answer == DRIP:
            while True:
                connection.sendall(b" ")
                time.sleep(0.01)
        else:
            connection.sendall(answer)


@pytest.fixture(scope="module")
def server_context(authority: CertificateAuthority, tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    return context_of(authority, tmp_path_factory.mktemp("host"))


def context_of(authority: CertificateAuthority, directory: Path) -> ssl.SSLContext:
    host = authority.issue_host(directory)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(host.certificate, host.key)
    context.load_verify_locations(capath=str(authority.directory))
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_ALLOW_PROXY_CERTS
    return context


ServerMaker = Callable[..., DoubleServer]


@pytest.fixture
def serve(server_context: ssl.SSLContext) -> Iterator[ServerMaker]:
    with contextlib.ExitStack() as stack:

        def serve(
            *answers: bytes | None, context: ssl.SSLContext = server_context, address: str = "127.0.0.1"
        ) -> DoubleServer:
            server = DoubleServer(context, answers, address)
            stack.callback(server.close)
            return server

        yield serve


@pytest.fixture(scope="module")
def credential(robot: Credential, proxy_of: Callable[..., Credential], keys: list[rsa.RSAPrivateKey]) -> Iterator[str]:
    proxy = proxy_of(robot, keys[1])
    descriptor = sealed_memfd("proxy", proxy_pem(proxy.chain, proxy.key))
    yield f"/proc/self/fd/{descriptor}"
    os.close(descriptor)


Fetch = Callable[..., FetchedAc]


@pytest.fixture
def fetch(credential: str, ca_directory: Path) -> Fetch:
    def fetch(
        *servers: DoubleServer | VomsServer, fqans: Sequence[str] = ("/mice/Role=production",), seconds: float = 20
    ) -> FetchedAc:
        return fetch_ac(
            [server.description if isinstance(server, DoubleServer) else server for server in servers],
            credential_path=credential,
            ca_directory=ca_directory,
            fqans=fqans,
            lifetime_seconds=3600,
            timeout_seconds=seconds,
        )

    return fetch


def test_rest_is_asked_first(serve: ServerMaker, fetch: Fetch) -> None:
    server = serve(GRANTED)
    assert fetch(server, fqans=["/mice/ROLE=reco", "/mice/offline/Role=NULL", "/mice/role=reco"]) == FetchedAc(AC, None)
    (request,) = server.requests
    assert request.startswith(b"GET /generate-ac?fqans=/mice/Role=reco,/mice/offline&lifetime=3600 HTTP/1.1\r\n")
    assert f"Host: 127.0.0.1:{server.description.port}\r\n".encode() in request


@pytest.mark.parametrize("without_rest", [NO_REST, http("403 Forbidden", "<html/>"), b"", b"\0\0"])
def test_the_legacy_protocol_is_next(without_rest: bytes, serve: ServerMaker, fetch: Fetch) -> None:
    server = serve(without_rest, legacy(f"<ac>{BASE64}</ac>"))
    assert fetch(server, fqans=["/mice/Role=reco", "/mice"]) == FetchedAc(AC, None)
    assert server.requests[1] == (
        b'0<?xml version="1.0" encoding="US-ASCII"?><voms><command>B/mice:reco</command><command>G/mice</command>'
        b"<order>/mice:reco,/mice</order><base64>1</base64><version>4</version><lifetime>3600</lifetime></voms>"
    )


def test_a_server_that_hangs_up_twice_is_given_up(serve: ServerMaker, fetch: Fetch) -> None:
    server = serve(b"", b"")
    with pytest.raises(VomsError, match="hung up without an answer"):
        fetch(server)
    assert len(server.requests) == 2


def test_a_server_that_refuses_is_not_asked_again_but_the_next_one_is(serve: ServerMaker, fetch: Fetch) -> None:
    refusing, granting = serve(REFUSAL, REFUSAL), serve(GRANTED)
    assert fetch(refusing, granting) == FetchedAc(AC, None)
    assert len(refusing.requests) == 1


def test_a_refusal_is_what_remains_when_nobody_grants(serve: ServerMaker, fetch: Fetch) -> None:
    lease = PortLease()
    dead = VomsServer("dead", "127.0.0.1", lease.number, NAME, "mice")
    old = serve(NO_REST, legacy(f"<error>{item(1001, 'not a member')}</error><ac>QQ==</ac>"))
    with pytest.raises(VomsRefusedError) as raised:
        fetch(dead, serve(REFUSAL), old)
    assert f"127.0.0.1:{lease.number}: cannot be reached: Connection refused; " in raised.value.message
    assert "says NoSuchUser, mice: User unknown to this VO.; " in raised.value.message
    assert raised.value.message.endswith("says not a member")
    assert "ask the VO's manager" in raised.value.hint
    lease.close()


def test_trouble_is_no_refusal(serve: ServerMaker, fetch: Fetch) -> None:
    trouble = rest("500 Error", "<error><code>InternalError</code><message>no database</message></error>")
    server = serve(trouble)
    with pytest.raises(VomsError, match="says InternalError, no database") as raised:
        fetch(server)
    assert not isinstance(raised.value, VomsRefusedError)
    assert len(server.requests) == 1
    assert fetch(serve(trouble), serve(GRANTED)) == FetchedAc(AC, None)


def test_a_server_with_another_name_gets_no_question(serve: ServerMaker, fetch: Fetch) -> None:
    server = serve(GRANTED, GRANTED)
    named = server.description
    other = VomsServer("other", named.host, named.port, "/C=UK/O=Sandbox/CN=voms.example.org", "mice")
    with pytest.raises(VomsError, match=r"it is /C=UK/.*/CN=localhost, not /C=UK/.*/CN=voms.example.org"):
        fetch(other)
    assert server.requests == []
    assert fetch(other, server) == FetchedAc(AC, None)


def test_a_server_of_an_unknown_ca_gets_no_question(serve: ServerMaker, fetch: Fetch, tmp_path: Path) -> None:
    (tmp_path / "host").mkdir()
    forged = context_of(CertificateAuthority(tmp_path / "forged"), tmp_path / "host")
    server = serve(GRANTED, context=forged)
    with pytest.raises(VomsError, match="its certificate is not trusted"):
        fetch(server)
    assert server.requests == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_old_tls_is_not_spoken(
    serve: ServerMaker, fetch: Fetch, authority: CertificateAuthority, tmp_path: Path
) -> None:
    context = context_of(authority, tmp_path)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(VomsError, match="did not greet as a TLS server"):
        fetch(serve(GRANTED, context=context))


def test_a_server_without_tls_is_named(fetch: Fetch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def banner() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"220 mail.example.org ESMTP\r\n")
                connection.recv(1)

        thread = threading.Thread(target=banner)
        thread.start()
        with pytest.raises(VomsError, match="did not greet as a TLS server"):
            fetch(VomsServer("mail", "127.0.0.1", listener.getsockname()[1], NAME, "mice"))
        thread.join(timeout=30)


def test_a_silent_server_leaves_time_for_the_next(serve: ServerMaker, fetch: Fetch) -> None:
    silent = serve(None)
    assert fetch(silent, serve(GRANTED), seconds=4) == FetchedAc(AC, None)
    assert len(silent.requests) == 1


def test_waiting_ends(serve: ServerMaker, fetch: Fetch) -> None:
    with pytest.raises(VomsError, match=r"did not answer in time$"):
        fetch(serve(None), seconds=0.3)
    # Nor does it matter that now and then a byte comes.
    with pytest.raises(VomsError, match=r"did not answer in time$"):
        fetch(serve(DRIP), seconds=0.5)
    with (
        socket.create_server(("127.0.0.1", 0)) as mute,  # takes connections, and no more
        pytest.raises(VomsError, match=r"did not answer in time$"),
    ):
        fetch(VomsServer("mute", "127.0.0.1", mute.getsockname()[1], NAME, "mice"), seconds=0.3)


def test_an_endless_answer_is_cut(serve: ServerMaker, fetch: Fetch) -> None:
    with pytest.raises(VomsError, match="sends too much"):
        fetch(serve(http("200 OK", "x" * 300_000)))


def test_names_that_cannot_be_resolved_are_named(serve: ServerMaker, fetch: Fetch) -> None:
    impossible = VomsServer("impossible", "a" * 64 + ".example", 15000, NAME, "mice")
    with pytest.raises(VomsError, match="its name does not resolve"):
        fetch(impossible)
    assert fetch(impossible, serve(GRANTED)) == FetchedAc(AC, None)


def test_ipv6_is_spoken(serve: ServerMaker, fetch: Fetch) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    server = serve(GRANTED, address="::1")
    assert fetch(server) == FetchedAc(AC, None)
    assert f"Host: [::1]:{server.description.port}\r\n".encode() in server.requests[0]


def test_a_credential_that_is_none_is_refused(serve: ServerMaker, ca_directory: Path) -> None:
    server = serve(GRANTED)
    for path in ("/nonexistent", "/dev/null"):
        with pytest.raises(VomsError, match="the proxy for VOMS cannot be used"):
            fetch_ac(
                [server.description],
                credential_path=path,
                ca_directory=ca_directory,
                fqans=["/mice"],
                lifetime_seconds=1,
                timeout_seconds=1,
            )
    assert server.requests == []


@pytest.mark.parametrize(
    "fqans", [[], ["mice"], ["/mice&lifetime=1"], ["/mice</command>"], ["/mice/Role=a,b"], ["/mice\r\nX:"]]
)
def test_only_fqans_go_into_the_question(fqans: list[str], serve: ServerMaker, fetch: Fetch) -> None:
    server = serve(GRANTED)
    with pytest.raises(VomsError, match="no FQANs to ask a VOMS server for"):
        fetch(server, fqans=fqans)


def test_a_life_of_nothing_is_not_asked_for(credential: str, ca_directory: Path) -> None:
    """Servers take it for 'as long as you like', or grant nothing."""
    for seconds in (0, -1):
        with pytest.raises(VomsError, match=f"cannot last {seconds} s"):
            fetch_ac(
                [],
                credential_path=credential,
                ca_directory=ca_directory,
                fqans=["/mice"],
                lifetime_seconds=seconds,
                timeout_seconds=1,
            )


def test_no_server_is_an_error(fetch: Fetch) -> None:
    with pytest.raises(VomsError, match="no VOMS server was asked"):
        fetch()
