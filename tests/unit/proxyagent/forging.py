"""Chains made by hand, not by the code under test: right ones, and ones that break exactly one rule."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from asn1crypto import core
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
Namer = Callable[[x509.Name, int], x509.Name]

PROXY_INFO = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.14")
INHERIT_ALL, INDEPENDENT, LIMITED = "1.3.6.1.5.5.7.21.1", "1.3.6.1.5.5.7.21.2", "1.3.6.1.4.1.3536.1.1.1.9"


def rdn(*attributes: tuple[x509.ObjectIdentifier, str]) -> x509.RelativeDistinguishedName:
    return x509.RelativeDistinguishedName([x509.NameAttribute(oid, value) for oid, value in attributes])


def one_more_cn(issuer: x509.Name, serial: int) -> x509.Name:
    return x509.Name([*issuer.rdns, rdn((NameOID.COMMON_NAME, str(serial)))])


def usage(*, digital_signature: bool = True) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=True,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def proxy_info(language: str, path_length: int | None, policy: bytes | None = None) -> x509.UnrecognizedExtension:
    """ProxyCertInfo of RFC 3820 section 3.8, put together from its parts."""
    inner = core.ObjectIdentifier(language).dump() + (core.OctetString(policy).dump() if policy is not None else b"")
    length = core.Integer(path_length).dump() if path_length is not None else b""
    content = length + core.Sequence(contents=inner).dump()
    return x509.UnrecognizedExtension(PROXY_INFO, core.Sequence(contents=content).dump())


@dataclass
class Step:
    """One proxy of a chain, right unless a test changes something."""

    key: rsa.RSAPrivateKey
    language: str = INHERIT_ALL
    path_length: int | None = None
    lifetime: timedelta = timedelta(hours=1)
    with_usage: bool = True
    begin: timedelta = timedelta(minutes=-5)
    name: Namer = one_more_cn
    signer: Key | None = None
    digest: hashes.SHA256 | hashes.SHA224 = field(default_factory=hashes.SHA256)
    info: tuple[x509.UnrecognizedExtension, bool] | None = None
    extensions: list[tuple[x509.ExtensionType, bool]] = field(default_factory=list)


def forge(robot: x509.Certificate, robot_key: Key, steps: Sequence[Step]) -> list[x509.Certificate]:
    """The chain below the robot with these steps, leaf first, the robot last."""
    now = datetime.now(UTC)
    chain, signer = [robot], robot_key
    for step in steps:
        issuer = chain[0]
        serial = x509.random_serial_number()
        builder = (
            x509.CertificateBuilder()
            .issuer_name(issuer.subject)
            .subject_name(step.name(issuer.subject, serial))
            .public_key(step.key.public_key())
            .serial_number(serial)
            .not_valid_before(now + step.begin)
            .not_valid_after(now + step.lifetime)
        )
        info, critical = step.info or (proxy_info(step.language, step.path_length), True)
        builder = builder.add_extension(info, critical=critical)
        if step.with_usage:
            builder = builder.add_extension(usage(), critical=True)
        for value, critical in step.extensions:
            builder = builder.add_extension(value, critical=critical)
        chain.insert(0, builder.sign(step.signer or signer, step.digest))
        signer = step.key
    return chain


def damaged(certificate: x509.Certificate) -> x509.Certificate:
    """The same with a wrong signature."""
    der = bytearray(certificate.public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    return x509.load_der_x509_certificate(bytes(der))
