"""Whether a chain was good at an earlier time: for signatures that are verified long after their proxy has ended."""

from datetime import UTC, datetime
from pathlib import Path

from proxyagent.chain import certificates_from_pem, certificates_to_pem, check_proxies, grid_name, not_after
from proxyagent.crl import check_revocation
from proxyagent.errors import ChainError
from proxyagent.statement import VerifiedChain
from proxyagent.verify import verify_chain

_HINT = "look at the chain with `openssl storeutl -noout -text FILE`; the time must be that of the signature"


def verify_chain_at(pem: bytes, ca_directory: Path, at: datetime) -> VerifiedChain:
    """Verify a chain of proxies, leaf first, as of the time `at`; see `client.verify_chain`."""
    chain = certificates_from_pem(pem.decode("ascii", "replace"))
    # 1. The proxies keep to RFC 3820, and all were valid then.
    try:
        check_proxies(chain, now=at)
    except ChainError as error:
        raise type(error)(error.message, hint=_HINT) from error
    # 2. OpenSSL finds the same, up to a root of the directory (RFC 5280 section 6.1).
    verify_chain(certificates_to_pem(chain), ca_directory, now=at)
    # 3. Nothing from the end-entity certificate up was revoked (RFC 5280 section 6.3). Proxies have no CRLs.
    check_revocation(chain[-1], ca_directory, now=datetime.now(UTC), at=at)
    return VerifiedChain(
        subject=grid_name(chain[0].subject),
        identity=grid_name(chain[-1].subject),
        not_before=max(each.not_valid_before_utc for each in chain),
        not_after=not_after(chain),
    )
