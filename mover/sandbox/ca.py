"""A throwaway certificate authority with the directory layout that Grid software reads (IGTF style)."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CertificateKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey

_LIFETIME = timedelta(days=60)  # so long that nobody warns of the end


def distinguished_name(common_name: str) -> x509.Name:
    """The X.509 name that Grid software writes as /C=UK/O=Sandbox/CN=<common_name>."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "UK"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Sandbox"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def slash_name(common_name: str) -> str:
    """The same name as Grid software writes it."""
    return f"/C=UK/O=Sandbox/CN={common_name}"


@dataclass(frozen=True, slots=True)
class HostCredential:
    """Paths of a server's certificate and key (PEM)."""

    certificate: Path
    key: Path


class CertificateAuthority:
    """A CA whose directory (`<hash>.0`, `.r0`, `.signing_policy`) servers and clients trust.

    The CA's key stays in this object; only host keys are files, because servers need them so.
    """

    def __init__(
        self, directory: Path, *, common_name: str = "Sandbox CA", parent: "CertificateAuthority | None" = None
    ) -> None:
        """A new CA with an empty CRL that is valid as long as the CA: a root in a new directory, or below `parent`."""
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=parent is not None)
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._name = distinguished_name(common_name)
        self._not_before = datetime.now(UTC) - timedelta(hours=6)
        self._revoked: dict[int, x509.RevokedCertificate] = {}
        self.certificate = (parent or self)._certify_authority(self._name, self._key.public_key())
        self._stems = self._write_certificate()
        self.write_crl()

    def subordinate(self, common_name: str) -> "CertificateAuthority":
        """A new CA below this one, in the same directory; its CRL is its own."""
        return CertificateAuthority(self.directory, common_name=common_name, parent=self)

    def _builder(
        self,
        subject: x509.Name,
        public_key: CertificateKey,
        *,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(not_before or self._not_before)
            .not_valid_after(not_after or self._not_before + _LIFETIME)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )

    def _certify_authority(self, name: x509.Name, public_key: rsa.RSAPublicKey) -> x509.Certificate:
        return (
            self._builder(name, public_key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_key_usage(authority=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    def _write_certificate(self) -> tuple[str, ...]:
        """Write all but the CRL; the stems of the files' names, for OpenSSL since 1.0 and before."""
        pem = self.certificate.public_bytes(serialization.Encoding.PEM)
        subject = "/".join(("", *(f"{each.rfc4514_attribute_name}={each.value!s}" for each in self._name)))
        policy = (
            f"access_id_CA  X509    '{subject}'\n"
            "pos_rights    globus  CA:sign\n"
            "cond_subjects globus  '\"/C=UK/O=Sandbox/*\"'\n"
        )
        stems = []
        for option in ("-subject_hash", "-subject_hash_old"):
            name = subprocess.run(
                ["openssl", "x509", "-noout", option], input=pem, capture_output=True, check=True, timeout=30
            )
            stem = name.stdout.decode().strip()
            (self.directory / f"{stem}.0").write_bytes(pem)
            (self.directory / f"{stem}.signing_policy").write_text(policy)
            stems.append(stem)
        return tuple(stems)

    @property
    def crl_paths(self) -> tuple[Path, ...]:
        """Where this CA's CRL is, under both of its names."""
        return tuple(self.directory / f"{stem}.r0" for stem in self._stems)

    def write_crl(
        self,
        *,
        last_update: datetime | None = None,
        next_update: datetime | None = None,
        extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
    ) -> None:
        """Replace the CRL by one of all that was revoked; `extensions` are more of them, with their criticality.

        By default it begins and ends with the CA itself.
        """
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._name)
            .last_update(last_update or self._not_before)
            .next_update(next_update or self._not_before + _LIFETIME)
        )
        for revoked in self._revoked.values():
            builder = builder.add_revoked_certificate(revoked)
        for value, critical in extensions:
            builder = builder.add_extension(value, critical=critical)
        pem = builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        for path in self.crl_paths:
            path.with_suffix(".new").write_bytes(pem)
            path.with_suffix(".new").rename(path)

    def revoke(
        self, serial: int, *, when: datetime | None = None, extensions: Sequence[x509.ExtensionType] = ()
    ) -> None:
        """Revoke the certificate with that serial number, with a new CRL: newer than the last, and valid already.

        `when` is now unless given; `extensions` are those of the entry, such as a reason.
        """
        builder = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(when or datetime.now(UTC))
        for value in extensions:
            builder = builder.add_extension(value, critical=False)
        self._revoked[serial] = builder.build()
        self.write_crl(last_update=self._not_before + timedelta(seconds=len(self._revoked)))

    def issue_robot(
        self,
        common_name: str,
        public_key: CertificateKey,
        *,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
        key_usage: bool = True,
    ) -> x509.Certificate:
        """An end-entity certificate for a robot whose private key is elsewhere (on a dongle).

        By default it begins and ends with the CA. Without `key_usage` it lacks that extension, which allows every use.
        """
        builder = (
            self._builder(distinguished_name(common_name), public_key, not_before=not_before, not_after=not_after)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        )
        if key_usage:
            builder = builder.add_extension(_key_usage(authority=False), critical=True)
        return builder.sign(self._key, hashes.SHA256())

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
