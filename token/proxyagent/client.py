"""The client library: a Grid proxy from the agent, with a key that never leaves this process.

This is the only module of the package that other programs import.
"""

import os
import weakref
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from cryptography.hazmat.primitives.asymmetric import rsa
from pydantic import ValidationError

from proxyagent.chain import certificates_from_pem, check_links, grid_name, not_after, proxy_pem
from proxyagent.connection import ask
from proxyagent.delegation import sign_delegation
from proxyagent.errors import ProxyAgentError, RequestError
from proxyagent.hardening import harden_process
from proxyagent.jws import Jws, read_jws
from proxyagent.memfd import sealed_memfd
from proxyagent.messages import (
    AgentStatus,
    IssueAnswer,
    IssueRequest,
    PinRetryAnswer,
    PinRetryRequest,
    SessionStatus,
    StatusRequest,
    UnlockAnswer,
    UnlockRequest,
    parse_answer,
)
from proxyagent.pin import Secret
from proxyagent.request import make_request, new_key
from proxyagent.statement import VerifiedChain, check_signature, sign_statement
from proxyagent.systemd import Notifier

__all__ = [
    "AgentStatus",
    "ClientProxy",
    "Jws",
    "Notifier",
    "ProxyAgentError",
    "VerifiedChain",
    "agent_status",
    "harden_process",
    "obtain_proxy",
    "read_statement",
    "retry_sealed_pin",
    "unlock_agent",
    "verify_chain",
    "verify_statement",
]


@dataclass(frozen=True, slots=True)
class _Names:
    subject: str
    identity: str
    not_after: datetime


