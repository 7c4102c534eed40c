"""200,000 hostile messages: each is answered or refused, the agent lives on, and does not grow."""

import json
import logging
import random
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mover.sandbox.ca import CertificateAuthority
from proxyagent import policy
from proxyagent.agent import Agent
from proxyagent.audit import AuditLog
from proxyagent.clock import SystemClock
from proxyagent.handler import Handler
from proxyagent.peer import peer_of
from proxyagent.protocol import MAX_FRAME_BYTES
from proxyagent.request import make_request, new_key
from proxyagent.server import Server

MESSAGES = 200_000
WARM_UP = 40_000
GROWTH_BYTES = 8 << 20
SEED = 20261122
WORDS = ("version", "verb", "profile", "csr", "lifetime_seconds", "identity", "serial", "pin_pad", "want", "ac", "more")
VERBS = ("status", "issue", "unlock", "pin-retry", "voms-wait", "voms-proxy", "voms-deliver", "sign", "", "x" * 500)
CSR = make_request(new_key())


STRANGE = (0, 10, 34, 92, 127, 0x202E, 0xD7FF, 0x10FFFF, 65)
LEAVES: tuple[Callable[[random.Random], object], ...] = (
    lambda rng: rng.choice((None, True, False)),
    lambda rng: rng.choice((0, 1, -1, 3600, 2**31, 2**63, 2**64, 10**30, rng.getrandbits(200))),
    lambda rng: rng.random() * 10.0 ** rng.randrange(-300, 300),
    lambda rng: rng.choice(("mover", "robot", "mice", "/mice/Role=production", CSR, *VERBS)),
    lambda rng: "".join(chr(rng.choice(STRANGE)) for _ in range(rng.randrange(30))),
    lambda rng: CSR[: rng.randrange(len(CSR))],
    lambda rng: "A" * rng.choice((1, 64, 65, 255, 4096, 17000)),
    lambda _rng: {"identity": "robot", "vo": "mice", "fqans": ["/mice"]},
)


def value(rng: random.Random, depth: int = 0) -> object:
    kind = rng.randrange(10)
    if depth < 4 and kind == 0:
        return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    if depth < 4 and kind == 1:
        return {rng.choice(WORDS): value(rng, depth + 1) for _ in range(rng.randrange(4))}
    return rng.choice(LEAVES)(rng)


def body(rng: random.Random) -> bytes:
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


def frame(rng: random.Random) -> bytes:
    content = body(rng)
    kind = rng.randrange(20)
    length = len(content)
    if kind == 0:
        length = rng.choice((0, 1, 2**32 - 1, MAX_FRAME_BYTES, MAX_FRAME_BYTES + 1, rng.getrandbits(32)))
    return struct.pack("!I", length) + content + rng.randbytes(rng.choice((0, 0, 0, 4, 8, 300)))


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.fixture
def server(tmp_path: Path, authority: CertificateAuthority) -> Iterator[Server]:
    """A server with everything behind it but a dongle: its module is in no place where modules may be."""
    file = tmp_path / "proxyagent.toml"
    file.write_text(
        f'[agent]\nsocket = "{tmp_path}/s"\nstate_directory = "{tmp_path}"\n'
        f'[trust]\nca_directory = "{authority.directory}"\n'
        '[voms]\nuid = 4000000000\n[[identity]]\nname = "robot"\nmodule = "/nonexistent.so"\nuri = "pkcs11:"\n'
        '[[profile]]\nname = "mover"\nfqans = ["/mice"]\nuids = [0, 65534]\n'
    )
    config = policy.load(file)
    clock = SystemClock()
    audit = AuditLog(tmp_path, now=clock.now, on_head=lambda _sequence, _digest: None)
    agent = Agent(config, clock, audit)
    yield Server(config.agent, Handler(config, agent, clock, audit, memory_locked=False), audit)
    agent.close()
    audit.close()


def test_two_hundred_thousand_messages(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    rng = random.Random(SEED)  # noqa: S311 - to be repeated
    logging.getLogger("proxyagent").setLevel(logging.ERROR)
    try:
        refused = 0
        before = 0
        for number in range(MESSAGES):
            if number == WARM_UP:
                before = resident_bytes()
            refused += converse(server, frame(rng))
    finally:
        logging.getLogger("proxyagent").setLevel(logging.NOTSET)
    assert refused > MESSAGES / 2
    assert not caplog.records, caplog.records[0].getMessage()
    assert resident_bytes() - before < GROWTH_BYTES


def converse(server: Server, data: bytes) -> bool:
    """Send one frame; whether the answer is an error."""
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
    return "error" in message
