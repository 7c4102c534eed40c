"""A certificate authority and a robot whose key is at hand, for tests that need no dongle."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa

from mover.sandbox.ca import CertificateAuthority, distinguished_name
from proxyagent.proxy import Language, ProxyInfo, issue_proxy
from proxyagent.request import new_key

ProxyMaker = Callable[..., "Credential"]


@dataclass(frozen=True)
class Credential:
    """A chain, leaf first, and the leaf's key."""

    chain: tuple[x509.Certificate, ...]
    key: rsa.RSAPrivateKey


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority(tmp_path_factory.mktemp("authority") / "certificates")


@pytest.fixture(scope="session")
def ca_directory(authority: CertificateAuthority) -> Path:
    return authority.directory


@pytest.fixture(scope="session")
def keys() -> list[rsa.RSAPrivateKey]:
    """Keys to use again, since making one takes long."""
    return [new_key() for _ in range(4)]


@pytest.fixture(scope="session")
def robot(authority: CertificateAuthority, keys: list[rsa.RSAPrivateKey]) -> Credential:
    return Credential((authority.issue_robot("Robot", keys[0].public_key()),), keys[0])


@pytest.fixture(scope="session")
def proxy_of() -> ProxyMaker:
    """A proxy below a credential, for a key, as the agent issues it."""

    def make(
        issuer: Credential,
        key: rsa.RSAPrivateKey,
        *,
        lifetime: timedelta = timedelta(hours=1),
        language: Language = Language.INHERIT_ALL,
        path_length: int | None = None,
        now: datetime | None = None,
    ) -> Credential:
        info = ProxyInfo(language, path_length)
        now = now or datetime.now(UTC)
        leaf = issue_proxy(issuer.chain[0], issuer.key, key.public_key(), info=info, lifetime=lifetime, now=now)
        return Credential((leaf, *issuer.chain), key)

    return make


@pytest.fixture(scope="session")
def certificate_with(keys: list[rsa.RSAPrivateKey]) -> Callable[..., x509.Certificate]:
    """A self-signed certificate for keys[0] with the given extensions and times."""

    def make(
        *extensions: tuple[x509.ExtensionType, bool],
        name: x509.Name | None = None,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
    ) -> x509.Certificate:
        name = distinguished_name("Robot") if name is None else name
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(keys[0].public_key())
            .serial_number(1)
            .not_valid_before(not_before or now - timedelta(days=1))
            .not_valid_after(not_after or now + timedelta(days=1))
        )
        for value, critical in extensions:
            builder = builder.add_extension(value, critical=critical)
        return builder.sign(keys[0], hashes.SHA256())

    return make
