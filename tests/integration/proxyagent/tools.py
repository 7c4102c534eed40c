"""What the tests of the dongle do with one."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from mover.sandbox.ca import CertificateAuthority
from mover.sandbox.dongle import Dongle
from proxyagent.chain import certificates_to_pem
from proxyagent.hsm import Helper
from proxyagent.request import new_key

SECONDS = 60.0
KEY = new_key()
COUNT_CERTIFICATES = "print(len(list(session.get_objects({Attribute.CLASS: ObjectClass.CERTIFICATE}))))"

# python-pkcs11 in a process of its own: the test's process never loads a PKCS#11 module.
_INSIDE = """
import sys, pkcs11
from pkcs11 import Attribute, CertificateType, KeyType, MechanismFlag, ObjectClass
from pkcs11.util.ec import encode_named_curve_parameters
module, label, script = sys.argv[1:]
pin = sys.stdin.readline().strip()
with pkcs11.lib(module).get_token(token_label=label).open(rw=True, user_pin=pin) as session:
    exec(script)
"""


def inside(dongle: Dongle, script: str) -> str:
    """Run Python with a logged-in `session` on the dongle; what it prints."""
    label = dongle.uri.removeprefix("pkcs11:token=").replace("%20", " ")
    done = subprocess.run(
        [sys.executable, "-P", "-c", _INSIDE, str(dongle.module), label, script],
        input=f"{dongle.pin}\n",
        env={"PATH": "/usr/bin", **dongle.environment},
        capture_output=True,
        check=True,
        timeout=SECONDS,
        text=True,
    )
    return done.stdout.strip()


def store_certificate(dongle: Dongle, der: bytes, *, identifier: bytes | None = None, label: str = "stored") -> None:
    """Put a certificate on the dongle as it is; by default beside the key that is on it."""
    beside = "session.get_key(object_class=ObjectClass.PRIVATE_KEY).id"
    place = beside if identifier is None else repr(identifier)
    inside(
        dongle,
        "session.create_object({Attribute.CLASS: ObjectClass.CERTIFICATE, Attribute.TOKEN: True,\n"
        "  Attribute.PRIVATE: False, Attribute.CERTIFICATE_TYPE: CertificateType.X_509, Attribute.SUBJECT: b'',\n"
        f"  Attribute.ID: {place}, Attribute.LABEL: {label!r},\n"
        f"  Attribute.VALUE: bytes.fromhex('{der.hex()}')}})",
    )


def remove_certificates(dongle: Dongle) -> None:
    """Leave no certificate on the dongle."""
    inside(dongle, "[each.destroy() for each in list(session.get_objects({Attribute.CLASS: ObjectClass.CERTIFICATE}))]")


def sign(helper: Helper, *, hours: float = 1, now: datetime | None = None) -> tuple[x509.Certificate, ...]:
    """A session proxy, whose signature is right."""
    chain = helper.sign_session(KEY.public_key(), timedelta(hours=hours), now=now or datetime.now(UTC))
    chain[0].verify_directly_issued_by(chain[1])
    return chain


def request_of(helper: Helper, subject: str = "CN=x") -> x509.CertificateSigningRequest:
    """The dongle's certificate request."""
    return x509.load_pem_x509_csr(str(helper.call({"verb": "make-request", "subject": subject})["request"]).encode())


def certify(helper: Helper, authority: CertificateAuthority, name: str) -> x509.Certificate:
    """Have the dongle's key certified, and the certificate imported."""
    public_key = request_of(helper).public_key()
    assert isinstance(public_key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey)
    certificate = authority.issue_robot(name, public_key)
    import_to(helper, certificate)
    return certificate


def import_to(helper: Helper, certificate: x509.Certificate) -> None:
    """Have a certificate imported."""
    helper.call({"verb": "import-certificate", "certificate": certificates_to_pem([certificate])})
