"""The sandbox's VOMS server: it grants what it is told to, with REST or without, for root and for an ordinary user."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mover.errors import SandboxError
from mover.sandbox.ca import CertificateAuthority
from mover.sandbox.voms import VomsServer
from proxyagent.errors import VomsError, VomsRefusedError
from proxyagent.voms.fetch import FetchedAc, fetch_ac
from proxyagent.voms.tls import ClosedError, Deadline, exchange, tls_context
from proxyagent.voms.vomses import servers_of
from tests.integration.sandbox.proxies import MemoryProxy
from tests.integration.voms_server import need_voms_server

ROBOT = "/C=UK/O=Sandbox/CN=Robot"
RECO = "/mice/offline/Role=reco"
QUESTION = [b"GET /generate-ac?fqans=/mice HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"]
NOBODY = 65534

Fetch = Callable[[VomsServer, str], FetchedAc]


@pytest.fixture(scope="module")
def server(grid_ca: CertificateAuthority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VomsServer]:
    need_voms_server()
    # Longer than a Unix socket's path may be.
    directory = tmp_path_factory.mktemp("site") / ("long" * 30) / "voms"
    server = VomsServer(directory, grid_ca, members={ROBOT: [RECO], "/C=UK/O=Sandbox/CN=O'Member": []})
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def fetch(grid_ca: CertificateAuthority, robot_proxy: MemoryProxy) -> Fetch:
    def fetch(server: VomsServer, fqan: str) -> FetchedAc:
        return fetch_ac(
            servers_of(server.vomses, "mice"),
            credential_path=robot_proxy.path,
            ca_directory=grid_ca.directory,
            fqans=[fqan],
            lifetime_seconds=600,
            timeout_seconds=30,
        )

    return fetch


def test_it_grants_what_its_members_hold(server: VomsServer, fetch: Fetch) -> None:
    for fqan in ("/mice", "/mice/offline", RECO):
        assert fetch(server, fqan).der
    for fqan in ("/mice/Role=reco", "/mice/offline/Role=production", "/mice/elsewhere", "/cms"):
        with pytest.raises(VomsRefusedError):
            fetch(server, fqan)


def test_it_comes_back_on_the_same_port_with_other_members(server: VomsServer, fetch: Fetch) -> None:
    line, members = server.vomses_line, server.members
    server.stop()
    with pytest.raises(VomsError, match="Connection refused"):
        fetch(server, RECO)
    try:
        server.members = {ROBOT: ()}
        server.start()
        assert fetch(server, "/mice").der
        with pytest.raises(VomsRefusedError):
            fetch(server, RECO)
        server.members = {}
        server.start()
        with pytest.raises(VomsRefusedError, match="NoSuchUser"):
            fetch(server, "/mice")
    finally:
        server.members = members
        server.start()
    assert fetch(server, RECO).der
    assert server.vomses.read_text() == f"{line}\n" == f"{server.vomses_line}\n"


def test_without_rest_it_is_as_debian_ships_it(
    server: VomsServer, fetch: Fetch, grid_ca: CertificateAuthority, robot_proxy: MemoryProxy, tmp_path: Path
) -> None:
    old = VomsServer(tmp_path / "old", grid_ca, members={ROBOT: [RECO]}, rest=False)
    context = tls_context(robot_proxy.path, grid_ca.directory)
    try:
        old.start()
        (description,) = servers_of(old.vomses, "mice")
        with pytest.raises(ClosedError, match="hung up"):
            exchange(description, context, QUESTION, Deadline(30))
        assert fetch(old, RECO).der
    finally:
        old.close()
    (description,) = servers_of(server.vomses, "mice")
    assert exchange(description, context, QUESTION, Deadline(30)).startswith(b"HTTP/1.1 200 OK")


def test_names_that_sql_would_misread_are_refused(grid_ca: CertificateAuthority, tmp_path: Path) -> None:
    need_voms_server()
    server = VomsServer(tmp_path / "voms", grid_ca, members={"/CN=a\\": []}, rest=False)
    with pytest.raises(SandboxError, match="cannot be put into the VOMS database"):
        server.start()
    server.close()


_AS_A_USER = """
import sys
from pathlib import Path
from mover.sandbox.ca import CertificateAuthority
from mover.sandbox.voms import VomsServer
base = Path(sys.argv[1])
server = VomsServer(base / "voms", CertificateAuthority(base / "ca"), members={})
server.start()
server.close()
"""


def test_an_ordinary_user_can_start_it() -> None:
    need_voms_server()
    if os.geteuid() != 0:
        pytest.skip("every test here is run as an ordinary user already")
    ordinary = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"]
    command = [*ordinary, sys.executable, "-P", "-B", "-c"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    able = subprocess.run([*command, "import mover.sandbox.voms"], env=environment, capture_output=True, check=False)
    if able.returncode != 0:
        pytest.skip("another user cannot read this working copy")
    with tempfile.TemporaryDirectory() as base:  # not in tmp_path, which only root may enter
        os.chown(base, NOBODY, NOBODY)
        subprocess.run([*command, _AS_A_USER, base], env=environment, cwd=base, check=True, timeout=120)
