"""The storage elements under test, and one adapter for each."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mover.ports import StorageEndpoint
from mover.sandbox.ca import CertificateAuthority
from tests.conformance.arc_site import ArcSite, arc_site
from tests.conformance.batches import SLOTS
from tests.conformance.subjects import LOCAL, REMOTE, Site, Subject, local_subject, refusing_port, remote_subject
from tests.servercare import cared_for


@pytest.fixture(scope="session")
def site(grid_ca: CertificateAuthority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A disk and a tape endpoint, real ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XRD_CONNECTIONWINDOW", "3")  # for the tests of servers that never answer
        started = Site(tmp_path_factory.mktemp("site"), grid_ca)
        with cared_for([started.disk, started.tape]):
            yield started
        started.close()


@pytest.fixture(scope="session")
def arc(grid_ca: CertificateAuthority) -> Iterator[ArcSite]:
    """A compute element, a real one."""
    with arc_site(grid_ca, slots=SLOTS) as site:
        yield site


@pytest.fixture(params=[*LOCAL, *REMOTE])
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Subject]:
    """Each storage element in turn."""
    kind: str = request.param
    if kind in LOCAL:
        made = local_subject(kind, tmp_path)
    else:
        servers: Site = request.getfixturevalue("site")
        made = remote_subject(kind, servers)
    with made.closing:
        yield made


@pytest.fixture
def endpoint(subject: Subject) -> StorageEndpoint:
    """The adapter under test."""
    return subject.open()


@pytest.fixture
def refusing() -> Iterator[int]:
    """A port at which nobody listens."""
    yield from refusing_port()
