"""Who signs certificates, and who checks them."""

from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from mover.certificate.check import Checked, check_certificate
from mover.sandbox.ca import CertificateAuthority
from proxyagent.request import new_key
from tests.unit.mover.certificate.robot import Check, RobotProxy


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority(tmp_path_factory.mktemp("authority") / "certificates")


@pytest.fixture(scope="module")
def keys() -> list[rsa.RSAPrivateKey]:
    return [new_key() for _ in range(3)]


@pytest.fixture(scope="module")
def proxy(authority: CertificateAuthority, keys: list[rsa.RSAPrivateKey]) -> RobotProxy:
    return RobotProxy(authority, keys, datetime.now(UTC))


@pytest.fixture
def check(authority: CertificateAuthority) -> Check:
    """`check_certificate` with the CA that is trusted."""

    def run(text: bytes, **options: Any) -> Checked:
        return check_certificate(text, authority.directory, **{"now": datetime.now(UTC), **options})

    return run
