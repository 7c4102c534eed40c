"""What all tests of one process share: a CA; one real site, and control rooms at it, each below a path of its own."""

import itertools
import os
import shutil
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from mover.sandbox.ca import CertificateAuthority
from mover.sandbox.dongle import MODULE
from mover.sandbox.reconstruction import Reconstruction
from mover.sandbox.site import Site
from mover.sandbox.slurm import SlurmCluster
from mover.sandbox.software import ReferenceSoftware
from tests import servercare
from tests.integration.mover.box import Box
from tests.integration.mover.recobox import RELEASE, RecoBox
from tests.servercare import cared_for

_rooms = itertools.count(1)
#: Where the reco robot may work: no server takes more on while it runs.
RECO_AREAS = tuple(f"reco-{number}" for number in range(1, 25))
_reco_areas = iter(RECO_AREAS)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Look after the servers, where a test has failed."""
    report = yield
    if report.failed and (ill := servercare.heal(item)):
        report.sections.append(("servers", ill))
    return report


def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool:
    """Run a test again that failed because a server was ill."""
    servercare.run(item, nextitem)
    return True


@pytest.fixture(scope="session")
def grid_ca(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CertificateAuthority]:
    """The only CA of this process, with X509_CERT_DIR set to it: XrdCl's GSI reads the variable once and for all."""
    ca = CertificateAuthority(tmp_path_factory.mktemp("grid") / "ca")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("X509_CERT_DIR", str(ca.directory))
        yield ca


def _need(program: str, package: str) -> None:
    # Where an ordinary user may not look.
    if shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin") is None:
        pytest.skip(f"{program} is not installed: apt install {package}")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Dongle, agent, two tapes and a disk. Nobody may stop its servers but in a test that starts them again.

    Its CA is not `grid_ca`: what speaks to its servers runs in a process of its own.
    """
    _need("xrootd", "xrootd-server")
    _need("g++", "g++")
    if not MODULE.exists():
        pytest.skip("softhsm2 is not installed: apt install softhsm2")
    base = tmp_path_factory.mktemp("site")
    with (
        TemporaryDirectory(prefix="sockets-") as sockets,
        Site(base, sockets=Path(sockets), areas=RECO_AREAS) as site,
        cared_for([site.tape_ral, site.tape_imperial, site.disk_brunel]),
    ):
        yield site
    # Gigabytes, and of no use without the servers.
    shutil.rmtree(base)


def need_slurm(*others: tuple[str, str]) -> None:
    """Skip where there is no Slurm, or one of the other programs; each with its package."""
    needed = (("munged", "munge"), ("sbatch", "slurm-client"), ("slurmctld", "slurmctld"), ("slurmd", "slurmd"))
    for program, package in (*needed, *others):
        _need(program, package)


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    """A cluster without accounting. Nobody may stop its servers but in a test that starts them again."""
    need_slurm()
    cluster = SlurmCluster(tmp_path_factory.mktemp("slurm") / "cluster")
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
def reco_area() -> str:
    """A path at every endpoint below which the reco robot may work, for this test alone."""
    return next(_reco_areas)


@pytest.fixture
def new_reco_box(site: Site, tmp_path: Path, reco_area: str) -> Iterator[Callable[..., RecoBox]]:
    """Makes a fresh control room whose runs are reconstructed; its arguments are those of `Reconstruction`.

    `public` is a folder for the software that others can reach, and `sessions` where jobs run, if not in the scratch
    area: what a compute element needs and has.
    """
    boxes: list[RecoBox] = []

    def make(*, public: Path | None = None, sessions: Path | None = None, **settings: Any) -> RecoBox:
        software = ReferenceSoftware((public or tmp_path) / "software")
        software.install(RELEASE)
        software.approve(RELEASE)
        room = site.control_room(
            tmp_path / reco_area, below=reco_area, reconstruction=Reconstruction(software, **settings)
        )
        boxes.append(RecoBox(room, site, reco_area, software, sessions))
        return boxes[-1]

    yield make
    for box in boxes:
        box.kill_engines()


@pytest.fixture
def new_box(site: Site, tmp_path: Path) -> Iterator[Callable[[], Box]]:
    """Makes fresh control rooms. Engines that a failed test has left running are ended."""
    boxes: list[Box] = []

    def make() -> Box:
        below = f"room-{next(_rooms)}"
        boxes.append(Box(site.control_room(tmp_path / below, below=below), site, below))
        return boxes[-1]

    yield make
    for box in boxes:
        box.kill_engines()


@pytest.fixture
def box(new_box: Callable[[], Box]) -> Box:
    """A fresh control room."""
    return new_box()
