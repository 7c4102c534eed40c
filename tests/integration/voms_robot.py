"""A robot with its key in memory, and proxies of it in memory files: for tests of VOMS that need no dongle."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from cryptography import x509

from mover.sandbox.ca import CertificateAuthority
from proxyagent.chain import proxy_pem
from proxyagent.memfd import sealed_memfd
from proxyagent.proxy import Language, ProxyInfo, issue_proxy
from proxyagent.request import new_key
from proxyagent.voms.ac import ac_extension

FULL = ProxyInfo(Language.INHERIT_ALL)
LIMITED = ProxyInfo(Language.LIMITED, path_length=0)


class VomsRobot:
    """An end-entity certificate and a session proxy, as the agent has them."""

    def __init__(self, ca: CertificateAuthority, common_name: str) -> None:
        key = new_key()
        self.name = f"/C=UK/O=Sandbox/CN={common_name}"
        self.certificate = ca.issue_robot(common_name, key.public_key())
        self._session_key, self._client_key = new_key(), new_key()
        public_key = self._session_key.public_key()
        self._session = issue_proxy(
            self.certificate, key, public_key, info=FULL, lifetime=timedelta(hours=12), now=datetime.now(UTC)
        )

    def chain(self, info: ProxyInfo, acs: Sequence[bytes] = ()) -> tuple[x509.Certificate, ...]:
        """A client proxy's chain, with these attribute certificates."""
        client = issue_proxy(
            self._session,
            self._session_key,
            self._client_key.public_key(),
            info=info,
            lifetime=timedelta(hours=1),
            now=datetime.now(UTC),
            extensions=[ac_extension(acs)] if acs else [],
        )
        return (client, self._session, self.certificate)

    @contextmanager
    def proxy(self, info: ProxyInfo, acs: Sequence[bytes] = ()) -> Iterator[int]:
        """The same with its key, in a memory file while the block lasts; its descriptor."""
        descriptor = sealed_memfd("proxy", proxy_pem(self.chain(info, acs), self._client_key))
        try:
            yield descriptor
        finally:
            os.close(descriptor)
