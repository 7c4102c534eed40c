"""Every error of the proxy agent: what happened, what to do next, its exit code and its name on the socket."""

from typing import ClassVar


class ProxyAgentError(Exception):
    """Something failed inside the proxy agent.

    Args:
        message: what happened, lower case, without a final stop. It never contains a secret.
        hint: what to do next.
    """

    exit_code: ClassVar[int] = 1

    #: The error's name in the protocol; part of the wire format, so it never changes.
    kind: ClassVar[str] = "internal"

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(ProxyAgentError):
    """The configuration is missing, unreadable or contradicts itself."""

    exit_code = 3
    kind = "config"


class ProtocolError(ProxyAgentError):
    """The other side of a socket sent something that is not this protocol."""

    exit_code = 4
    kind = "protocol"


class RequestError(ProxyAgentError):
    """The request was understood and is not acceptable: an unknown profile, a weak key, a forged CSR."""

    exit_code = 4
    kind = "request"


class AgentUnreachableError(ProxyAgentError):
    """No agent listens on the socket, or it did not answer in time."""

    exit_code = 5
    kind = "unreachable"


class BusyError(ProxyAgentError):
    """The agent serves as many connections as it may."""

    exit_code = 5
    kind = "busy"


class DeniedError(ProxyAgentError):
    """The configuration does not allow this user what was asked for."""

    exit_code = 6
    kind = "denied"


class NoSessionError(ProxyAgentError):
    """There is no session proxy, or it has ended: the dongle and its PIN are needed."""

    exit_code = 7
    kind = "no-session"


class NoDongleError(ProxyAgentError):
    """No dongle that matches the configuration is plugged in."""

    exit_code = 8
    kind = "no-dongle"


class SeveralDonglesError(ProxyAgentError):
    """More than one dongle, or key on it, matches the configuration."""

    exit_code = 8
    kind = "several-dongles"


class WrongDongleError(ProxyAgentError):
    """Another dongle is plugged in than the one that is meant; it was asked for nothing."""

    exit_code = 8
    kind = "wrong-dongle"


class NoCredentialError(ProxyAgentError):
    """The dongle holds no key with a certificate that can sign proxies now."""

    exit_code = 9
    kind = "no-credential"


class WrongPinError(ProxyAgentError):
    """The dongle refused the PIN; one of its attempts is used up."""

    exit_code = 10
    kind = "wrong-pin"


class PinNotSentError(ProxyAgentError):
    """The PIN was not sent to the dongle, because it is malformed or has failed before."""

    exit_code = 10
    kind = "pin-not-sent"


class LoginFailedError(ProxyAgentError):
    """The dongle refused the login without saying that the PIN is wrong; an attempt may be used up all the same."""

    exit_code = 10
    kind = "login-failed"


class PinCancelledError(ProxyAgentError):
    """The person at the pin pad cancelled, or entered nothing in time."""

    exit_code = 10
    kind = "pin-cancelled"


class PinExpiredError(ProxyAgentError):
    """The dongle wants a new PIN before it signs again."""

    exit_code = 11
    kind = "pin-expired"


class PinLockedError(ProxyAgentError):
    """The dongle's PIN is locked."""

    exit_code = 11
    kind = "pin-locked"


class PinAtRiskError(PinLockedError):
    """The dongle's PIN is locked, or one wrong attempt away from it, and so none was sent."""

    kind = "pin-at-risk"


class ModuleError(ProxyAgentError):
    """The PKCS#11 module answered with an error."""

    exit_code = 12
    kind = "module"


class ModuleCrashedError(ModuleError):
    """The PKCS#11 module took its helper process down."""

    kind = "module-crashed"


class ModuleTimeoutError(ModuleError):
    """The PKCS#11 module did not answer in time."""

    kind = "module-timeout"


class ChainError(ProxyAgentError):
    """A certificate chain does not verify, or is not that of the key it came for."""

    exit_code = 13
    kind = "chain"


class SignatureError(ChainError):
    """A signature is not that of the text and the certificate it came with."""

    kind = "signature"


class RevokedError(ChainError):
    """The CA has revoked the certificate."""

    kind = "revoked"


class CrlError(ChainError):
    """A CA's revocation list is missing, has ended or is forged, so nobody knows whether the certificate is revoked."""

    kind = "crl"


class VomsError(ProxyAgentError):
    """No VOMS attribute certificate: no server answered, or none that can be trusted."""

    exit_code = 14
    kind = "voms"


class VomsRefusedError(VomsError):
    """The VOMS server does not grant what was asked for: not a member, or a role that is not held."""

    kind = "voms-refused"


class AuditError(ProxyAgentError):
    """The audit log cannot be written, or was changed after it was written."""

    exit_code = 15
    kind = "audit"


def _classes(base: type[ProxyAgentError]) -> list[type[ProxyAgentError]]:
    return [base, *(found for child in base.__subclasses__() for found in _classes(child))]


_BY_KIND = {cls.kind: cls for cls in _classes(ProxyAgentError)}


def from_kind(kind: str, message: str, hint: str) -> ProxyAgentError:
    """The error that the other side of a socket named `kind`; a plain ProxyAgentError for an unknown one."""
    return _BY_KIND.get(kind, ProxyAgentError)(message, hint=hint)
