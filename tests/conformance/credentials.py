"""A source of Grid proxies (RFC 3820) for the adapters, signed in memory; the agent has its own tests."""

import fcntl
import os
import secrets
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from mover.sandbox.ca import CertificateAuthority
from proxyagent.delegation import sign_delegation

# RFC 3820, section 3.8: proxyCertInfo with the policy language id-ppl-inheritAll; and Globus's for a limited proxy.
_PROXY_CERT_INFO = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.14")
_FULL = x509.UnrecognizedExtension(_PROXY_CERT_INFO, bytes.fromhex("300c300a06082b06010505071501"))
_LIMITED = x509.UnrecognizedExtension(_PROXY_CERT_INFO, bytes.fromhex("300f300d060b2b060104019b5001010109"))
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class MemoryProxy:
    """A PEM file in a sealed memfd, closed with the object as the agent's client does it."""

    def __init__(self, pem: bytes, not_after: datetime) -> None:
        self._fd = os.memfd_create("proxy", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.fchmod(self._fd, 0o600)
        os.write(self._fd, pem)
        fcntl.fcntl(self._fd, fcntl.F_ADD_SEALS, _SEALS)
        self.path = f"/proc/self/fd/{self._fd}"
        self.not_after = not_after

    def __del__(self) -> None:
        os.close(self._fd)

    def delegate(self, request: bytes, lifetime_seconds: int, *, limited: bool = False) -> str:
        """As the agent's client does it."""
        pem = os.pread(self._fd, 1 << 16, 0)
        lifetime = timedelta(seconds=lifetime_seconds)
        return sign_delegation(pem, request, lifetime=lifetime, now=datetime.now(UTC), limited=limited)


class RobotCredentials:
    """A `CredentialSource` for the robot of that common name."""

    def __init__(
        self, ca: CertificateAuthority, common_name: str, *, limited: bool = False, hours: float = 1.0
    ) -> None:
        """Its proxies end `hours` from when they are made; a negative number has them ended already."""
        self._proxy_info = _LIMITED if limited else _FULL
        self._lifetime = timedelta(hours=hours)
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._certificate = ca.issue_robot(common_name, self._key.public_key())
        self._proxy: MemoryProxy | None = None

    def proxy(self) -> MemoryProxy:
        """The current proxy."""
        if self._proxy is None:
            self._proxy = self._sign()
        return self._proxy

    def renew(self) -> None:
        """Let go of the current proxy, so that the next call makes another."""
        self._proxy = None

    def become(self, other: "RobotCredentials") -> None:
        """Speak for another robot from the next proxy on."""
        self._key, self._certificate = other._key, other._certificate
        self.renew()

    def _sign(self) -> MemoryProxy:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        serial = secrets.randbits(64)
        now = datetime.now(UTC)
        not_after = now + self._lifetime
        robot = self._certificate
        certificate = (
            x509.CertificateBuilder()
            .issuer_name(robot.subject)
            .subject_name(x509.Name([*robot.subject, x509.NameAttribute(NameOID.COMMON_NAME, str(serial))]))
            .public_key(key.public_key())
            .serial_number(serial)
            .not_valid_before(min(now, not_after) - timedelta(minutes=5))
            .not_valid_after(not_after)
            .add_extension(robot.extensions.get_extension_for_class(x509.KeyUsage).value, critical=True)
            .add_extension(self._proxy_info, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        pem = serialization.Encoding.PEM
        secret = key.private_bytes(pem, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
        return MemoryProxy(certificate.public_bytes(pem) + secret + robot.public_bytes(pem), not_after)
