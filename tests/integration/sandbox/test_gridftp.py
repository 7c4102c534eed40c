"""The GridFTP server: one robot by gsiftp://, nobody else, no other file, and the same after an outage."""

import os
import shutil
import socket
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gfal2
import pytest

from mover.errors import SandboxError
from mover.sandbox.ca import CertificateAuthority
from mover.sandbox.gridftp import GridFtpServer
from tests.integration.sandbox.clients import eventually, listening
from tests.integration.sandbox.proxies import MemoryProxy

_CONTENT = bytes(range(256)) * 4000
_MISSING = 2


@pytest.fixture(scope="module")
def server(grid_ca: CertificateAuthority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GridFtpServer]:
    if shutil.which("globus-gridftp-server", path="/usr/sbin:/usr/bin") is None:
        pytest.skip("needs the package globus-gridftp-server-progs")
    if not list(Path("/usr/lib").glob("*/gfal2-plugins/libgfal_plugin_gridftp.so")):
        pytest.skip("needs the package gfal2-plugin-gridftp")
    made = GridFtpServer(tmp_path_factory.mktemp("site") / "gridftp", grid_ca, robot="Robot")
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture
def source(tmp_path: Path) -> str:
    file = tmp_path / "source"
    file.write_bytes(_CONTENT)
    return f"file://{file}"


def client(proxy: MemoryProxy) -> Any:
    context = gfal2.creat_context()
    context.cred_set("gsiftp://", context.cred_new("X509_CERT", proxy.path))
    return context


def test_the_robot_writes_reads_renames_and_removes(
    server: GridFtpServer, robot_proxy: MemoryProxy, source: str, tmp_path: Path
) -> None:
    base, robot = f"{server.gsiftp_url}/usual", client(robot_proxy)
    robot.mkdir_rec(f"{base}/a/b", 0o755)
    robot.filecopy(source, f"{base}/a/b/one")
    assert (server.disk_directory / "usual/a/b/one").read_bytes() == _CONTENT
    assert robot.stat(f"{base}/a/b/one").st_size == len(_CONTENT)
    assert robot.checksum(f"{base}/a/b/one", "ADLER32") == f"{zlib.adler32(_CONTENT):08x}"
    robot.rename(f"{base}/a/b/one", f"{base}/a/b/two")
    assert set(robot.listdir(f"{base}/a/b")) - {".", ".."} == {"two"}
    robot.filecopy(f"{base}/a/b/two", f"file://{tmp_path}/back")
    assert (tmp_path / "back").read_bytes() == _CONTENT
    robot.unlink(f"{base}/a/b/two")
    with pytest.raises(gfal2.GError) as raised:
        robot.stat(f"{base}/a/b/two")
    assert raised.value.code == _MISSING


def test_nobody_else_gets_in(
    server: GridFtpServer, robot_proxy: MemoryProxy, other_proxy: MemoryProxy, source: str
) -> None:
    client(robot_proxy).filecopy(source, f"{server.gsiftp_url}/private")
    other = client(other_proxy)
    for method, arguments in {
        "stat": [f"{server.gsiftp_url}/private"],
        "filecopy": [source, f"{server.gsiftp_url}/mine"],
        "unlink": [f"{server.gsiftp_url}/private"],
    }.items():
        with pytest.raises(gfal2.GError, match="Gridmap lookup failure"):
            getattr(other, method)(*arguments)
    assert (server.disk_directory / "private").read_bytes() == _CONTENT
    assert not (server.disk_directory / "mine").exists()


def test_no_other_file_can_be_reached(server: GridFtpServer, robot_proxy: MemoryProxy, source: str) -> None:
    robot = client(robot_proxy)
    root = server.gsiftp_url.removesuffix("/proc/self/cwd/disk")
    for path in ("/etc", "/proc/self/cwd/etc", "/proc/self/cwd/disk/../etc"):
        with pytest.raises(gfal2.GError, match="not allowed"):
            robot.listdir(f"{root}{path}")
        with pytest.raises(gfal2.GError, match="not allowed"):
            robot.filecopy(source, f"{root}{path}/new")
    assert not list((server.directory / "etc").glob("new"))
    # Of the directories above, only the way to the base is shown.
    assert set(robot.listdir(f"{root}/")) - {".", ".."} == {"proc"}


def test_it_listens_on_loopback_only(server: GridFtpServer) -> None:
    assert listening(server.port("GSIFTP_PORT")) == {"0100007F"}


def test_an_outage_keeps_the_url_and_files_and_ends_sessions(
    server: GridFtpServer, robot_proxy: MemoryProxy, source: str
) -> None:
    url = server.gsiftp_url
    client(robot_proxy).filecopy(source, f"{url}/kept")
    with socket.create_connection(("127.0.0.1", server.port("GSIFTP_PORT")), timeout=10) as session:
        assert session.recv(100).startswith(b"220")
        server.stop()
        eventually(lambda: session.recv(100) == b"")
    with pytest.raises(gfal2.GError):
        client(robot_proxy).stat(f"{url}/kept")
    server.start()
    assert server.gsiftp_url == url
    assert client(robot_proxy).stat(f"{url}/kept").st_size == len(_CONTENT)


def test_a_full_disk_refuses_what_is_written(server: GridFtpServer, robot_proxy: MemoryProxy, source: str) -> None:
    robot = client(robot_proxy)
    # The server may say nothing at all; gfal2 would wait for 5 minutes.
    patience = robot.transfer_parameters()
    patience.timeout = 20
    server.set_disk_full(full=True)
    try:
        with pytest.raises(gfal2.GError, match=r"No space left|timed out"):
            robot.filecopy(patience, source, f"{server.gsiftp_url}/full")
    finally:
        server.set_disk_full(full=False)
    robot.filecopy(source, f"{server.gsiftp_url}/full-no-more")


def test_it_runs_as_an_ordinary_user(server: GridFtpServer, robot_proxy: MemoryProxy, source: str) -> None:
    client(robot_proxy).filecopy(source, f"{server.gsiftp_url}/owned")
    owner = (server.disk_directory / "owned").stat().st_uid
    assert owner != 0
    assert owner == os.geteuid() or os.geteuid() == 0


def test_a_port_lost_to_another_program_is_replaced_at_the_first_start(
    server: GridFtpServer, grid_ca: CertificateAuthority, tmp_path: Path
) -> None:
    other = GridFtpServer(tmp_path / "gridftp", grid_ca, robot="Robot")
    lost = other.port("GSIFTP_PORT")
    try:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", lost))
            taken.listen()
            other.start()
        assert other.port("GSIFTP_PORT") != lost
        other.stop()
        with socket.socket() as taken:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind(("127.0.0.1", other.port("GSIFTP_PORT")))
            taken.listen()
            with pytest.raises(SandboxError, match="gridftp ended before it was ready"):
                other.start()
    finally:
        other.close()
