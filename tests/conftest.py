"""What all tests of one process share."""

from collections.abc import Iterator

import pytest

from mover.sandbox.ca import CertificateAuthority


@pytest.fixture(scope="session")
def grid_ca(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CertificateAuthority]:
    """The only CA of this process, with X509_CERT_DIR set to it: XrdCl's GSI reads the variable once and for all."""
    ca = CertificateAuthority(tmp_path_factory.mktemp("grid") / "ca")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("X509_CERT_DIR", str(ca.directory))
        yield ca
