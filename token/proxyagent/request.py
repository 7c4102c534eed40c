"""Certificate requests (PKCS#10): what a client sends instead of a key."""

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from proxyagent.errors import RequestError

KEY_SIZE_BITS = 2048
_MAX_KEY_SIZE_BITS = 8192
_PUBLIC_EXPONENT = 65537
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

    Raises:
        RequestError: it is malformed, forged, or its key is not RSA or too short, too long or of a bad exponent.
    """
    try:
        request = x509.load_pem_x509_csr(pem.encode())
        key = request.public_key()
        genuine = request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise RequestError("unreadable certificate request", hint=_HINT) from error
    check_public_key(key)
    if not genuine or not isinstance(key, rsa.RSAPublicKey):
        raise RequestError("the certificate request is not signed by its own key", hint=_HINT)
    return key


def check_public_key(key: object) -> rsa.RSAPublicKey:
    """The key, if a proxy may have it.

    Raises:
        RequestError: it is not RSA, too short, too long, or has a small exponent.
    """
    if not isinstance(key, rsa.RSAPublicKey):
        raise RequestError("a proxy's key must be RSA", hint=_HINT)
    if not KEY_SIZE_BITS <= key.key_size <= _MAX_KEY_SIZE_BITS:
        raise RequestError(f"a proxy's key of {key.key_size} bits is not acceptable", hint=_HINT)
    if key.public_numbers().e < _PUBLIC_EXPONENT:
        raise RequestError("a proxy's key with a small public exponent", hint=_HINT)
    return key
