"""RFC 3820 proxy certificates: what may go into one and who may issue it."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any

from asn1crypto import core
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from proxyagent.errors import ChainError, NoCredentialError, ProtocolError

PROXY_CERT_INFO = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.14")
_DRAFT_PROXY_CERT_INFO = x509.ObjectIdentifier("1.3.6.1.4.1.3536.1.222")
_CLOCK_SKEW = timedelta(minutes=5)
_HINT = "look at the certificate with `openssl x509 -text`; a robot needs an end-entity certificate for signing"

IssuerKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


class Language(Enum):
    """Proxy policy languages (RFC 3820 section 3.8.2, and Globus for limited)."""

    INHERIT_ALL = "1.3.6.1.5.5.7.21.1"
    INDEPENDENT = "1.3.6.1.5.5.7.21.2"
    LIMITED = "1.3.6.1.4.1.3536.1.1.1.9"


@dataclass(frozen=True, slots=True)
class ProxyInfo:
    """The contents of a proxyCertInfo extension."""

    language: Language
    path_length: int | None = None
    """How many proxies may follow; None for any number."""


class _ProxyPolicy(core.Sequence):  # type: ignore[misc]  # asn1crypto has no type information
    _fields = [  # noqa: RUF012  asn1crypto's way to declare a SEQUENCE
        ("language", core.ObjectIdentifier),
        ("policy", core.OctetString, {"optional": True}),
    ]


class _ProxyCertInfo(core.Sequence):  # type: ignore[misc]  # as above
    _fields = [  # noqa: RUF012
        ("path_length", core.Integer, {"optional": True}),
        ("policy", _ProxyPolicy),
    ]


def encode_proxy_info(info: ProxyInfo) -> bytes:
    """The DER of a proxyCertInfo extension (RFC 3820 section 3.8)."""
    value: dict[str, Any] = {"policy": {"language": info.language.value}}
    if info.path_length is not None:
        value["path_length"] = info.path_length
    return bytes(_ProxyCertInfo(value).dump())


def proxy_info(certificate: x509.Certificate) -> ProxyInfo | None:
    """What the certificate says about itself as a proxy; None if it is not one.

    Raises:
        ChainError: it is a proxy of the old draft, or its proxyCertInfo is malformed or not critical.
    """
    found = None
    for extension in certificate.extensions:
        if extension.oid == _DRAFT_PROXY_CERT_INFO:
            raise ChainError("a proxy of the draft before RFC 3820", hint="make an RFC 3820 proxy instead")
        if extension.oid == PROXY_CERT_INFO:
            found = extension
    if found is None:
        return None
    if not found.critical or not isinstance(found.value, x509.UnrecognizedExtension):
        raise ChainError("a proxy certificate whose proxyCertInfo is not critical", hint=_HINT)
    return _decode_proxy_info(found.value.value)


def _decode_proxy_info(der: bytes) -> ProxyInfo:
    try:
        native = _ProxyCertInfo.load(der, strict=True).native
        language = Language(native["policy"]["language"])
        path_length = native["path_length"]
    except (ValueError, TypeError, KeyError) as error:
        raise ChainError("a proxy certificate with an unreadable proxyCertInfo", hint=_HINT) from error
    if path_length is not None and path_length < 0:
        raise ChainError("a proxy certificate with a negative path length", hint=_HINT)
    return ProxyInfo(language, path_length)


def issue_proxy(
    issuer: x509.Certificate,
    issuer_key: IssuerKey,
    public_key: rsa.RSAPublicKey,
    *,
    info: ProxyInfo,
    lifetime: timedelta,
    now: datetime,
) -> x509.Certificate:
    """Issue a proxy certificate for `public_key` (RFC 3820 section 3).

    It starts five minutes ago, for clocks that are behind, but never before its issuer, and never ends after it.

    Raises:
        NoCredentialError: the issuer is out of date or may not issue proxies.
        ProtocolError: the proxy would have more rights than its issuer.
    """
    check_issuer(issuer, now=now)
    info = _constrain(info, proxy_info(issuer))
    # 159 random bits; the serial number is the name as well, so that both are unique (RFC 3820 sections 3.3, 3.4).
    serial = x509.random_serial_number()
    name = x509.RelativeDistinguishedName([x509.NameAttribute(NameOID.COMMON_NAME, str(serial))])
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer.subject)
        .subject_name(x509.Name([*issuer.subject.rdns, name]))
        .public_key(public_key)
        .serial_number(serial)
        .not_valid_before(max(now - _CLOCK_SKEW, issuer.not_valid_before_utc))
        .not_valid_after(min(now + lifetime, issuer.not_valid_after_utc))
        .add_extension(_key_usage(issuer), critical=True)
        .add_extension(x509.UnrecognizedExtension(PROXY_CERT_INFO, encode_proxy_info(info)), critical=True)
        .sign(issuer_key, hashes.SHA256())
    )


def check_issuer(issuer: x509.Certificate, *, now: datetime | None = None) -> None:
    """See that proxies may be issued with this certificate now (RFC 3820 section 3.1).

    Raises:
        NoCredentialError: it is out of date, a CA's, or not for signing.
    """
    now = now or datetime.now(UTC)
    if now >= issuer.not_valid_after_utc:
        raise NoCredentialError(
            f"the certificate ended at {issuer.not_valid_after_utc:%Y-%m-%d %H:%M} UTC",
            hint="get a new certificate from the CA for the same key, then `proxyagent init --certificate FILE`",
        )
    if now < issuer.not_valid_before_utc:
        raise NoCredentialError(
            f"the certificate is not valid before {issuer.not_valid_before_utc:%Y-%m-%d %H:%M} UTC",
            hint="check this computer's clock",
        )
    try:
        constraints = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        constraints = None
    if constraints is not None and constraints.ca:
        raise NoCredentialError("the certificate is that of a CA", hint=_HINT)
    usage = _usage_of(issuer)
    if usage is not None and not usage.digital_signature:
        raise NoCredentialError("the certificate's keyUsage does not allow digitalSignature", hint=_HINT)


def _constrain(wanted: ProxyInfo, issuer: ProxyInfo | None) -> ProxyInfo:
    """What `wanted` becomes below an issuer: limited stays limited, and the path gets shorter."""
    if issuer is None:
        return wanted
    if issuer.path_length == 0:
        raise ProtocolError("this proxy may not issue further ones", hint="use a profile with a longer path_length")
    if issuer.language is Language.LIMITED and wanted.language is Language.INHERIT_ALL:
        raise ProtocolError("a limited proxy issues only limited proxies", hint="ask for a limited proxy")
    if issuer.path_length is None:
        return wanted
    longest = issuer.path_length - 1
    length = longest if wanted.path_length is None else min(wanted.path_length, longest)
    return ProxyInfo(wanted.language, length)


def _usage_of(certificate: x509.Certificate) -> x509.KeyUsage | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return None


def _key_usage(issuer: x509.Certificate) -> x509.KeyUsage:
    """The issuer's key usage without nonRepudiation and those of a CA (RFC 3820 section 3.6)."""
    usage = _usage_of(issuer)
    agreement = usage is not None and usage.key_agreement
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=usage is None or usage.key_encipherment,
        data_encipherment=usage is not None and usage.data_encipherment,
        key_agreement=agreement,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=bool(usage and agreement and usage.encipher_only),
        decipher_only=bool(usage and agreement and usage.decipher_only),
    )
