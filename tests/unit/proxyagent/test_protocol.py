"""Frames: what is sent arrives, and nothing foreign gets through or takes for ever."""

import json
import math
import socket
import struct
import threading
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxyagent.errors import NoSessionError, ProtocolError, ProxyAgentError, WrongPinError
from proxyagent.messages import IssueAnswer, IssueRequest, StatusRequest, parse_answer, parse_request
from proxyagent.pin import Secret
from proxyagent.protocol import (
    MAX_FRAME_BYTES,
    Channel,
    DeadlineError,
    PeerClosedError,
    decode,
    failure,
    success_or_raise,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
MESSAGES = st.dictionaries(st.text(max_size=10).filter(lambda key: key != "version"), JSON, max_size=4)
reuse_fixtures = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair()
    with left, right:
        yield left, right


@reuse_fixtures
@given(message=MESSAGES)
def test_a_message_arrives_as_it_was_sent(
    message: dict[str, object], pair: tuple[socket.socket, socket.socket]
) -> None:
    left, right = (Channel(each, timeout_seconds=10) for each in pair)
    left.send(message)
    assert right.receive() == message


@given(body=st.binary(max_size=200))
def test_foreign_bytes_are_read_or_refused(body: bytes) -> None:
    try:
        message = decode(body)
    except ProtocolError:
        return
    assert json.loads(body)["version"] == 1
    assert "version" not in message


@given(message=MESSAGES | st.builds(lambda m, v: {**m, "verb": v}, MESSAGES, st.sampled_from(["status", "issue"])))
def test_foreign_requests_are_read_or_refused(message: dict[str, object]) -> None:
    try:
        request = parse_request(message)
    except ProtocolError:
        return
    assert request.verb == message["verb"]


@pytest.mark.parametrize(
    "body",
    [
        b"[" * MAX_FRAME_BYTES,
        b'{"version":1,"a":NaN}',
        b'{"version":1,"a":' + b"9" * 5000 + b"}",
        b'{"version":2}',
        b'{"version":true}',
        b'{"version":1.0}',
        b"{}",
        b"1",
        b"",
        b"\xff",
    ],
)
def test_hostile_json_is_refused(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(body)


def test_requests_are_strict() -> None:
    assert parse_request({"verb": "status"}) == StatusRequest()
    issue = {"verb": "issue", "profile": "p", "csr": "c", "lifetime_seconds": 5}
    assert parse_request(issue) == IssueRequest(profile="p", csr="c", lifetime_seconds=5)
    for change in ({"lifetime_seconds": "5"}, {"lifetime_seconds": True}, {"lifetime_seconds": 0}, {"more": 1}):
        with pytest.raises(ProtocolError):
            parse_request({**issue, **change})
    for verb in ("sign", "login", None, 1, ["status"]):
        with pytest.raises(ProtocolError):
            parse_request({"verb": verb})


def test_an_unreadable_message_is_not_repeated() -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_answer(IssueAnswer, {"chain": "x" * 100_000, "987654": 1})
    assert "987654" not in str(caught.value)
    assert "xxx" not in str(caught.value)


def test_long_frames_are_refused_before_they_are_read(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[0].sendall(struct.pack("!I", MAX_FRAME_BYTES + 1))
    with pytest.raises(ProtocolError, match="too long"):
        Channel(pair[1], timeout_seconds=10).receive()
    with pytest.raises(ProtocolError, match="too long"):
        Channel(pair[0], timeout_seconds=10).send({"text": "x" * MAX_FRAME_BYTES})
    pair[1].sendall(struct.pack("!I", 256))
    with pytest.raises(ProtocolError, match="too long"):
        Channel(pair[0], timeout_seconds=10).receive_secret()


def test_a_silent_or_slow_peer_meets_the_deadline(pair: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(DeadlineError):
        Channel(pair[1], timeout_seconds=0.05).receive()
    pair[0].sendall(b"\0\0")
    with pytest.raises(DeadlineError):
        Channel(pair[1], timeout_seconds=0.05).receive()


def test_a_peer_that_does_not_read_meets_the_deadline(pair: tuple[socket.socket, socket.socket]) -> None:
    channel = Channel(pair[0], timeout_seconds=0.2)

    def fill() -> None:
        for _ in range(1000):
            channel.send({"text": "x" * 60_000})

    with pytest.raises(DeadlineError):
        fill()


def test_a_closed_peer_is_told_apart(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[0].sendall(b"\0\0\0\5{")
    pair[0].shutdown(socket.SHUT_WR)
    with pytest.raises(PeerClosedError):
        Channel(pair[1], timeout_seconds=math.inf).receive()


def test_a_pin_arrives_in_a_frame_of_its_own(pair: tuple[socket.socket, socket.socket]) -> None:
    left, right = (Channel(each, timeout_seconds=10) for each in pair)
    sender = threading.Thread(target=left.send_secret, args=(Secret(bytearray(b"1234")),))
    sender.start()
    with right.receive_secret() as pin:
        assert pin.buffer == b"1234"
    sender.join()


def test_errors_cross_the_socket_with_their_class() -> None:
    for cls in (WrongPinError, NoSessionError, ProxyAgentError):
        with pytest.raises(cls, match="what") as caught:
            success_or_raise(failure(cls("what", hint="do this")))
        assert type(caught.value) is cls
        assert caught.value.hint == "do this"
    with pytest.raises(ProxyAgentError) as unknown:
        success_or_raise({"error": {"kind": "of tomorrow", "message": "m", "hint": "h"}})
    assert type(unknown.value) is ProxyAgentError
    for error in (None, {}, {"kind": 1, "message": "m", "hint": "h"}):
        with pytest.raises(ProtocolError):
            success_or_raise({"error": error})


def test_an_answer_that_is_too_long_is_explained(pair: tuple[socket.socket, socket.socket]) -> None:
    left, right = (Channel(each, timeout_seconds=20) for each in pair)
    left.send_or_explain({"text": "x" * MAX_FRAME_BYTES})
    with pytest.raises(ProtocolError, match="is too long"):
        success_or_raise(right.receive())
    left.send_or_explain({"text": "x"})
    assert success_or_raise(right.receive()) == {"text": "x"}
