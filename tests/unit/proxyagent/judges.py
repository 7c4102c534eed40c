"""Who judges chains: OpenSSL's program, OpenSSL in this process, and our own check."""

import os
import subprocess
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from proxyagent.chain import certificates_from_pem, certificates_to_pem, check_links
from proxyagent.errors import ChainError
from proxyagent.memfd import sealed_memfd
from proxyagent.verify import verify_chain

#: Why a chain is refused; None if it is accepted.
Verdict = str | None
Judge = Callable[[Sequence[x509.Certificate], Path], Verdict]


def openssl_program(chain: Sequence[x509.Certificate], ca_directory: Path) -> Verdict:
    """`openssl verify`."""
    descriptor = sealed_memfd("chain", certificates_to_pem(chain).encode())
    with closing(os.fdopen(descriptor)):
        path = f"/proc/self/fd/{descriptor}"
        done = subprocess.run(
            ["openssl", "verify", "-allow_proxy_certs", "-CApath", str(ca_directory), "-untrusted", path, path],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
            pass_fds=[descriptor],
        )
    assert (done.returncode == 0) == done.stdout.endswith(": OK\n"), done
    return None if done.returncode == 0 else done.stderr


def openssl_in_process(chain: Sequence[x509.Certificate], ca_directory: Path) -> Verdict:
    """M2Crypto, as the agent uses it."""
    try:
        verify_chain(certificates_to_pem(chain), ca_directory)
    except ChainError as error:
        return error.message
    return None


def ourselves(chain: Sequence[x509.Certificate], key: rsa.RSAPublicKey) -> Verdict:
    """What a client does with what it gets."""
    try:
        check_links(certificates_from_pem(certificates_to_pem(chain)), key, now=datetime.now(UTC))
    except ChainError as error:
        return error.message
    return None


#: Those that know what is right without us.
JUDGES: dict[str, Judge] = {"openssl verify": openssl_program, "M2Crypto": openssl_in_process}
