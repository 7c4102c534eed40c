"""Statements that a client signs with its proxy's key, so that others can see later which robot made them.

Not for the agent, whose keys sign proxies only: a client that holds a proxy signs by itself.
"""

from dataclasses import dataclass
from datetime import datetime

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from proxyagent.chain import certificates_from_pem, proxy_from_pem
from proxyagent.errors import ChainError, SignatureError
from proxyagent.jws import Jws, make_jws


@dataclass(frozen=True, slots=True)
class VerifiedChain:
    """What a chain that was verified says."""

    subject: str
    """The proxy's own name in slash form."""
    identity: str
    """The end-entity certificate's name in slash form: the robot."""
    not_before: datetime
    """When the last certificate of the chain begins (UTC, aware)."""
    not_after: datetime
    """When the first certificate of the chain ends (UTC, aware)."""


def sign_statement(chain_pem_and_key: bytes, payload: bytes, media_type: str, *, now: datetime) -> bytes:
    """The payload, signed with the key of our proxy, as a JWS.

    What is signed is text that the header begins. So a statement can never be read as a proxy certificate (DER) or a
    TLS handshake, nor a signature over one of those be passed off as a statement.

    Args:
        chain_pem_and_key: our proxy as in a proxy file: certificate, unencrypted RSA key and issuers, in PEM.

    Raises:
        NoCredentialError: our proxy has ended.
        ChainError: what we have is no proxy and its key.
        SignatureError: the payload is too large.
    """
    chain, key = proxy_from_pem(chain_pem_and_key, now=now)

    def sign(text: bytes) -> bytes:
        return key.sign(text, padding.PKCS1v15(), hashes.SHA256())

    return make_jws(payload, media_type, [each.public_bytes(Encoding.DER) for each in chain], sign)


def check_signature(statement: Jws) -> None:
    """See that the key of the chain's first certificate has signed it. The chain itself is not judged here.

    Raises:
        SignatureError: it has not.
        ChainError: the chain is unreadable.
    """
    key = certificates_from_pem(statement.chain_pem.decode("ascii", "replace"))[0].public_key()
    if not isinstance(key, rsa.RSAPublicKey):
        raise ChainError("the chain's key is not RSA", hint="see what signed it with `openssl x509 -text`")
    try:
        key.verify(statement.signature, statement.signing_input, padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature as error:
        raise SignatureError(
            "the signature is not over this text", hint="text or signature were changed: compare with other copies"
        ) from error
