"""One TLS connection to a VOMS server: proved by name, one question, one answer, one deadline for all of it."""

import queue
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509

from proxyagent.chain import grid_name
from proxyagent.errors import VomsError
from proxyagent.voms.names import printable, same_name
from proxyagent.voms.vomses import VomsServer

_MAX_ANSWER_BYTES = 256 * 1024
_CHUNK_BYTES = 16 * 1024
_HINT = "see that the VO's server is up, and that the VO's line in vomses is current"
_TRUST_HINT = "see that the CA directory has the CA of the VOMS server's certificate"

_SocketAddress = tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]
_Address = tuple[socket.AddressFamily, _SocketAddress]


class ClosedError(VomsError):
    """The server hung up after the greeting: it does not understand the question, or does not want us."""


class Deadline:
    """A moment that all waits of one exchange share."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds that are left.

        Raises:
            TimeoutError: none.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


def tls_context(credential_path: str, ca_directory: Path) -> ssl.SSLContext:
    """A client that proves itself with the proxy (PEM) at `credential_path` and trusts the CAs of a directory.

    The host's name in the server's certificate counts for nothing: it is `exchange` that compares the whole subject.
    Nor do CRLs: a server with a revoked certificate learns no secret, and what it grants is refused by `check_ac`.

    Raises:
        VomsError: the credential cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.load_verify_locations(capath=str(ca_directory))
    try:
        context.load_cert_chain(credential_path)
    except OSError as error:
        raise VomsError(f"the proxy for VOMS cannot be used: {_reason(error)}", hint="restart the agent") from error
    return context


def exchange(server: VomsServer, context: ssl.SSLContext, parts: Sequence[bytes], deadline: Deadline) -> bytes:
    """Send the parts, each in a TLS record of its own; everything that the server sends until it hangs up.

    Raises:
        VomsError: it cannot be reached, is another one than the vomses file says, is too slow, or sends too much.
        ClosedError: it hung up without an answer.
    """
    try:
        with _connect(server, deadline) as plain, _greet(server, context, plain, deadline) as connection:
            try:
                return _ask(connection, parts, deadline)
            except TimeoutError:
                raise
            except OSError as error:
                raise ClosedError(f"hung up: {_reason(error)}", hint=_HINT) from error
    except TimeoutError as error:
        raise VomsError("did not answer in time", hint=_HINT) from error


def _connect(server: VomsServer, deadline: Deadline) -> socket.socket:
    addresses = _addresses(server, deadline)
    failure = "has no address"
    for count, (family, address) in zip(range(len(addresses), 0, -1), addresses, strict=True):
        share = deadline.left() / count  # so that a silent address leaves time for the next
        try:
            return _connected(family, address, share)
        except OSError as error:
            failure = _reason(error)
    raise VomsError(f"cannot be reached: {failure}", hint=_HINT)


def _connected(family: socket.AddressFamily, address: _SocketAddress, seconds: float) -> socket.socket:
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.settimeout(seconds)
        connection.connect(address)
    except BaseException:
        connection.close()
        raise
    return connection


def _addresses(server: VomsServer, deadline: Deadline) -> list[_Address]:
    """The server's addresses, IPv4 and IPv6. The resolver knows no deadline, so it may outlive ours in its thread."""
    answers: queue.SimpleQueue[list[_Address] | Exception] = queue.SimpleQueue()

    def resolve() -> None:
        try:
            found = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)
            answers.put([(family, address) for family, _, _, _, address in found])
        except (OSError, UnicodeError) as error:  # UnicodeError: a part of the name is too long
            answers.put(error)

    threading.Thread(target=resolve, daemon=True).start()
    try:
        answer = answers.get(timeout=deadline.left())
    except queue.Empty as error:
        raise VomsError("its name was not resolved in time", hint="see whether the name service works") from error
    if isinstance(answer, Exception):
        raise VomsError(f"its name does not resolve: {_reason(answer)}", hint=_HINT) from answer
    return answer


def _greet(server: VomsServer, context: ssl.SSLContext, plain: socket.socket, deadline: Deadline) -> ssl.SSLSocket:
    plain.settimeout(deadline.left())
    try:
        connection = context.wrap_socket(plain, server_hostname=server.host)
    except ssl.SSLCertVerificationError as error:
        raise VomsError(f"its certificate is not trusted: {error.verify_message}", hint=_TRUST_HINT) from error
    except TimeoutError:
        raise
    except (OSError, ValueError) as error:
        raise VomsError(f"did not greet as a TLS server: {_reason(error)}", hint=_HINT) from error
    try:
        _check_name(server, connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _check_name(server: VomsServer, connection: ssl.SSLSocket) -> None:
    try:
        name = grid_name(x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b"").subject)
    except ValueError as error:
        raise VomsError("its certificate is unreadable", hint=_HINT) from error
    if not same_name(name, server.name):
        raise VomsError(
            f"it is {printable(name)}, not {server.name}",
            hint="do not trust it; if the VO has announced a new certificate, change the VO's line in vomses",
        )


def _ask(connection: ssl.SSLSocket, parts: Sequence[bytes], deadline: Deadline) -> bytes:
    for part in parts:
        connection.settimeout(deadline.left())
        connection.sendall(part)
    answer = bytearray()
    while len(answer) <= _MAX_ANSWER_BYTES:
        connection.settimeout(deadline.left())
        received = connection.recv(_CHUNK_BYTES)
        answer += received
        if not received:
            if not answer:
                raise ClosedError("hung up without an answer", hint=_HINT)
            return bytes(answer)
    raise VomsError("sends too much", hint=_HINT)


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None)
    return printable(str(reason or error))
