"""Certificate chains: PEM in the order Grid software reads it, and what holds them together."""

import itertools
from collections.abc import Sequence, Set
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtensionOID, NameOID

from proxyagent.clock import SKEW
from proxyagent.errors import ChainError, NoCredentialError
from proxyagent.extensions import UNREADABLE, extensions_of, is_ca
from proxyagent.proxy import PROXY_CERT_INFO, Language, ProxyInfo, check_signer, proxy_info

_MAX_CERTIFICATES = 16
_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_FORBIDDEN = {ExtensionOID.SUBJECT_ALTERNATIVE_NAME, ExtensionOID.ISSUER_ALTERNATIVE_NAME}
_KNOWN_CRITICAL = {
    PROXY_CERT_INFO,
    ExtensionOID.BASIC_CONSTRAINTS,
    ExtensionOID.EXTENDED_KEY_USAGE,
    ExtensionOID.KEY_USAGE,
}
_KNOWN_CRITICAL_EEC = {ExtensionOID.CERTIFICATE_POLICIES, ExtensionOID.SUBJECT_ALTERNATIVE_NAME}
_HINT = "update client and agent to the same version; if they are, somebody else answers on the agent's socket"
_OBTAIN = "obtain a new proxy from the agent"

# RFC 4514 short names that Grid software writes in slash form; others appear as dotted numbers.
_SHORT_NAMES = {
    "2.5.4.3": "CN",
    "2.5.4.6": "C",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "0.9.2342.19200300.100.1.25": "DC",
    "0.9.2342.19200300.100.1.1": "UID",
    "1.2.840.113549.1.9.1": "emailAddress",
}


def grid_name(name: x509.Name) -> str:
    """The name in the slash form of Grid software, such as /C=UK/O=Sandbox/CN=Robot."""
    parts = (f"{_SHORT_NAMES.get(a.oid.dotted_string, a.oid.dotted_string)}={a.value!s}" for a in name)
    return "".join(f"/{part}" for part in parts)


def certificates_to_pem(certificates: Sequence[x509.Certificate]) -> str:
    """The certificates one after the other, leaf first."""
    return "".join(each.public_bytes(serialization.Encoding.PEM).decode() for each in certificates)


def certificates_from_pem(pem: str) -> tuple[x509.Certificate, ...]:
    """The certificates in a PEM text.

    Raises:
        ChainError: there is none, one is malformed, or there are absurdly many.
    """
    try:
        certificates = tuple(x509.load_pem_x509_certificates(pem.encode()))
    except UNREADABLE as error:
        raise ChainError("unreadable certificate chain", hint=_HINT) from error
    if len(certificates) > _MAX_CERTIFICATES:
        raise ChainError(f"a chain of {len(certificates)} certificates", hint=_HINT)
    for each in certificates:
        check_readable(each)
    return certificates


def check_readable(certificate: x509.Certificate) -> None:
    """See that everything in a foreign certificate can be read; otherwise that would only show at the first use.

    Raises:
        ChainError: something in it is malformed or of an unknown kind.
    """
    extensions_of(certificate)
    try:
        _ = certificate.subject, certificate.issuer, certificate.signature_hash_algorithm
        _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        certificate.public_key()
    except UNREADABLE as error:
        raise ChainError("a certificate that cannot be read", hint=_HINT) from error


def proxy_pem(certificates: Sequence[x509.Certificate], key: rsa.RSAPrivateKey) -> bytes:
    """A proxy file's contents: leaf, its key in the traditional format (GSI reads no other), then the issuers."""
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    return b"".join(
        (certificates_to_pem(certificates[:1]).encode(), secret, certificates_to_pem(certificates[1:]).encode())
    )


def proxy_from_pem(pem: bytes, *, now: datetime) -> tuple[tuple[x509.Certificate, ...], rsa.RSAPrivateKey]:
    """The chain and the unencrypted key of our own proxy, as `proxy_pem` writes them.

    Raises:
        ChainError: it is no proxy with its key.
        NoCredentialError: it has ended.
    """
    chain = certificates_from_pem(pem.decode("ascii", "replace"))
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ChainError("the proxy comes without a readable key", hint=_OBTAIN) from error
    if not isinstance(key, rsa.RSAPrivateKey):
        raise ChainError("the proxy's key is not RSA", hint=_OBTAIN)
    if proxy_info(chain[0]) is None or chain[0].public_key() != key.public_key():
        raise ChainError("what should sign is not a proxy with its key", hint=_OBTAIN)
    if now >= not_after(chain):
        raise NoCredentialError(f"the proxy ended at {not_after(chain):%Y-%m-%d %H:%M} UTC", hint=_OBTAIN)
    return chain, key


