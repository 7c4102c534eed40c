"""The plain WebDAV server: one robot by davs://, no checksums, nobody else, no other file, the same after an outage."""

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import gfal2
import pycurl
import pytest

from mover.errors import SandboxError
from mover.sandbox.ca import CertificateAuthority
from mover.sandbox.webdav import WebDavServer
from tests.integration.sandbox.clients import gfal, https, listening
from tests.integration.sandbox.proxies import MemoryProxy

_CONTENT = bytes(range(256)) * 4000
_MISSING, _NOT_SUPPORTED = 2, 38


@pytest.fixture(scope="module")
def server(grid_ca: CertificateAuthority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebDavServer]:
    for program, package in {"apache2": "apache2-bin", "g++": "g++"}.items():
        if shutil.which(program, path="/usr/sbin:/usr/bin") is None:
            pytest.skip(f"apt install {package}")
    made = WebDavServer(tmp_path_factory.mktemp("site") / ("long" * 30) / "webdav", grid_ca, robot="Robot")
    try:
        made.start()
        yield made
    finally:
        made.close()


class Client:
    """curl with one proxy, or none."""

    def __init__(self, server: WebDavServer, ca: CertificateAuthority, proxy: MemoryProxy | None) -> None:
        self._server = server
        self._ca = str(ca.directory)
        self._proxy = proxy.path if proxy else None

    def __call__(self, method: str, name: str, *headers: str, body: bytes = b"") -> int:
        url = f"{self._server.davs_url}/{name}"
        return https(method, url, ca=self._ca, proxy=self._proxy, body=body, headers=list(headers))


@pytest.fixture
def robot(server: WebDavServer, grid_ca: CertificateAuthority, robot_proxy: MemoryProxy) -> Client:
    return Client(server, grid_ca, robot_proxy)


@pytest.fixture
def context(robot_proxy: MemoryProxy) -> Any:
    return gfal(robot_proxy.path)


