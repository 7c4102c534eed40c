"""Certificate requests (PKCS#10): what a client or a service sends instead of a key."""

import re

from asn1crypto import pem as armor
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

from proxyagent.errors import RequestError
from proxyagent.extensions import UNREADABLE

KEY_SIZE_BITS = 2048
_MAX_KEY_SIZE_BITS = 8192
_PUBLIC_EXPONENT = 65537
_MAX_REQUEST_BYTES = 1 << 16
_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
# The head of a request in DER: a SEQUENCE in a SEQUENCE, and a version of one byte.
_LENGTH = rb"(?:[\x00-\x7f]|\x81.|\x82..)"
_HEAD = re.compile(rb"(\x30" + _LENGTH + rb")\x30" + _LENGTH + rb"\x02\x01(?=[\x00-\x02])", re.DOTALL)
_HINT = "send a PKCS#10 request in PEM, signed by its own RSA key of 2048 bits or more"


def new_key() -> rsa.RSAPrivateKey:
    """A fresh proxy key. RSA, because root:// and gsiftp:// servers take nothing else."""
    return rsa.generate_private_key(public_exponent=_PUBLIC_EXPONENT, key_size=KEY_SIZE_BITS)


def make_request(key: rsa.RSAPrivateKey) -> str:
    """A request (PEM) that proves possession of `key`. The issuer chooses the name, so any subject will do."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "proxy")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def check_request(pem: str) -> rsa.RSAPublicKey:
    """The public key of a request whose signature is right (RFC 2986 section 4.2). Nothing else in it counts.

    Versions up to 2 are taken: ARC CE writes 2 where RFC 2986 wants 0.

    Raises:
        RequestError: it is malformed or forged, its signature is weak, or its key is one that a proxy may not have.
    """
    # 1. Read it; cryptography refuses any version but 0, so that is what it is shown.
    try:
        der = _der(pem)
        head = _HEAD.match(der)
        if head is None:
            raise ValueError("not a request of version 0, 1 or 2")
        parsed = x509.load_der_x509_csr(der[: head.end()] + b"\0" + der[head.end() + 1 :])
        key, digest = parsed.public_key(), parsed.signature_hash_algorithm
        scheme = parsed.signature_algorithm_parameters
    except UNREADABLE as error:
        raise RequestError("unreadable certificate request", hint=_HINT) from error
    # 2. Its key is good enough for a proxy.
    key = check_public_key(key)
    if not isinstance(digest, _HASHES) or not isinstance(scheme, padding.PKCS1v15 | padding.PSS):
        raise RequestError("the certificate request has a weak signature", hint=_HINT)
    # 3. The signature is over what was sent.
    begin = head.end(1)
    signed = der[begin : begin + len(parsed.tbs_certrequest_bytes)]
    try:
        key.verify(parsed.signature, signed, scheme, digest)
    except InvalidSignature as error:
        raise RequestError("the certificate request is not signed by its own key", hint=_HINT) from error
    return key


def check_public_key(key: object) -> rsa.RSAPublicKey:
    """The key, if a proxy may have it.

    Raises:
        RequestError: it is not RSA, too short, too long, or has a small, huge or even exponent.
    """
    if not isinstance(key, rsa.RSAPublicKey):
        raise RequestError("a proxy's key must be RSA", hint=_HINT)
    if not KEY_SIZE_BITS <= key.key_size <= _MAX_KEY_SIZE_BITS:
        raise RequestError(f"a proxy's key of {key.key_size} bits is not acceptable", hint=_HINT)
    # A huge exponent would make every check of a signature slow.
    exponent = key.public_numbers().e
    if not _PUBLIC_EXPONENT <= exponent < 1 << 32 or exponent % 2 == 0:
        raise RequestError("a proxy's key with a bad public exponent", hint=_HINT)
    return key


def _der(pem: str) -> bytes:
    if len(pem) > _MAX_REQUEST_BYTES:
        raise ValueError("too long for a request")
    kind, _, der = armor.unarmor(pem.encode("ascii"))
    if kind not in ("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"):
        raise ValueError("no certificate request")
    return bytes(der)
