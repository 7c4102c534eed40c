"""roots://: what is sent and read goes within TLS, and never goes without it."""

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from mover.errors import AccessDeniedError
from mover.sandbox.ca import CertificateAuthority
from mover.sandbox.xrootd import DiskServer
from tests.conformance.relay import Relay
from tests.conformance.subjects import Site, remote_subject

EVENTS = b"events that nobody else is to see " * 1000


class DiskServerWithoutTls(DiskServer):
    """XRootD as it is when nobody has given it a certificate for TLS."""

    def configure(self) -> None:
        super().configure()
        config = self.directory / "etc/server.cfg"
        lines = config.read_text().splitlines(keepends=True)
        config.write_text("".join(line for line in lines if not line.startswith(("xrd.tls", "xrd.protocol", "http."))))


@pytest.mark.parametrize(("kind", "readable"), [("root", True), ("roots", False)])
def test_what_is_seen_on_the_way(site: Site, kind: str, *, readable: bool) -> None:
    subject = remote_subject(kind, site)
    parts = urlsplit(subject.base_url)
    seen = bytearray()
    with Relay(parts.port, open_bytes=1 << 30, tap=seen.extend) as relay:
        endpoint = site.endpoint(kind, site.at(kind, relay.port, parts.path))
        endpoint.upload("a", [EVENTS], len(EVENTS))
        sent = bytes(seen)
        seen.clear()
        assert b"".join(endpoint.read("a")) == EVENTS
        endpoint.close()
    for heard in (sent, bytes(seen)):
        assert len(heard) > len(EVENTS)
        assert (EVENTS[:100] in heard) is readable


def test_server_without_tls_gets_nothing(site: Site, grid_ca: CertificateAuthority, tmp_path: Path) -> None:
    server = DiskServerWithoutTls(tmp_path / "disk", grid_ca, robot="Robot")
    server.start()
    try:
        plain = site.endpoint("root", server.root_url)
        plain.upload("a", [EVENTS], len(EVENTS))
        endpoint = site.endpoint("roots", server.roots_url)
        with pytest.raises(AccessDeniedError, match="encryption"):
            endpoint.upload("b", [EVENTS], len(EVENTS))
        for use in (lambda: endpoint.stat("a"), lambda: next(endpoint.read("a"))):
            with pytest.raises(AccessDeniedError, match="encryption"):
                use()
        assert plain.stat("b") is None
    finally:
        server.close()
