"""A throwaway certificate authority with the directory layout that Grid software reads (IGTF style)."""

import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CertificateKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey

_LIFETIME = timedelta(days=2)


def distinguished_name(common_name: str) -> x509.Name:
    """The X.509 name that Grid software writes as /C=UK/O=Sandbox/CN=<common_name>."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "UK"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Sandbox"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


@dataclass(frozen=True, slots=True)
class HostCredential:
    """Paths of a server's certificate and key (PEM)."""

    certificate: Path
    key: Path


class CertificateAuthority:
    """A CA whose directory (`<hash>.0`, `.r0`, `.signing_policy`) servers and clients trust.

    The CA's key stays in this object; only host keys are files, because servers need them so.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True)
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._name = distinguished_name("Sandbox CA")
        self._not_before = datetime.now(UTC) - timedelta(minutes=10)
        self.certificate = self._self_signed()
        self._write_directory()

    def _builder(self, subject: x509.Name, public_key: CertificateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._not_before)
            .not_valid_after(self._not_before + _LIFETIME)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )

    def _self_signed(self) -> x509.Certificate:
        return (
            self._builder(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_key_usage(authority=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    def _write_directory(self) -> None:
        pem = self.certificate.public_bytes(serialization.Encoding.PEM)
        crl = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._name)
            .last_update(self._not_before)
            .next_update(self._not_before + _LIFETIME)
            .sign(self._key, hashes.SHA256())
            .public_bytes(serialization.Encoding.PEM)
        )
        policy = (
            "access_id_CA  X509    '/C=UK/O=Sandbox/CN=Sandbox CA'\n"
            "pos_rights    globus  CA:sign\n"
            "cond_subjects globus  '\"/C=UK/O=Sandbox/*\"'\n"
        )
        for option in ("-subject_hash", "-subject_hash_old"):
            name = subprocess.run(
                ["openssl", "x509", "-noout", option], input=pem, capture_output=True, check=True, timeout=30
            )
            stem = name.stdout.decode().strip()
            (self.directory / f"{stem}.0").write_bytes(pem)
            (self.directory / f"{stem}.r0").write_bytes(crl)
            (self.directory / f"{stem}.signing_policy").write_text(policy)

    def issue_robot(self, common_name: str, public_key: CertificateKey) -> x509.Certificate:
        """An end-entity certificate for a robot whose private key is elsewhere (on a dongle)."""
        return (
            self._builder(distinguished_name(common_name), public_key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    def issue_host(self, directory: Path) -> HostCredential:
        """A server certificate for localhost and 127.0.0.1, written to hostcert.pem and hostkey.pem (0600)."""
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        names = [x509.DNSName("localhost"), x509.IPAddress(IPv4Address("127.0.0.1"))]
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        certificate = (
            self._builder(distinguished_name("localhost"), key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        host = HostCredential(directory / "hostcert.pem", directory / "hostkey.pem")
        host.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        host.key.touch(mode=0o600)
        host.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            )
        )
        return host


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=not authority,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )
