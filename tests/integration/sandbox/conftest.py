"""The sandbox's storage servers, started for the tests of this directory."""

import shutil
from collections.abc import Iterator

import pytest

from mover.sandbox.ca import CertificateAuthority
from mover.sandbox.tape import TapeServer
from mover.sandbox.xrootd import DiskServer
from tests.integration.sandbox.proxies import MemoryProxy


def _need(program: str, package: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed: apt install {package}")


@pytest.fixture(scope="module")
def disk_server(grid_ca: CertificateAuthority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DiskServer]:
    _need("xrootd", "xrootd-server")
    _need("g++", "g++")
    server = DiskServer(tmp_path_factory.mktemp("site") / "disk", grid_ca, robot="Robot")
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="module")
def tape_server(grid_ca: CertificateAuthority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TapeServer]:
    _need("frm_xfrd", "xrootd-server")
    _need("g++", "g++")
    # Longer than a Unix socket's path may be.
    server = TapeServer(tmp_path_factory.mktemp("site") / ("long" * 30) / "tape", grid_ca, robot="Robot")
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def other_proxy(grid_ca: CertificateAuthority) -> Iterator[MemoryProxy]:
    """Somebody whom the CA has certified too, but whom no server knows."""
    proxy = MemoryProxy(grid_ca, "Somebody Else")
    yield proxy
    proxy.close()