def test_the_robot_writes_reads_renames_and_removes(server: WebDavServer, context: Any, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(_CONTENT)
    base = f"{server.davs_url}/usual"
    context.mkdir_rec(f"{base}/a/b", 0o755)
    context.filecopy(f"file://{tmp_path}/source", f"{base}/a/b/one")
    assert (server.disk_directory / "usual/a/b/one").read_bytes() == _CONTENT
    assert context.stat(f"{base}/a/b/one").st_size == len(_CONTENT)
    context.rename(f"{base}/a/b/one", f"{base}/a/b/two")
    assert context.listdir(f"{base}/a/b") == ["two"]
    context.filecopy(f"{base}/a/b/two", f"file://{tmp_path}/back")
    assert (tmp_path / "back").read_bytes() == _CONTENT
    context.unlink(f"{base}/a/b/two")
    with pytest.raises(gfal2.GError) as raised:
        context.stat(f"{base}/a/b/two")
    assert raised.value.code == _MISSING


@pytest.mark.parametrize("kind", ["ADLER32", "MD5"])
def test_it_knows_no_checksums(server: WebDavServer, robot: Client, context: Any, kind: str) -> None:
    """And gfal2 does not compute them by reading the file."""
    assert robot("PUT", "sum", body=_CONTENT) in {201, 204}
    with pytest.raises(gfal2.GError, match="not supported") as raised:
        context.checksum(f"{server.davs_url}/sum", kind)
    assert raised.value.code == _NOT_SUPPORTED


def test_it_answers_as_rfc_4918_says(server: WebDavServer, robot: Client) -> None:
    assert robot("PUT", "missing/file", body=b"x") == 409
    assert robot("MKCOL", "folder") == 201
    assert robot("PUT", "folder", body=b"x") == 409
    assert robot("PUT", "file", body=b"x") == 201
    assert robot("PUT", "other", body=b"y") == 201
    assert robot("PUT", "file", "If-None-Match: *", body=b"z") == 412
    target = f"Destination: {server.davs_url.replace('davs', 'https')}/other"
    assert robot("MOVE", "file", target, "Overwrite: F") == 412
    assert [(server.disk_directory / name).read_bytes() for name in ("file", "other")] == [b"x", b"y"]


def test_nobody_else_gets_in(
    server: WebDavServer, grid_ca: CertificateAuthority, robot: Client, other_proxy: MemoryProxy
) -> None:
    assert robot("PUT", "private", body=_CONTENT) == 201
    for proxy in (other_proxy, None):
        other = Client(server, grid_ca, proxy)
        for method in ("GET", "PUT", "DELETE", "PROPFIND", "MKCOL"):
            assert other(method, "private", body=b"x") == 403
    assert robot("GET", "private") == 200
    assert (server.disk_directory / "private").read_bytes() == _CONTENT


def test_no_certificate_of_another_authority_is_taken(
    server: WebDavServer, grid_ca: CertificateAuthority, tmp_path: Path
) -> None:
    proxy = MemoryProxy(CertificateAuthority(tmp_path / "ca"), "Robot")
    try:
        with pytest.raises(pycurl.error, match="alert"):
            Client(server, grid_ca, proxy)("GET", "private")
    finally:
        proxy.close()


def test_no_other_file_can_be_reached(server: WebDavServer, robot: Client) -> None:
    for path in ("..", "../..", "../../etc/hostkey.pem", "%2e%2e/%2e%2e/etc/hostkey.pem"):
        assert robot("GET", path) in {400, 403, 404}
        assert robot("PUT", f"{path}/new", body=b"x") >= 400
    assert not list(server.directory.rglob("new"))


def test_it_listens_on_loopback_only(server: WebDavServer) -> None:
    assert listening(server.port("DAVS_PORT")) == {"0100007F"}


def test_an_outage_keeps_the_url_and_files_and_ends_connections(
    server: WebDavServer, robot: Client, context: Any
) -> None:
    url = server.davs_url
    assert robot("PUT", "kept", body=_CONTENT) == 201
    try:
        with socket.create_connection(("127.0.0.1", server.port("DAVS_PORT")), timeout=10) as connection:
            server.stop()
            # One that nobody has accepted yet is reset.
            with suppress(ConnectionResetError):
                assert connection.recv(1) == b""
        with pytest.raises(gfal2.GError):
            context.stat(f"{url}/kept")
    finally:
        server.start()
    assert server.davs_url == url
    assert robot("GET", "kept") == 200


def test_a_full_disk_refuses_what_is_written(server: WebDavServer, robot: Client) -> None:
    server.set_disk_full(full=True)
    try:
        assert robot("PUT", "full", body=_CONTENT) == 507
    finally:
        server.set_disk_full(full=False)
    assert not (server.disk_directory / "full").exists()
    assert robot("PUT", "full", body=_CONTENT) == 201


def test_it_runs_as_an_ordinary_user(server: WebDavServer, robot: Client) -> None:
    assert robot("PUT", "owned", body=b"x") == 201
    owner = (server.disk_directory / "owned").stat().st_uid
    assert owner != 0
    assert owner == os.geteuid() or os.geteuid() == 0


def test_a_port_lost_to_another_program_is_replaced_at_the_first_start(
    server: WebDavServer, grid_ca: CertificateAuthority, tmp_path: Path
) -> None:
    other = WebDavServer(tmp_path / "webdav", grid_ca, robot="Robot")
    lost = other.port("DAVS_PORT")
    try:
        with socket.create_server(("127.0.0.1", lost)):
            other.start()
        assert other.port("DAVS_PORT") != lost
        other.stop()
        with (
            socket.create_server(("127.0.0.1", other.port("DAVS_PORT"))),
            pytest.raises(SandboxError, match="apache ended before it was ready"),
        ):
            other.start()
    finally:
        other.close()