class ClientProxy:
    """A proxy in a sealed memory file. It lives until `close` or until nobody holds the object."""

    def __init__(self, descriptor: int, names: _Names) -> None:
        self._descriptor = descriptor
        self._names = names
        self._finalizer = weakref.finalize(self, os.close, descriptor)

    @classmethod
    def from_answer(cls, answer: IssueAnswer, key: rsa.RSAPrivateKey) -> Self:
        """The proxy in the agent's answer to a request that `key` has signed.

        Raises:
            ChainError: what came back is not a proxy for our key.
        """
        chain = certificates_from_pem(answer.chain)
        check_links(chain, key.public_key(), now=datetime.now(UTC))
        names = _Names(grid_name(chain[0].subject), grid_name(chain[-1].subject), not_after(chain))
        return cls(sealed_memfd("proxy", proxy_pem(chain, key)), names)

    @property
    def path(self) -> str:
        """/proc/self/fd/N, with the PEM of certificate, key and chain; for this process and its forked children."""
        return f"/proc/self/fd/{self.fileno()}"

    @property
    def not_after(self) -> datetime:
        """When the chain ends (UTC, aware)."""
        return self._names.not_after

    @property
    def subject(self) -> str:
        """The proxy's own name in slash form."""
        return self._names.subject

    @property
    def identity(self) -> str:
        """The end-entity certificate's name in slash form: what servers map and authorise."""
        return self._names.identity

    def fileno(self) -> int:
        """The descriptor of the memory file.

        Raises:
            ValueError: the proxy is closed.
        """
        if not self._finalizer.alive:
            raise ValueError("the proxy is closed")
        return self._descriptor

    def delegate(self, request: bytes, lifetime_seconds: int, *, limited: bool = False) -> str:
        """A proxy below this one, for the key of a server's certificate request, such as ARC CE's or FTS's.

        Args:
            request: PKCS#10 in PEM.
            limited: whether it may be used for files only, and not to submit jobs; it is if this one is.

        Returns: the chain in PEM, the server's certificate first, without any key.

        Raises:
            RequestError: the request is malformed, forged or weak.
            ProxyAgentError: this proxy may not be delegated further.
        """
        lifetime = timedelta(seconds=lifetime_seconds)
        return sign_delegation(self._pem(), request, lifetime=lifetime, now=datetime.now(UTC), limited=limited)

    def sign(self, payload: bytes, media_type: str) -> bytes:
        """Sign a statement with this proxy's key, which stays in memory; `verify_statement` is the other side.

        It becomes a JSON Web Signature (RFC 7515, flattened, RS256) with the chain in its header (`x5c`): any JOSE
        library can verify it. The signature does not say when it was made: put the time into the payload.

        Args:
            media_type: what kind of statement it is, for the header's `typ`, such as ``mover-custody+jws``.

        Raises:
            ProxyAgentError: this proxy has ended, or the payload is too large.
        """
        return sign_statement(self._pem(), payload, media_type, now=datetime.now(UTC))

    def _pem(self) -> bytes:
        return os.pread(self.fileno(), os.fstat(self.fileno()).st_size, 0)

    def close(self) -> None:
        """Give the memory back. The key is gone unless somebody else holds a descriptor."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<ClientProxy {self.subject} until {self.not_after:%Y-%m-%d %H:%M:%S} UTC>"


def obtain_proxy(socket_path: Path, profile: str, lifetime_seconds: int, *, timeout_seconds: float) -> ClientProxy:
    """A new proxy of a profile. It ends after `lifetime_seconds` or earlier: the agent's policy and session decide.

    A fresh key is made in this process's memory; only a certificate request is sent.

    Raises:
        NoSessionError: the agent needs the dongle and its PIN.
        DeniedError, RequestError: this user may not have such a proxy, or there is none.
        AgentUnreachableError, BusyError: nobody answers within `timeout_seconds`, or the agent has too much to do.
        ChainError, ProtocolError: what came back is not a proxy for our key.
    """
    key = new_key()
    try:
        request = IssueRequest(profile=profile, csr=make_request(key), lifetime_seconds=lifetime_seconds)
    except ValidationError as error:
        raise RequestError(
            f"no proxy of {lifetime_seconds} s can be asked for with profile {profile[:80]!r}",
            hint="use a profile of the agent's configuration and a lifetime from 1 s to 10 days",
        ) from error
    answer = parse_answer(IssueAnswer, ask(socket_path, request.model_dump(), None, timeout_seconds))
    return ClientProxy.from_answer(answer, key)


def agent_status(socket_path: Path, *, timeout_seconds: float) -> AgentStatus:
    """The state of session and dongle, and the profiles that this user may have.

    Raises:
        DeniedError: this user may have nothing from the agent.
        AgentUnreachableError, BusyError, ProtocolError: as `obtain_proxy`.
    """
    return parse_answer(AgentStatus, ask(socket_path, StatusRequest().model_dump(), None, timeout_seconds))


def unlock_agent(
    socket_path: Path,
    pin: Secret | None,
    *,
    identity: str | None = None,
    serial: str | None = None,
    timeout_seconds: float,
) -> SessionStatus:
    """Send a dongle's PIN to the agent, once; the session that it then has. Only for root and the agent's user.

    Args:
        pin: None if the person enters it at the reader's pin pad.
        identity: whose dongle; may be left out while the agent has one identity.
        serial: the dongle that the person was asked for; the PIN goes to no other.

    Raises:
        WrongPinError, PinLockedError, PinNotSentError: the PIN was refused, or not even tried.
        LoginFailedError, PinExpiredError, PinCancelledError: the dongle did not let us in for another reason.
        WrongDongleError, NoDongleError, SeveralDonglesError, NoCredentialError, ModuleError: the dongle cannot sign.
        DeniedError: this user may not unlock the agent.
        AgentUnreachableError, BusyError, ProtocolError: as `obtain_proxy`.
    """
    try:
        request = UnlockRequest(identity=identity, serial=serial, pin_pad=pin is None)
    except ValidationError as error:
        raise _no_such_identity(identity) from error
    return parse_answer(UnlockAnswer, ask(socket_path, request.model_dump(), pin, timeout_seconds)).session


def retry_sealed_pin(socket_path: Path, identity: str | None = None, *, timeout_seconds: float) -> bool:
    """Let a robot's sealed PIN be tried once more; tell whether it had to wait for that. Only for operators.

    Raises:
        NoDongleError, WrongDongleError: its dongle is not in.
        DeniedError: this user may not say so.
        AgentUnreachableError, BusyError, ProtocolError: as `obtain_proxy`.
    """
    try:
        request = PinRetryRequest(identity=identity)
    except ValidationError as error:
        raise _no_such_identity(identity) from error
    return parse_answer(PinRetryAnswer, ask(socket_path, request.model_dump(), None, timeout_seconds)).waited


def _no_such_identity(name: str | None) -> RequestError:
    return RequestError(
        f"there is no identity {(name or '')[:80]!r}", hint="use one that `proxyagent status` shows, and its dongle"
    )


def verify_chain(pem: bytes, ca_directory: Path, at: datetime) -> VerifiedChain:
    """Verify a chain of proxies as of the time `at`, without the agent and without network.

    Signatures, names, times and the rules of RFC 3820 and RFC 5280, from the proxy up to a root CA of the directory;
    then the directory's CRLs, for the end-entity certificate and every CA above it. Certificates are its ``<hash>.0``
    to ``.9``, CRLs its ``.r0`` to ``.r9``, as it holds them today. For a time that has passed:

    - a CRL counts if it had not ended at `at`; a newer one, which knows more, is best. But CAs may take ended
      certificates off their lists, and no list of today tells what was on one of then: keep a copy of the directory.
    - what was revoked after `at` passes only if the CA gives a reason that clears the key (superseded, cessation of
      operation, affiliation changed, privilege withdrawn) and no earlier date of invalidity.
    - CAs must be in the directory still, and have been valid at `at`.
    - nothing shows that `at` is the true time of anything: whoever has a key may write any date within its
      certificate's life. There is no trusted timestamp. VOMS attributes and signing policies are not looked at.

    Args:
        pem: the proxy's certificate first, then its issuers down to the end-entity certificate; keys are ignored.
        at: UTC, aware; clocks may differ by five minutes.

    Raises:
        RevokedError: a CA has revoked the robot's certificate, or one above it.
        CrlError: a CRL is missing, unreadable, forged, or had ended by `at`.
        ChainError: the chain is not valid, for the reason in the message. Both above are such errors too.
    """
    from proxyagent.past import verify_chain_at  # noqa: PLC0415 - loads M2Crypto, which few clients need

    return verify_chain_at(pem, ca_directory, at)


def read_statement(text: bytes, media_type: str) -> Jws:
    """A statement that `ClientProxy.sign` made, taken apart: nothing of it is verified.

    Raises:
        SignatureError: it is something else, or of another kind.
    """
    return read_jws(text, media_type)


def verify_statement(statement: Jws, ca_directory: Path, at: datetime) -> VerifiedChain:
    """Verify that the key of the statement's chain has signed it, and the chain as of the time `at`.

    Raises:
        SignatureError: text or signature were changed.
        ChainError: as `verify_chain`; a SignatureError is one too.
    """
    verified = verify_chain(statement.chain_pem, ca_directory, at)
    check_signature(statement)
    return verified
