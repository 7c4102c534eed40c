"""Statements that a client signs with its proxy's key, so that others can see later which robot made them.

Not for the agent, whose keys sign proxies only: a client that holds a proxy signs by itself.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from proxyagent.chain import certificates_from_pem, certificates_to_pem, proxy_from_pem
from proxyagent.errors import ChainError, SignatureError

#: As RFC 4055 section 5 names it: RSASSA-PKCS1-v1_5 with SHA-256. Clients' proxies have RSA keys only.
ALGORITHM = "sha256WithRSAEncryption"
#: Signed before the statement itself. So a statement can never be read as a proxy certificate or a TLS handshake, nor
#: a signature over one of those be passed off as a statement.
CONTEXT = b"proxyagent statement 1\n"


class Signed(NamedTuple):
    """A detached signature, and whose it is."""

    signature: bytes
    algorithm: str
    """How it was made: `ALGORITHM`."""
    chain_pem: bytes
    """The proxy's certificate, then its issuers down to the end-entity certificate; no key."""


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


def sign_statement(chain_pem_and_key: bytes, data: bytes, *, now: datetime) -> Signed:
    """Sign `CONTEXT` and `data` with the key of our proxy.

    Args:
        chain_pem_and_key: our proxy as in a proxy file: certificate, unencrypted RSA key and issuers, in PEM.

    Raises:
        NoCredentialError: our proxy has ended.
        ChainError: what we have is no proxy and its key.
    """
    chain, key = proxy_from_pem(chain_pem_and_key, now=now)
    signature = key.sign(CONTEXT + data, padding.PKCS1v15(), hashes.SHA256())
    return Signed(signature, ALGORITHM, certificates_to_pem(chain).encode())


def check_signature(data: bytes, signed: Signed) -> None:
    """See that the key of the chain's first certificate has signed `data`. The chain itself is not judged here.

    Raises:
        SignatureError: it has not, or the signature is of a kind that we do not know.
        ChainError: the chain is unreadable.
    """
    if signed.algorithm != ALGORITHM:
        raise SignatureError(
            f"a signature of the unknown kind {signed.algorithm[:80]!r}", hint="verify it with the version that made it"
        )
    key = certificates_from_pem(signed.chain_pem.decode("ascii", "replace"))[0].public_key()
    if not isinstance(key, rsa.RSAPublicKey):
        raise ChainError("the chain's key is not RSA", hint="see what signed it with `openssl x509 -text`")
    try:
        key.verify(signed.signature, CONTEXT + data, padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature as error:
        raise SignatureError(
            "the signature is not over this text", hint="text or signature were changed: compare with other copies"
        ) from error
