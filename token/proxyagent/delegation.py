"""Delegation to services such as ARC CE and FTS: they make a key and send a CSR, and get a proxy below ours.

Not for the agent: a client that holds a proxy signs by itself.
"""

from datetime import datetime, timedelta

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from proxyagent.chain import certificates_from_pem, certificates_to_pem, not_after
from proxyagent.errors import ChainError, NoCredentialError
from proxyagent.proxy import Language, ProxyInfo, issue_proxy, proxy_info
from proxyagent.request import check_request

_HINT = "obtain a new proxy from the agent"


def sign_delegation(chain_pem_and_key: bytes, request: bytes, *, lifetime: timedelta, now: datetime) -> str:
    """Sign the certificate request of a service: a proxy for its key, below ours, with the chain but no key (PEM).

    It ends after `lifetime` or with our own, is limited if ours is, and its path is shorter than ours.

    Args:
        chain_pem_and_key: our proxy as in a proxy file: certificate, unencrypted RSA key and issuers, in PEM.
        request: what the service sent, PKCS#10 in PEM.

    Raises:
        RequestError: the request is not acceptable, as `request.check_request`, or our proxy may not issue another.
        NoCredentialError: our proxy has ended.
        ChainError: what we have is no proxy and its key.
    """
    public_key = check_request(request.decode("ascii", "replace"))
    chain = certificates_from_pem(chain_pem_and_key.decode("ascii", "replace"))
    key = _key_in(chain_pem_and_key)
    if proxy_info(chain[0]) is None or chain[0].public_key() != key.public_key():
        raise ChainError("what should sign the delegation is not a proxy with its key", hint=_HINT)
    if now >= not_after(chain):
        raise NoCredentialError(f"the proxy ended at {not_after(chain):%Y-%m-%d %H:%M} UTC", hint=_HINT)
    # As much as our own proxy allows.
    info = ProxyInfo(Language.INHERIT_ALL)
    leaf = issue_proxy(chain[0], key, public_key, info=info, lifetime=lifetime, now=now)
    return certificates_to_pem((leaf, *chain))


def _key_in(pem: bytes) -> rsa.RSAPrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ChainError("the proxy comes without a readable key", hint=_HINT) from error
    if not isinstance(key, rsa.RSAPrivateKey):
        raise ChainError("the proxy's key is not RSA", hint=_HINT)
    return key
