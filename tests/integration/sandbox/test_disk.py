"""The disk storage element: one robot by root:// and davs://, nobody else, and the same after an outage."""

import zlib
from pathlib import Path

import gfal2
import pycurl
import pytest

from mover.errors import SandboxError
from mover.sandbox.ca import CertificateAuthority
from mover.sandbox.ports import PortLease
from mover.sandbox.xrootd import DiskServer
from tests.integration.sandbox.clients import RootClient, gfal, https
from tests.integration.sandbox.proxies import MemoryProxy

_CONTENT = bytes(range(256)) * 400
_ADLER32 = f"{zlib.adler32(_CONTENT):08x}"
_NO_SPACE, _DENIED, _MISSING, _EXISTS = 3009, 3010, 3011, 3018


def test_pyxrootd_writes_reads_renames_and_removes(disk_server: DiskServer, robot_proxy: MemoryProxy) -> None:
    root = RootClient(disk_server.root_url, robot_proxy.path, "robot")
    assert root.create("pyxrootd/a/one", _CONTENT) == 0
    assert root.create("pyxrootd/a/one", b"") == _EXISTS
    assert (disk_server.disk_directory / "pyxrootd/a/one").read_bytes() == _CONTENT
    assert root.stat("pyxrootd/a/one") == (0, len(_CONTENT))
    assert root.adler32("pyxrootd/a/one") == _ADLER32
    assert root.files.mv(root.path("pyxrootd/a/one"), root.path("pyxrootd/a/two"))[0].ok
    assert [entry.name for entry in root.files.dirlist(root.path("pyxrootd/a"))[1]] == ["two"]
    assert root.files.rm(root.path("pyxrootd/a/two"))[0].ok
    assert root.stat("pyxrootd/a/two") == (_MISSING, None)


@pytest.mark.parametrize("scheme", ["root", "davs"])
def test_gfal2_writes_reads_renames_and_removes(
    disk_server: DiskServer, robot_proxy: MemoryProxy, scheme: str, tmp_path: Path
) -> None:
    base = f"{disk_server.root_url if scheme == 'root' else disk_server.davs_url}/gfal2-{scheme}"
    source = tmp_path / "source"
    source.write_bytes(_CONTENT)
    context = gfal(robot_proxy.path)
    context.mkdir_rec(f"{base}/a/b", 0o755)
    context.filecopy(f"file://{source}", f"{base}/a/b/one")
    assert (disk_server.disk_directory / f"gfal2-{scheme}/a/b/one").read_bytes() == _CONTENT
    assert context.stat(f"{base}/a/b/one").st_size == len(_CONTENT)
    assert context.checksum(f"{base}/a/b/one", "ADLER32") == _ADLER32
    context.rename(f"{base}/a/b/one", f"{base}/a/b/two")
    assert context.listdir(f"{base}/a/b") == ["two"]
    context.unlink(f"{base}/a/b/two")
    with pytest.raises(gfal2.GError):
        context.stat(f"{base}/a/b/two")


def test_nobody_else_gets_in(
    disk_server: DiskServer, grid_ca: CertificateAuthority, robot_proxy: MemoryProxy, other_proxy: MemoryProxy
) -> None:
    assert RootClient(disk_server.root_url, robot_proxy.path, "robot").create("private", _CONTENT) == 0
    other = RootClient(disk_server.root_url, other_proxy.path, "other")
    assert other.stat("private") == (_DENIED, None)
    assert other.create("mine", _CONTENT) == _DENIED
    assert not other.files.rm(other.path("private"))[0].ok
    url, directory = disk_server.davs_url, str(grid_ca.directory)
    for proxy in (other_proxy.path, None):
        for method in ("GET", "PUT", "DELETE", "PROPFIND"):
            assert https(method, f"{url}/private", ca=directory, proxy=proxy, body=b"x") == 403
    assert https("GET", f"{url}/private", ca=directory, proxy=robot_proxy.path) == 200
    assert (disk_server.disk_directory / "private").read_bytes() == _CONTENT


def test_an_outage_keeps_urls_and_files(
    grid_ca: CertificateAuthority, robot_proxy: MemoryProxy, disk_server: DiskServer
) -> None:
    directory = str(grid_ca.directory)
    urls = disk_server.root_url, disk_server.davs_url
    kept = f"{disk_server.davs_url}/kept"
    assert https("PUT", kept, ca=directory, proxy=robot_proxy.path, body=_CONTENT) == 200
    disk_server.stop()
    with pytest.raises(gfal2.GError):
        gfal(robot_proxy.path).stat(kept)
    disk_server.start()
    assert (disk_server.root_url, disk_server.davs_url) == urls
    assert https("GET", kept, ca=directory, proxy=robot_proxy.path) == 200
    assert gfal(robot_proxy.path).checksum(f"{disk_server.root_url}/kept", "ADLER32") == _ADLER32


def test_a_full_disk_refuses_what_is_written(
    disk_server: DiskServer, grid_ca: CertificateAuthority, robot_proxy: MemoryProxy
) -> None:
    root = RootClient(disk_server.root_url, robot_proxy.path, "robot")
    url, directory = f"{disk_server.davs_url}/full-davs", str(grid_ca.directory)
    disk_server.set_disk_full(full=True)
    try:
        assert root.create("full-root", _CONTENT) == _NO_SPACE
        # XrdHttp says nothing and closes the connection.
        with pytest.raises(pycurl.error):
            https("PUT", url, ca=directory, proxy=robot_proxy.path, body=_CONTENT)
    finally:
        disk_server.set_disk_full(full=False)
    assert root.create("full-no-more", _CONTENT) == 0


def test_nothing_is_left_outside_of_the_directory(disk_server: DiskServer) -> None:
    left = [path for path in Path("/tmp").glob("*xrootd*") if path.is_file()]  # noqa: S108 - where they would be
    assert [path for path in left if str(disk_server.directory).encode() in path.read_bytes()] == []


def test_a_port_lost_to_another_program_is_replaced_at_the_first_start(
    grid_ca: CertificateAuthority, tmp_path: Path, disk_server: DiskServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = disk_server.port("ROOT_PORT")
    server = DiskServer(tmp_path / "disk", grid_ca, robot="Robot")
    monkeypatch.setattr(server._ports["ROOT_PORT"], "number", taken)
    try:
        server.start()
        assert server.port("ROOT_PORT") != taken
    finally:
        server.close()


def test_a_port_lost_later_is_an_error(
    grid_ca: CertificateAuthority, tmp_path: Path, disk_server: DiskServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = DiskServer(tmp_path / "disk", grid_ca, robot="Robot")
    try:
        server.start()
        server.stop()
        lease: PortLease = server._ports["ROOT_PORT"]
        monkeypatch.setattr(lease, "number", disk_server.port("ROOT_PORT"))
        with pytest.raises(SandboxError, match="xrootd ended before it was ready"):
            server.start()
    finally:
        server.close()
