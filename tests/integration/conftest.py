"""What all integration tests of one process share."""

from collections.abc import Iterator

import pytest

from mover.sandbox.ca import CertificateAuthority
from tests.integration.sandbox.proxies import MemoryProxy


@pytest.fixture(scope="session")
def robot_proxy(grid_ca: CertificateAuthority) -> Iterator[MemoryProxy]:
    """A proxy of the robot "Robot"; whoever needs X509_USER_PROXY sets it."""
    proxy = MemoryProxy(grid_ca, "Robot")
    yield proxy
    proxy.close()
