"""RFC 3820 proxy certificates: what may go into one and who may issue it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any

from asn1crypto import core
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from proxyagent.clock import SKEW
from proxyagent.errors import ChainError, NoCredentialError, RequestError
from proxyagent.extensions import extensions_of, is_ca, key_usage_of

PROXY_CERT_INFO = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.14")
# id-ce: among them those that a proxy may not have, such as subjectAltName.
_STANDARD_EXTENSIONS = "2.5.29."
_DRAFT_PROXY_CERT_INFO = x509.ObjectIdentifier("1.3.6.1.4.1.3536.1.222")
_HINT = "look at the certificate with `openssl x509 -text`; a robot needs an end-entity certificate for signing"
_PROXY_HINT = "make a proxy that conforms to RFC 3820 instead"

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
        ChainError: it is a proxy of the old draft, or its proxyCertInfo is malformed, not critical, or has a policy
            that we do not know (RFC 3820 section 3.8.2 wants it refused then).
    """
    found = None
    for extension in extensions_of(certificate):
        if extension.oid == _DRAFT_PROXY_CERT_INFO:
            raise ChainError("a proxy of the draft before RFC 3820", hint=_PROXY_HINT)
        if extension.oid == PROXY_CERT_INFO:
            found = extension
    if found is None:
        return None
    if not found.critical or not isinstance(found.value, x509.UnrecognizedExtension):
        raise ChainError("a proxy certificate whose proxyCertInfo is not critical", hint=_PROXY_HINT)
    return _decode_proxy_info(found.value.value)


def _decode_proxy_info(der: bytes) -> ProxyInfo:
    try:
        native = _ProxyCertInfo.load(der, strict=True).native
        policy, path_length = native["policy"], native["path_length"]
        name = str(policy["language"])
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise ChainError("a proxy certificate with an unreadable proxyCertInfo", hint=_PROXY_HINT) from error
    try:
        language = Language(name)
    except ValueError as error:
        raise ChainError(
            f"a proxy certificate with the unknown policy language {name[:80]}", hint=_PROXY_HINT
        ) from error
    # Forbidden with inheritAll and independent; Globus defines none for limited.
    if policy["policy"] is not None:
        raise ChainError("a proxy certificate with a policy beside its language", hint=_PROXY_HINT)
    if path_length is not None and path_length < 0:
        raise ChainError("a proxy certificate with a negative path length", hint=_PROXY_HINT)
    return ProxyInfo(language, path_length)


def issue_proxy(
    issuer: x509.Certificate,
    issuer_key: IssuerKey,
    public_key: rsa.RSAPublicKey,
    *,
    info: ProxyInfo,
    lifetime: timedelta,
    now: datetime,
    extensions: Sequence[x509.UnrecognizedExtension] = (),
) -> x509.Certificate:
    """Issue a proxy certificate for `public_key` (RFC 3820 section 3).

    It starts five minutes before `now`, for clocks that are behind, but never before its issuer, and never ends after
    it. Rights only shrink: below a limited proxy it is limited, and its path is shorter than its issuer's.

    Args:
        extensions: what else goes in, not critical, such as a VOMS attribute certificate.

    Raises:
        NoCredentialError: the issuer is out of date or may not issue proxies.
        RequestError: the issuer's path or language does not allow this proxy, it has the issuer's key, or no lifetime.
        ChainError: the issuer is a proxy that does not conform.
    """
    check_issuer(issuer, now=now)
    info = _constrain(info, proxy_info(issuer))
    if public_key == issuer.public_key():
        raise RequestError("a proxy may not have its issuer's key", hint="make a new key for every proxy")
    begin = max(now - SKEW, issuer.not_valid_before_utc)
    end = min(now + lifetime, issuer.not_valid_after_utc)
    if end - max(begin, now) < timedelta(seconds=1):
        raise RequestError("the proxy would end before it begins", hint="ask for a longer lifetime")
    # 159 random bits; the serial number is the name as well, so that both are unique (RFC 3820 sections 3.3, 3.4).
    serial = x509.random_serial_number()
    name = x509.RelativeDistinguishedName([x509.NameAttribute(NameOID.COMMON_NAME, str(serial))])
    builder = (
        x509.CertificateBuilder()
        .issuer_name(issuer.subject)
        .subject_name(x509.Name([*issuer.subject.rdns, name]))
        .public_key(public_key)
        .serial_number(serial)
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(_key_usage(issuer), critical=True)
        .add_extension(x509.UnrecognizedExtension(PROXY_CERT_INFO, encode_proxy_info(info)), critical=True)
    )
    for extension in extensions:
        if extension.oid.dotted_string.startswith(_STANDARD_EXTENSIONS):
            raise ValueError(f"{extension.oid.dotted_string} is not for the caller to choose")
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def check_issuer(issuer: x509.Certificate, *, now: datetime | None = None) -> None:
    """See that proxies may be issued with this certificate now (RFC 3820 section 3.1).

    Raises:
        NoCredentialError: it is out of date, a CA's, nameless, or not for signing.
    """
    now = now or datetime.now(UTC)
    if now >= issuer.not_valid_after_utc:
        raise NoCredentialError(
            f"the certificate ended at {issuer.not_valid_after_utc:%Y-%m-%d %H:%M} UTC",
            hint="get a new certificate from the CA for the same key, then `proxyagent init --certificate FILE`",
        )
    if now < issuer.not_valid_before_utc - SKEW:
        raise NoCredentialError(
            f"the certificate is not valid before {issuer.not_valid_before_utc:%Y-%m-%d %H:%M} UTC",
            hint="check this computer's clock",
        )
    try:
        check_signer(issuer)
    except ChainError as error:
        raise NoCredentialError(error.message, hint=_HINT) from error


def check_signer(certificate: x509.Certificate) -> None:
    """See that a certificate, whenever it is valid, may sign proxies (RFC 3820 sections 3.1 and 3.7).

    Raises:
        ChainError: it is a CA's, nameless, or its keyUsage does not allow it.
    """
    if is_ca(certificate):
        raise ChainError("the certificate is that of a CA", hint=_HINT)
    if not certificate.subject.rdns:
        raise ChainError("the certificate has no subject name", hint=_HINT)
    usage = key_usage_of(certificate)
    if usage is not None and not usage.digital_signature:
        raise ChainError("the certificate's keyUsage does not allow digitalSignature", hint=_HINT)


def _constrain(wanted: ProxyInfo, issuer: ProxyInfo | None) -> ProxyInfo:
    """What `wanted` becomes below an issuer: limited stays limited, and the path gets shorter."""
    if issuer is None:
        return wanted
    if issuer.path_length == 0:
        raise RequestError("this proxy may not issue further ones", hint="use a profile with a longer path_length")
    if issuer.language is Language.LIMITED:
        if wanted.language is Language.INDEPENDENT:
            raise RequestError("a limited proxy issues only limited proxies", hint="ask for a limited proxy")
        wanted = replace(wanted, language=Language.LIMITED)
    if issuer.path_length is None:
        return wanted
    longest = issuer.path_length - 1
    return replace(wanted, path_length=longest if wanted.path_length is None else min(wanted.path_length, longest))


def _key_usage(issuer: x509.Certificate) -> x509.KeyUsage:
    """The issuer's key usage without nonRepudiation and those of a CA (RFC 3820 section 4.2 takes the intersection)."""
    usage = key_usage_of(issuer)
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
