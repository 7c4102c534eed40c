"""A double of a VOMS server's signing, for times that no real server lives in and for answers that none would give."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from asn1crypto import algos, cms, core, parser
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from mover.sandbox.ca import CertificateAuthority
from proxyagent.chain import grid_name
from proxyagent.request import new_key
from proxyagent.voms.asn1 import CERTIFICATES, FQANS, CertificateLists

_RSA_SHA256 = {"algorithm": "sha256_rsa", "parameters": core.Null()}
_EC_SHA256 = {"algorithm": "sha256_ecdsa"}


class AcMaker:
    """Signs attribute certificates as Debian's VOMS server does, with a certificate of its own from `ca`."""

    def __init__(
        self,
        ca: CertificateAuthority,
        *,
        vo: str = "mice",
        name: str = "VOMS double",
        key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | None = None,
    ) -> None:
        """A maker for a VO; its key is RSA unless another is given."""
        self.vo = vo
        self.key = key or new_key()
        self.certificate = ca.issue_robot(name, self.key.public_key())

    def write_lsc(self, vomsdir: Path) -> None:
        """Have `vomsdir` trust this maker for its VO."""
        (vomsdir / self.vo).mkdir(parents=True, exist_ok=True)
        names = (self.certificate.subject, self.certificate.issuer)
        (vomsdir / self.vo / "double.example.org.lsc").write_text("".join(f"{grid_name(name)}\n" for name in names))

    def make(
        self,
        *,
        holder: x509.Certificate,
        fqans: Sequence[str],
        not_before: datetime,
        lifetime: timedelta,
        changes: Mapping[str, Any] | None = None,
    ) -> bytes:
        """An attribute certificate (DER) for an end-entity certificate.

        `changes` replace fields of AttributeCertificateInfo, by asn1crypto's names, such as ``{"version": "v1"}``.
        """
        start = not_before.replace(microsecond=0)
        return self.sign({**self.info(holder, fqans, start, start + lifetime), **(changes or {})})

    def info(
        self, holder: x509.Certificate, fqans: Sequence[str], not_before: datetime, not_after: datetime
    ) -> dict[str, Any]:
        """The fields of AttributeCertificateInfo (RFC 5755 section 4.1), as VOMS fills them."""
        return {
            "version": "v2",
            # The subject, where the standard wants the issuer: so do the VOMS servers that are written in C.
            "holder": {
                "base_certificate_id": {"issuer": [directory_name(holder.subject)], "serial": holder.serial_number}
            },
            "issuer": cms.AttCertIssuer(
                name="v2_form", value=cms.V2Form({"issuer_name": [directory_name(self.certificate.subject)]})
            ),
            "signature": self._algorithm,
            "serial_number": x509.random_serial_number(),
            "att_cert_validity_period": {"not_before_time": not_before, "not_after_time": not_after},
            "attributes": [fqan_attribute(f"{self.vo}://double.example.org:15000", fqans)],
            "extensions": [
                certificates_extension(self.certificate),
                extension("2.5.29.56", core.Null().dump()),  # noRevAvail
                extension("2.5.29.35", self._key_identifier()),
            ],
        }

    def sign(self, info: dict[str, Any]) -> bytes:
        """The DER of an attribute certificate with these fields."""
        return self._assembled(cms.AttributeCertificateInfoV2(info).dump(), _der(info["signature"]))

    def sign_bytes(self, info: bytes) -> bytes:
        """The same for the DER of AttributeCertificateInfo, or of what somebody made of it."""
        return self._assembled(info, _der(self._algorithm))

    @property
    def _algorithm(self) -> dict[str, Any]:
        return _RSA_SHA256 if isinstance(self.key, rsa.RSAPrivateKey) else _EC_SHA256

    def _assembled(self, info: bytes, algorithm: bytes) -> bytes:
        if isinstance(self.key, rsa.RSAPrivateKey):
            signed = self.key.sign(info, padding.PKCS1v15(), hashes.SHA256())
        else:
            signed = self.key.sign(info, ec.ECDSA(hashes.SHA256()))
        return bytes(parser.emit(0, 1, 16, info + algorithm + core.OctetBitString(signed).dump()))

    def _key_identifier(self) -> bytes:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()).public_bytes()


def directory_name(name: x509.Name) -> Any:
    """The name in asn1crypto's form."""
    return asn1_x509.GeneralName(name="directory_name", value=asn1_x509.Name.load(name.public_bytes()))


def fqan_attribute(authority: str, fqans: Sequence[str]) -> dict[str, Any]:
    """The attribute in which VOMS puts the VO and the FQANs, in their long form."""
    uri = asn1_x509.GeneralName(name="uniform_resource_identifier", value=authority)
    values = [cms.IetfAttrValue(name="octets", value=_long(fqan).encode()) for fqan in fqans]
    syntax = cms.IetfAttrSyntax({"policy_authority": [uri], "values": values})
    return {"type": FQANS, "values": [core.Any.load(syntax.dump())]}


def certificates_extension(*certificates: x509.Certificate) -> dict[str, Any]:
    """The extension in which VOMS puts the issuer's certificate."""
    ders = [core.Any.load(each.public_bytes(serialization.Encoding.DER)) for each in certificates]
    return extension(CERTIFICATES, CertificateLists([ders]).dump())


def extension(identifier: str, value: bytes, *, critical: bool = False) -> dict[str, Any]:
    """An extension with this value (DER)."""
    return {"extn_id": identifier, "critical": critical, "extn_value": core.ParsableOctetString(value)}


def _der(algorithm: Mapping[str, Any]) -> bytes:
    return bytes(algos.SignedDigestAlgorithm(dict(algorithm)).dump())


def _long(fqan: str) -> str:
    return fqan + ("" if "/Role=" in fqan else "/Role=NULL") + "/Capability=NULL"
