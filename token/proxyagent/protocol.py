"""Frames and messages on a socket: a four-byte length, then a JSON object of bounded size."""

import json
import math
import select
import socket
import struct
import time
from collections.abc import Mapping
from typing import Any

from proxyagent import errors
from proxyagent.errors import AgentUnreachableError, ProtocolError, ProxyAgentError
from proxyagent.pin import MAX_PIN_BYTES, Secret

VERSION = 1
MAX_FRAME_BYTES = 64 * 1024
_LENGTH = struct.Struct("!I")
_HINT = "update both sides to the same version of proxyagent"

Message = dict[str, Any]


class PeerClosedError(ProtocolError):
    """The other side closed the connection in the middle of a frame, or before one."""

    kind = "peer-closed"


class DeadlineError(AgentUnreachableError):
    """The other side did not send or take a whole frame in time."""

    kind = "deadline"


class Channel:
    """One connected stream socket with one deadline for everything on it, in seconds from now (or infinite)."""

    def __init__(self, connection: socket.socket, *, timeout_seconds: float) -> None:
        self._socket = connection
        self._socket.setblocking(False)
        self.extend(timeout_seconds)

    def extend(self, timeout_seconds: float) -> None:
        """Set a new deadline."""
        self._deadline = time.monotonic() + timeout_seconds

    def send(self, message: Mapping[str, object]) -> None:
        """Send one message.

        Raises:
            ProtocolError: it is too long, or the other side is gone (PeerClosedError).
            DeadlineError: it was not taken in time.
        """
        self._send_all(_frame(message))

    def send_or_explain(self, answer: Mapping[str, object]) -> None:
        """Send an answer; in place of one that is too long, that it is.

        Raises: as `send`.
        """
        try:
            frame = _frame(answer)
        except ProtocolError as error:
            frame = _frame(failure(error))
        self._send_all(frame)

    def receive(self) -> Message:
        """Receive one message.

        Raises:
            ProtocolError: it is not one of this version, or the other side is gone (PeerClosedError).
            DeadlineError: it did not come in time.
        """
        return decode(bytes(self._receive_frame(MAX_FRAME_BYTES)))

    def send_secret(self, secret: Secret) -> None:
        """Send a PIN as a frame of its own, from its buffer, without another copy.

        Raises: as `send`.
        """
        self._send_all(_LENGTH.pack(len(secret.buffer)))
        self._send_all(secret.buffer)

    def receive_secret(self) -> Secret:
        """Receive a PIN.

        Raises: as `receive`.
        """
        return Secret(self._receive_frame(MAX_PIN_BYTES))

    def _send_all(self, data: bytes | bytearray) -> None:
        with memoryview(data) as view:
            sent = 0
            while sent < len(view):
                self._wait(select.POLLOUT)
                try:
                    sent += self._socket.send(view[sent:])
                except BlockingIOError:
                    continue
                except OSError as error:
                    raise _gone() from error

    def _receive_frame(self, limit: int) -> bytearray:
        header = bytearray(_LENGTH.size)
        self._receive_into(header)
        (length,) = _LENGTH.unpack(header)
        if length > limit:
            raise ProtocolError(f"a frame of {length} bytes is too long", hint=_HINT)
        body = bytearray(length)
        self._receive_into(body)
        return body

    def _receive_into(self, buffer: bytearray) -> None:
        with memoryview(buffer) as view:
            done = 0
            while done < len(view):
                self._wait(select.POLLIN)
                try:
                    count = self._socket.recv_into(view[done:])
                except BlockingIOError:
                    continue
                except OSError as error:
                    raise _gone() from error
                if count == 0:
                    raise _gone()
                done += count

    def _wait(self, event: int) -> None:
        left = self._deadline - time.monotonic()
        poll = select.poll()
        poll.register(self._socket, event)
        if left <= 0 or not poll.poll(None if left == math.inf else math.ceil(left * 1000)):
            raise DeadlineError("no answer in time", hint="try again; see whether the agent is overloaded or stopped")


def _frame(message: Mapping[str, object]) -> bytes:
    body = json.dumps({"version": VERSION, **message}, separators=(",", ":"), allow_nan=False).encode()
    if len(body) > MAX_FRAME_BYTES:
        raise ProtocolError(f"a message of {len(body)} bytes is too long", hint="ask for less at once")
    return _LENGTH.pack(len(body)) + body


def decode(body: bytes) -> Message:
    """A message from a frame's bytes.

    Raises:
        ProtocolError: it is not a JSON object of this protocol's version.
    """
    try:
        message = json.loads(body.decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ProtocolError("a frame that is not JSON", hint=_HINT) from error
    if not isinstance(message, dict):
        raise ProtocolError("a frame that is not a JSON object", hint=_HINT)
    version = message.pop("version", None)
    if type(version) is not int or version != VERSION:
        raise ProtocolError(f"a message that is not of version {VERSION}", hint=_HINT)
    return message


def failure(error: ProxyAgentError) -> Message:
    """The answer that carries an error."""
    return {"error": {"kind": error.kind, "message": error.message, "hint": error.hint}}


def success_or_raise(message: Message) -> Message:
    """The answer itself, if it does not carry an error.

    Raises:
        ProxyAgentError: the error that it carries, of the class of its kind.
    """
    if "error" not in message:
        return message
    error = message["error"]
    if not isinstance(error, dict) or not all(isinstance(error.get(key), str) for key in ("kind", "message", "hint")):
        raise ProtocolError("an unreadable error message", hint=_HINT)
    raise errors.from_kind(error["kind"], error["message"], error["hint"])


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _gone() -> PeerClosedError:
    return PeerClosedError("the other side closed the connection", hint="try again; look into the agent's log")
