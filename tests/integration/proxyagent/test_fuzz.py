"""200,000 hostile messages: each is answered or refused, the agent lives on, and does not grow."""

import base64
import json
import logging
import os
import random
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from asn1crypto import pem as armor

from mover.sandbox.ca import CertificateAuthority
from proxyagent import policy
from proxyagent.agent import Agent
from proxyagent.audit import AuditLog
from proxyagent.clock import Clock, SystemClock
from proxyagent.handler import Handler
from proxyagent.peer import peer_of
from proxyagent.protocol import MAX_FRAME_BYTES
from proxyagent.proxy import Language, ProxyInfo, issue_proxy
from proxyagent.request import make_request, new_key
from proxyagent.server import Server
from proxyagent.session import Session
from tests.voms_maker import AcMaker

MESSAGES = 200_000
WARM_UP = 40_000
GROWTH_BYTES = 8 << 20
SEED = 20261122
HOUR = timedelta(hours=1)
WORDS = ("version", "verb", "profile", "csr", "lifetime_seconds", "identity", "serial", "pin_pad", "want", "ac", "more")
VERBS = ("status", "issue", "unlock", "pin-retry", "voms-wait", "voms-proxy", "voms-deliver", "sign", "", "x" * 500)
CSR = make_request(new_key())
WANT = {"identity": "robot", "vo": "mice", "fqans": ["/mice"]}
CSR_DER = armor.unarmor(CSR.encode())[2]

STRANGE = (0, 10, 34, 92, 127, 0x202E, 0xD7FF, 0x10FFFF, 65)
LEAVES: tuple[Callable[[random.Random], object], ...] = (
    lambda rng: rng.choice((None, True, False)),
    lambda rng: rng.choice((0, 1, -1, 3600, 2**31, 2**63, 2**64, 10**30, rng.getrandbits(200))),
    lambda rng: rng.random() * 10.0 ** rng.randrange(-300, 300),
    lambda rng: rng.choice(("mover", "robot", "mice", "/mice/Role=production", CSR, *VERBS)),
    lambda rng: "".join(chr(rng.choice(STRANGE)) for _ in range(rng.randrange(30))),
    lambda rng: CSR[: rng.randrange(len(CSR))],
    lambda rng: "A" * rng.choice((1, 64, 65, 255, 4096, 17000)),
    lambda _rng: WANT,
)


def value(rng: random.Random, depth: int = 0) -> object:
    kind = rng.randrange(10)
    if depth < 4 and kind == 0:
        return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    if depth < 4 and kind == 1:
        return {rng.choice(WORDS): value(rng, depth + 1) for _ in range(rng.randrange(4))}
    return rng.choice(LEAVES)(rng)


def damaged(rng: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.randrange(3)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed[: rng.choice((len(changed), len(changed), rng.randrange(len(changed))))])


def plausible(rng: random.Random, attributes: bytes) -> bytes:
    """What a client or `proxyagent voms` would send, or nearly that: it comes to chains and to attributes."""
    csr = armor.armor("CERTIFICATE REQUEST", damaged(rng, CSR_DER)).decode() if rng.randrange(2) else CSR
    der = damaged(rng, attributes) if rng.randrange(2) else attributes
    messages: tuple[dict[str, object], ...] = (
        {"verb": "issue", "profile": rng.choice(("mover", "plain")), "csr": csr, "lifetime_seconds": 3600},
        {"verb": "voms-proxy", "identity": "robot", "csr": csr},
        {"verb": "voms-deliver", "want": WANT, "ac": base64.b64encode(der).decode()},
        {"verb": "voms-deliver", "want": WANT, "kind": "voms", "problem": "none", "hint": "wait"},
        {"verb": "voms-wait"},
        {"verb": "status"},
    )
    message = dict(rng.choice(messages))
    if rng.randrange(3) == 0:
        message[rng.choice(WORDS)] = value(rng)
    return encoded(message)


def encoded(message: dict[str, object]) -> bytes:
    return json.dumps({"version": 1, **message}).encode()


def framed(content: bytes) -> bytes:
    return struct.pack("!I", len(content)) + content


def body(rng: random.Random, attributes: bytes) -> bytes:
    if rng.randrange(5) == 0:
        return plausible(rng, attributes)
    kind = rng.randrange(10)
    if kind == 0:
        return rng.randbytes(rng.randrange(200))
    if kind == 1:
        return rng.choice((b"[", b'{"a":', b"[[{")) * rng.randrange(1, 20_000)
    message: dict[str, object] = {"version": 1, "verb": rng.choice(VERBS)}
    message |= {rng.choice(WORDS): value(rng) for _ in range(rng.randrange(5))}
    text = bytearray(json.dumps(message).encode())
    if kind == 2:
        for _ in range(rng.randrange(1, 6)):
            text[rng.randrange(len(text))] = rng.randrange(256)
    return bytes(text)


