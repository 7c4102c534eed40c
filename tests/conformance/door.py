"""A WebDAV server over TLS that answers what a test says: it sends clients elsewhere, or lies."""

import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from mover.sandbox.ca import CertificateAuthority


@dataclass(frozen=True)
class Answer:
    """A status, headers beside Content-Length, and a body, of which `length` may tell a lie.

    Before it, `takes_bytes` of the request's body are asked for, read, and given to `took`; the rest never is.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    length: int | None = None
    takes_bytes: int = 0
    took: Callable[[bytes], object] = len


def redirect(where: str) -> Answer:
    """307: the same request, to `where`."""
    return Answer(307, {"Location": where})


@contextmanager
def door(ca: CertificateAuthority, directory: Path, answer: Callable[[str, str], Answer]) -> Iterator[int]:
    """A server on that port of localhost that gives `answer(method, path)`; `directory` takes its host certificate."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_expect_100(self) -> bool:
            return True  # without saying '100 Continue'

        def answer(self) -> None:
            given = answer(self.command, self.path)
            if given.takes_bytes:
                self.send_response_only(100)
                self.end_headers()
            given.took(self.rfile.read(given.takes_bytes))
            self.send_response(given.status)
            for name, value in given.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(given.body) if given.length is None else given.length))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(given.body)
            self.close_connection = True

        do_PUT = do_GET = do_HEAD = do_PROPFIND = do_MKCOL = answer  # noqa: N815
        do_MOVE = do_DELETE = do_OPTIONS = do_POST = do_COPY = answer  # noqa: N815

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
