"""What all integration tests of one process share."""

from collections.abc import Iterator

import pytest

from mover.sandbox.ca import CertificateAuthority
from tests.integration.sandbox.proxies import MemoryProxy


@pytest.fixture(scope="session")
def grid_ca(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CertificateAuthority]:
    """The only CA of this process, with X509_CERT_DIR set to it: XrdCl's GSI reads the variable once and for all."""
    ca = CertificateAuthority(tmp_path_factory.mktemp("grid") / "ca")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("X509_CERT_DIR", str(ca.directory))
        yield ca


@pytest.fixture(scope="session")
def robot_proxy(grid_ca: CertificateAuthority) -> Iterator[MemoryProxy]:
    """A proxy of the robot "Robot"; whoever needs X509_USER_PROXY sets it."""
    proxy = MemoryProxy(grid_ca, "Robot")
    yield proxy
    proxy.close()
