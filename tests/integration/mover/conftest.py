"""One real site for all tests of a process; a control room of its own, below its own path, for each test."""

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from mover.sandbox.dongle import MODULE
from mover.sandbox.site import Site
from tests.integration.mover.box import Box

_rooms = itertools.count(1)


def _need(program: str, package: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed: apt install {package}")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Dongle, agent, two tapes and a disk. Nobody may stop its servers but in a test that starts them again."""
    _need("xrootd", "xrootd-server")
    _need("g++", "g++")
    if not MODULE.exists():
        pytest.skip("softhsm2 is not installed: apt install softhsm2")
    base = tmp_path_factory.mktemp("site")
    with TemporaryDirectory(prefix="sockets-") as sockets, Site(base, sockets=Path(sockets)) as site:
        yield site
    # Gigabytes, and of no use without the servers.
    shutil.rmtree(base)


@pytest.fixture
def box(site: Site, tmp_path: Path) -> Iterator[Box]:
    """A fresh control room. Engines that a failed test has left running are ended."""
    below = f"room-{next(_rooms)}"
    box = Box(site, site.control_room(tmp_path / "room", below=below), below)
    yield box
    box.kill_engines()