def frame(rng: random.Random, attributes: bytes) -> bytes:
    content = body(rng, attributes)
    kind = rng.randrange(20)
    length = len(content)
    if kind == 0:
        length = rng.choice((0, 1, 2**32 - 1, MAX_FRAME_BYTES, MAX_FRAME_BYTES + 1, rng.getrandbits(32)))
    return struct.pack("!I", length) + content + rng.randbytes(rng.choice((0, 0, 0, 4, 8, 300)))


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@dataclass(frozen=True)
class Target:
    """A server, and an attribute certificate that it takes from us."""

    server: Server
    attributes: bytes


@pytest.fixture
def target(tmp_path: Path, authority: CertificateAuthority, monkeypatch: pytest.MonkeyPatch) -> Iterator[Target]:
    """A server with everything behind it but a dongle, whose module is in no place where modules may be.

    It has a session, and its peer is the user of `proxyagent voms` as well.
    """
    monkeypatch.setattr("proxyagent.handler._VOMS_WAIT_SECONDS", 0.0)
    monkeypatch.setattr("proxyagent.agent._WAIT_FOR_ATTRIBUTES_SECONDS", 0.0)
    voms = AcMaker(authority)
    voms.write_lsc(tmp_path / "vomsdir")
    file = tmp_path / "proxyagent.toml"
    file.write_text(
        f'[agent]\nsocket = "{tmp_path}/s"\nstate_directory = "{tmp_path}"\n'
        f'[trust]\nca_directory = "{authority.directory}"\n'
        f'[voms]\nuid = {os.geteuid()}\nvomsdir = "{tmp_path}/vomsdir"\n'
        '[[identity]]\nname = "robot"\nmodule = "/nonexistent.so"\nuri = "pkcs11:"\n'
        f'[[profile]]\nname = "mover"\nfqans = ["/mice"]\nuids = [{os.geteuid()}]\n'
        f'[[profile]]\nname = "plain"\nuids = [{os.geteuid()}]\n'
    )
    config = policy.load(file)
    clock = SystemClock()
    audit = AuditLog(tmp_path, now=clock.now, on_head=lambda _sequence, _digest: None)
    agent = Agent(config, clock, audit)
    session = begin_session(authority, clock)
    agent.identities["robot"].issuer.change(session)
    now = clock.now()
    attributes = voms.make(holder=session.certificate, fqans=["/mice"], not_before=now, lifetime=12 * HOUR)
    handler = Handler(config, agent, clock, audit, operators=frozenset({os.geteuid()}), memory_locked=False)
    yield Target(Server(config.agent, handler, audit), attributes)
    agent.close()
    audit.close()


def begin_session(authority: CertificateAuthority, clock: Clock) -> Session:
    """A session as a dongle would have signed it."""
    dongle, key = new_key(), new_key()
    robot = authority.issue_robot("Robot - fuzzed", dongle.public_key())
    info = ProxyInfo(Language.INHERIT_ALL)
    proxy = issue_proxy(robot, dongle, key.public_key(), info=info, lifetime=12 * HOUR, now=clock.now())
    return Session.begin(key, (proxy, robot), clock)


def test_two_hundred_thousand_messages(target: Target, caplog: pytest.LogCaptureFixture) -> None:
    rng = random.Random(SEED)  # noqa: S311 - to be repeated
    logging.getLogger("proxyagent").setLevel(logging.ERROR)
    try:
        answers: Counter[str] = Counter()
        before = 0
        for number in range(MESSAGES):
            if number == WARM_UP:
                before = resident_bytes()
            answers[converse(target.server, frame(rng, target.attributes))] += 1
    finally:
        logging.getLogger("proxyagent").setLevel(logging.NOTSET)
    assert answers["error"] > MESSAGES / 2
    # Those that got through to the robot's chain and to the attributes, taken or not.
    assert answers["chain"] > MESSAGES / 100
    assert answers["taken"] > MESSAGES / 100
    assert not caplog.records, caplog.records[0].getMessage()
    assert resident_bytes() - before < GROWTH_BYTES
    # It does what it should, still.
    delivery: dict[str, object] = {
        "verb": "voms-deliver",
        "want": WANT,
        "ac": base64.b64encode(target.attributes).decode(),
    }
    request: dict[str, object] = {"verb": "issue", "profile": "mover", "csr": CSR, "lifetime_seconds": 3600}
    assert [converse(target.server, framed(encoded(each))) for each in (delivery, request)] == ["taken", "chain"]


def converse(server: Server, data: bytes) -> str:
    """Send one frame; what the answer is: 'error', 'chain', 'taken' (the attributes) or 'other'."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(30)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        ours.sendall(data)
        ours.shutdown(socket.SHUT_WR)
        server.converse(theirs, peer_of(theirs))
        theirs.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: ours.recv(1 << 17), b""))
    (size,) = struct.unpack("!I", answer[:4])
    assert size == len(answer) - 4
    message = json.loads(answer[4:])
    assert message["version"] == 1
    assert b"PRIVATE KEY" not in answer
    kinds = {"error": "error", "chain": "chain"}
    return next((kind for field, kind in kinds.items() if field in message), "other" if len(message) > 1 else "taken")
