"""Uploads through a WebDAV server that sends clients elsewhere, as dCache's and DPM's doors do."""

import ssl
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from mover.errors import StorageError
from mover.model import ChecksumKind
from mover.sandbox.ca import CertificateAuthority
from tests.conformance.subjects import Site, remote_subject


@contextmanager
def _door(ca: CertificateAuthority, directory: Path, send: Callable[[str, str], str | None]) -> Iterator[int]:
    """Answers 307 to where `send(method, path)` says, or 404 to None."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_expect_100(self) -> bool:
            return True  # without saying '100 Continue'

        def answer(self) -> None:
            where = send(self.command, self.path)
            self.send_response(307 if where else 404)
            self.send_header("Content-Length", "0")
            self.send_header("Connection", "close")
            if where:
                self.send_header("Location", where)
            self.end_headers()
            self.close_connection = True

        do_PUT = do_GET = do_HEAD = do_PROPFIND = do_MKCOL = do_DELETE = do_OPTIONS = answer  # noqa: N815

        def log_message(self, *_arguments: object) -> None:
            """Say nothing."""

    host = ca.issue_host(directory)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(host.certificate, host.key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_body_goes_where_the_door_says(site: Site, tmp_path: Path) -> None:
    subject = remote_subject("davs", site)
    real = urlsplit(subject.base_url)
    with _door(site.ca, tmp_path, lambda _method, path: f"https://{real.netloc}{path}") as port:
        endpoint = site.endpoint("davs", f"davs://localhost:{port}{real.path}")
        endpoint.upload("raw/a", [b"ev", b"ents"], 6)
    assert subject.open().checksum("raw/a", ChecksumKind.ADLER32) == f"{zlib.adler32(b'events'):08x}"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_door_that_leads_nowhere(site: Site, tmp_path: Path, scheme: str) -> None:
    """In circles, or out of TLS."""

    def send(method: str, path: str) -> str | None:
        real = urlsplit(site.disk.davs_url)
        if method == "MKCOL":
            return f"https://{real.netloc}{real.path}/made-for-nothing"
        return f"{scheme}://localhost:{port}{path}" if method == "PUT" else None

    with _door(site.ca, tmp_path, send) as port:
        endpoint = site.endpoint("davs", f"davs://localhost:{port}/disk")
        with pytest.raises(StorageError, match=r"redirect|[Pp]rotocol"):
            endpoint.upload("a", [b"events"], 6)
