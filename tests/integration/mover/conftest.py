"""One real site for all tests of a process; a control room of its own, below its own path, for each test."""

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

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
    with Site(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture
def box(site: Site, tmp_path: Path) -> Box:
    """A fresh control room."""
    below = f"room-{next(_rooms)}"
    return Box(site, site.control_room(tmp_path / "room", below=below), below)
