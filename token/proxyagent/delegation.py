"""Delegation to services such as ARC CE and FTS: they make a key and send a CSR, and get a proxy below ours.

Not for the agent: a client that holds a proxy signs by itself.
"""

from datetime import datetime, timedelta

from proxyagent.chain import certificates_to_pem, proxy_from_pem
from proxyagent.proxy import Language, ProxyInfo, issue_proxy
from proxyagent.request import check_request


def sign_delegation(
    chain_pem_and_key: bytes, request: bytes, *, lifetime: timedelta, now: datetime, limited: bool = False
) -> str:
    """Sign the certificate request of a service: a proxy for its key, below ours, with the chain but no key (PEM).

    It ends after `lifetime` or with our own, is limited if ours is or if `limited`, and its path is shorter than ours.

    Args:
        chain_pem_and_key: our proxy as in a proxy file: certificate, unencrypted RSA key and issuers, in PEM.
        request: what the service sent, PKCS#10 in PEM.

    Raises:
        RequestError: the request is not acceptable, as `request.check_request`, or our proxy may not issue another.
        NoCredentialError: our proxy has ended.
        ChainError: what we have is no proxy and its key.
    """
    public_key = check_request(request.decode("ascii", "replace"))
    chain, key = proxy_from_pem(chain_pem_and_key, now=now)
    # Otherwise as much as our own proxy allows.
    info = ProxyInfo(Language.LIMITED if limited else Language.INHERIT_ALL)
    leaf = issue_proxy(chain[0], key, public_key, info=info, lifetime=lifetime, now=now)
    return certificates_to_pem((leaf, *chain))
