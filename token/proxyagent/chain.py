"""Certificate chains: PEM in the order Grid software reads it, and what holds them together."""

import itertools
from collections.abc import Sequence
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from proxyagent.errors import ChainError
from proxyagent.proxy import proxy_info

_MAX_CERTIFICATES = 16
_HINT = "update client and agent to the same version; if they are, somebody else answers on the agent's socket"

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
    except ValueError as error:
        raise ChainError("unreadable certificate chain", hint=_HINT) from error
    if len(certificates) > _MAX_CERTIFICATES:
        raise ChainError(f"a chain of {len(certificates)} certificates", hint=_HINT)
    return certificates


def proxy_pem(certificates: Sequence[x509.Certificate], key: rsa.RSAPrivateKey) -> bytes:
    """A proxy file's contents: leaf, its key in the traditional format (GSI reads no other), then the issuers."""
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    return b"".join(
        (certificates_to_pem(certificates[:1]).encode(), secret, certificates_to_pem(certificates[1:]).encode())
    )


def check_links(certificates: Sequence[x509.Certificate], public_key: rsa.RSAPublicKey, *, now: datetime) -> None:
    """See that this is a valid chain of proxies for our key, down from an end-entity certificate.

    The end-entity certificate itself is not judged here: that takes a CA directory, see `verify.verify_chain`.

    Raises:
        ChainError: it is not, for the reason in the message.
    """
    # 1. The leaf is for our key.
    if not certificates or certificates[0].public_key() != public_key:
        raise ChainError("the chain is not for the key that was sent", hint=_HINT)
    # 2. Every certificate but the last is a proxy of the next, by name and by signature (RFC 3820 section 3.4).
    for child, issuer in itertools.pairwise(certificates):
        _check_link(child, issuer)
    # 3. The last is no proxy, and there is at least one before it.
    if len(certificates) < 2 or proxy_info(certificates[-1]) is not None:
        raise ChainError("the chain does not end in an end-entity certificate", hint=_HINT)
    # 4. All of them are valid now.
    if any(now < each.not_valid_before_utc for each in certificates):
        raise ChainError("a certificate of the chain is not valid yet", hint="check this computer's clock")
    if now >= not_after(certificates):
        raise ChainError("a certificate of the chain has ended", hint="run `proxyagent renew`")


def _check_link(child: x509.Certificate, issuer: x509.Certificate) -> None:
    if proxy_info(child) is None:
        raise ChainError("a certificate of the chain is not a proxy", hint=_HINT)
    if child.subject.rdns[:-1] != issuer.subject.rdns:
        raise ChainError("a proxy's name is not its issuer's name and one more", hint=_HINT)
    try:
        child.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise ChainError("a proxy of the chain is not signed by the next certificate", hint=_HINT) from error


def not_after(certificates: Sequence[x509.Certificate]) -> datetime:
    """When the first certificate of the chain ends (UTC, aware)."""
    return min(each.not_valid_after_utc for each in certificates)
