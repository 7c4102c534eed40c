"""One question to the agent: connect, see who listens, ask, and read the answer."""

import contextlib
import os
import pwd
import socket
import time
from pathlib import Path

from proxyagent.errors import AgentUnreachableError, BusyError
from proxyagent.peer import server_uid
from proxyagent.pin import Secret
from proxyagent.protocol import Channel, Message, PeerClosedError, success_or_raise

AGENT_USER = "proxyagent"
"""Who runs the agent on a box."""

_PAUSE_SECONDS = 0.05


def ask(socket_path: Path, request: Message, pin: Secret | None, timeout_seconds: float) -> Message:
    """The agent's answer to a request, with a PIN if it takes one.

    Raises:
        AgentUnreachableError: nobody answers within `timeout_seconds`, or it is not the agent who listens.
        BusyError: so many wait for the agent that there was no place in the queue.
        ProtocolError: the answer is not of this protocol.
        ProxyAgentError: the answer is an error.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_seconds)
        try:
            _connect(connection, socket_path, timeout_seconds)
        except BlockingIOError as error:
            raise BusyError(
                f"too many others wait for the agent on {socket_path}",
                hint="try again; see whether the agent is overloaded or stopped",
            ) from error
        except OSError as error:
            raise AgentUnreachableError(
                f"cannot reach the agent on {socket_path}: {error.strerror or error}",
                hint="see whether `proxyagent serve` runs, and whether this user may open its socket",
            ) from error
        _check_server(connection, socket_path)
        channel = Channel(connection, timeout_seconds=timeout_seconds)
        # An agent that refuses may close before it has read everything; what it said is still there to be read.
        with contextlib.suppress(PeerClosedError):
            channel.send(request)
            if pin is not None:
                channel.send_secret(pin)
        return success_or_raise(channel.receive())


def _connect(connection: socket.socket, path: Path, timeout_seconds: float) -> None:
    """Connect; while too many others wait for the same, a Unix socket says so at once instead of waiting."""
    deadline_seconds = time.monotonic() + timeout_seconds
    while True:
        try:
            connection.connect(str(path))
        except BlockingIOError:
            if time.monotonic() >= deadline_seconds:
                raise
            time.sleep(_PAUSE_SECONDS)
        else:
            return


def _check_server(connection: socket.socket, socket_path: Path) -> None:
    """Root (systemd holds the socket), the agent's user and we ourselves are believed to be the agent; nobody else."""
    uid = server_uid(connection)
    believed = {0, os.geteuid()}
    with contextlib.suppress(KeyError):
        believed.add(pwd.getpwnam(AGENT_USER).pw_uid)
    if uid not in believed:
        raise AgentUnreachableError(
            f"the socket {socket_path} belongs to uid {uid}, which is neither root nor {AGENT_USER}",
            hint="nothing was sent; find out who put a socket there, and see where `proxyagent serve` listens",
        )
