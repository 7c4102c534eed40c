"""A Grid proxy for the tests of the sandbox's servers, signed by a key in memory (the agent has tests of its own)."""

import fcntl
import os
import secrets
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from mover.sandbox.ca import CertificateAuthority

# RFC 3820, section 3.8: ProxyCertInfo { policyLanguage id-ppl-inheritAll }.
_PROXY_INFO = x509.UnrecognizedExtension(
    x509.ObjectIdentifier("1.3.6.1.5.5.7.1.14"), bytes.fromhex("300c300a06082b06010505071501")
)
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class MemoryProxy:
    """A proxy of a new robot of that common name, in a sealed memfd, until `close`."""

    def __init__(self, ca: CertificateAuthority, common_name: str) -> None:
        robot_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        robot = ca.issue_robot(common_name, robot_key.public_key())
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        serial = secrets.randbits(64)
        now = datetime.now(UTC)
        proxy = (
            x509.CertificateBuilder()
            .issuer_name(robot.subject)
            .subject_name(x509.Name([*robot.subject, x509.NameAttribute(NameOID.COMMON_NAME, str(serial))]))
            .public_key(key.public_key())
            .serial_number(serial)
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(robot.extensions.get_extension_for_class(x509.KeyUsage).value, critical=True)
            .add_extension(_PROXY_INFO, critical=True)
            .sign(robot_key, hashes.SHA256())
        )
        pem = b"".join(
            (
                proxy.public_bytes(serialization.Encoding.PEM),
                key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.TraditionalOpenSSL,
                    serialization.NoEncryption(),
                ),
                robot.public_bytes(serialization.Encoding.PEM),
            )
        )
        self._fd = os.memfd_create("proxy", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.fchmod(self._fd, 0o600)
        os.write(self._fd, pem)
        fcntl.fcntl(self._fd, fcntl.F_ADD_SEALS, _SEALS)
        self.path = f"/proc/self/fd/{self._fd}"

    def close(self) -> None:
        os.close(self._fd)