def check_links(certificates: Sequence[x509.Certificate], public_key: rsa.RSAPublicKey, *, now: datetime) -> None:
    """See that this is a valid chain of proxies for our key, as `check_proxies`.

    Raises:
        ChainError: it is not, for the reason in the message.
    """
    if not certificates or certificates[0].public_key() != public_key:
        raise ChainError("the chain is not for the key that was sent", hint=_HINT)
    check_proxies(certificates, now=now)


def check_proxies(certificates: Sequence[x509.Certificate], *, now: datetime) -> None:
    """See that this is a valid chain of proxies, leaf first, down from an end-entity certificate.

    Stricter than OpenSSL, which does not know limited proxies and takes a basicConstraints that is wrong in a leaf. The
    end-entity certificate's own issuer is not judged here: that takes a CA directory, see `verify.verify_chain`.

    Raises:
        ChainError: it is not, for the reason in the message.
    """
    # 1. The last is no proxy, there is at least one before it, and nothing in any of them is beyond us.
    if len(certificates) < 2 or proxy_info(certificates[-1]) is not None:
        raise ChainError("the chain does not end in an end-entity certificate", hint=_HINT)
    _check_critical(certificates[-1], _KNOWN_CRITICAL | _KNOWN_CRITICAL_EEC)
    # 2. Every other is a proxy as the RFC wants it, of the next one, which may issue proxies.
    for child, issuer in itertools.pairwise(certificates):
        _check_proxy(child)
        _check_link(child, issuer)
        check_signer(issuer)
    # 3. No path is longer than a certificate above allows, and below a limited proxy all are limited.
    _check_constraints([info for each in certificates if (info := proxy_info(each)) is not None])
    # 4. All of them are valid now.
    if any(now < each.not_valid_before_utc - SKEW for each in certificates):
        raise ChainError("a certificate of the chain is not valid yet", hint="check this computer's clock")
    if now >= not_after(certificates):
        raise ChainError("a certificate of the chain has ended", hint="run `proxyagent renew`")


def _check_proxy(certificate: x509.Certificate) -> None:
    """What RFC 3820 section 3 wants of a proxy certificate by itself."""
    if proxy_info(certificate) is None:
        raise ChainError("a certificate of the chain is not a proxy", hint=_HINT)
    if is_ca(certificate):  # section 3.7
        raise ChainError("a proxy that calls itself a CA", hint=_HINT)
    if any(each.oid in _FORBIDDEN for each in extensions_of(certificate)):  # sections 3.2 and 3.5
        raise ChainError("a proxy with an alternative name", hint=_HINT)
    _check_critical(certificate, _KNOWN_CRITICAL)
    key = certificate.public_key()
    strong = key.key_size >= 2048 if isinstance(key, rsa.RSAPublicKey) else isinstance(key, ec.EllipticCurvePublicKey)
    if not strong or not isinstance(certificate.signature_hash_algorithm, _HASHES):
        raise ChainError("a proxy with a weak key or signature", hint=_HINT)


def _check_link(child: x509.Certificate, issuer: x509.Certificate) -> None:
    """The proxy has its issuer's name and one CN more (RFC 3820 section 3.4), and its signature."""
    last = child.subject.rdns[-1:]
    one_cn_more = [[each.oid for each in rdn] for rdn in last] == [[NameOID.COMMON_NAME]]
    if not one_cn_more or child.subject.rdns[:-1] != issuer.subject.rdns:
        raise ChainError("a proxy's name is not its issuer's name and one more", hint=_HINT)
    try:
        child.verify_directly_issued_by(issuer)
    except (*UNREADABLE, InvalidSignature) as error:
        raise ChainError("a proxy of the chain is not signed by the next certificate", hint=_HINT) from error


def _check_constraints(proxies: Sequence[ProxyInfo]) -> None:
    """Of the proxies of a chain, leaf first: path lengths (RFC 3820 section 4.1.3) and limitation (Globus)."""
    for below, info in enumerate(proxies):
        if info.path_length is not None and below > info.path_length:
            raise ChainError(f"{below} proxies below one that allows {info.path_length}", hint=_HINT)
        if info.language is Language.LIMITED and any(each.language is not Language.LIMITED for each in proxies[:below]):
            raise ChainError("a proxy below a limited one is not limited", hint=_HINT)


def _check_critical(certificate: x509.Certificate, known: Set[x509.ObjectIdentifier]) -> None:
    for each in extensions_of(certificate):
        if each.critical and each.oid not in known:
            raise ChainError(f"the unknown critical extension {each.oid.dotted_string} in the chain", hint=_HINT)


def not_after(certificates: Sequence[x509.Certificate]) -> datetime:
    """When the first certificate of the chain ends (UTC, aware)."""
    return min(each.not_valid_after_utc for each in certificates)
