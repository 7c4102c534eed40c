"""Chains: what we accept is what OpenSSL accepts, and nothing that was tampered with."""

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from mover.sandbox.ca import CertificateAuthority
from proxyagent.chain import certificates_from_pem, certificates_to_pem, check_links, grid_name, not_after, proxy_pem
from proxyagent.errors import ChainError
from proxyagent.proxy import Language
from proxyagent.verify import verify_chain
from tests.unit.proxyagent.conftest import Credential, ProxyMaker

HOURS = timedelta(hours=1)


@pytest.fixture
def client(robot: Credential, keys: list[rsa.RSAPrivateKey], proxy_of: ProxyMaker) -> Credential:
    return proxy_of(proxy_of(robot, keys[1], lifetime=12 * HOURS), keys[2], language=Language.LIMITED)


def openssl_accepts(credential: Credential, ca_directory: Path, tmp_path: Path) -> bool:
    file = tmp_path / "chain.pem"
    file.write_text(certificates_to_pem(credential.chain))
    command = [
        "openssl",
        "verify",
        "-allow_proxy_certs",
        "-CApath",
        str(ca_directory),
        "-untrusted",
        str(file),
        str(file),
    ]
    return subprocess.run(command, capture_output=True, check=False, timeout=30).returncode == 0


def links(credential: Credential) -> None:
    check_links(credential.chain, credential.key.public_key(), now=datetime.now(UTC))


def test_a_client_proxy_is_accepted(client: Credential, ca_directory: Path, tmp_path: Path) -> None:
    links(client)
    verify_chain(certificates_to_pem(client.chain), ca_directory)
    assert openssl_accepts(client, ca_directory, tmp_path)


@pytest.mark.parametrize("depth", [0, 1])
def test_a_changed_byte_is_rejected(client: Credential, depth: int, ca_directory: Path, tmp_path: Path) -> None:
    der = bytearray(client.chain[depth].public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1  # of the signature
    chain = list(client.chain)
    chain[depth] = x509.load_der_x509_certificate(bytes(der))
    changed = Credential(tuple(chain), client.key)
    with pytest.raises(ChainError, match="not signed by"):
        links(changed)
    with pytest.raises(ChainError, match=f"signature failure .depth {depth}"):
        verify_chain(certificates_to_pem(changed.chain), ca_directory)
    assert not openssl_accepts(changed, ca_directory, tmp_path)


@pytest.fixture
def impostor(robot: Credential, keys: list[rsa.RSAPrivateKey], proxy_of: ProxyMaker) -> Credential:
    """A proxy that somebody else signed in the robot's name."""
    return proxy_of(Credential(robot.chain, keys[3]), keys[2])


def test_another_issuer_is_rejected(impostor: Credential, ca_directory: Path, tmp_path: Path) -> None:
    with pytest.raises(ChainError, match="not signed by"):
        links(impostor)
    with pytest.raises(ChainError, match="does not verify"):
        verify_chain(certificates_to_pem(impostor.chain), ca_directory)
    assert not openssl_accepts(impostor, ca_directory, tmp_path)


def test_an_ended_proxy_is_rejected(
    robot: Credential, keys: list[rsa.RSAPrivateKey], proxy_of: ProxyMaker, ca_directory: Path, tmp_path: Path
) -> None:
    ended = proxy_of(robot, keys[1], lifetime=timedelta(seconds=1), now=datetime.now(UTC) - timedelta(minutes=2))
    with pytest.raises(ChainError, match="has ended"):
        links(ended)
    with pytest.raises(ChainError, match="has expired"):
        verify_chain(certificates_to_pem(ended.chain), ca_directory)
    assert not openssl_accepts(ended, ca_directory, tmp_path)


def test_another_ca_is_rejected(client: Credential, tmp_path: Path) -> None:
    other = CertificateAuthority(tmp_path / "other")
    with pytest.raises(ChainError, match="does not verify"):
        verify_chain(certificates_to_pem(client.chain), other.directory)
    with pytest.raises(ChainError, match="no CA certificate"):
        verify_chain(certificates_to_pem(client.chain), tmp_path)


def test_a_chain_for_another_key_or_without_its_parts_is_rejected(
    client: Credential, keys: list[rsa.RSAPrivateKey]
) -> None:
    leaf, session, eec = client.chain
    wrong = {
        "not for the key": Credential(client.chain, keys[3]),
        "does not end in an end-entity": Credential((leaf, session), client.key),
        "one more": Credential((leaf, eec), client.key),
        "is not a proxy": Credential((leaf, session, eec, eec), client.key),
    }
    for reason, credential in wrong.items():
        with pytest.raises(ChainError, match=reason):
            links(credential)
    with pytest.raises(ChainError, match="not for the key"):
        check_links((), keys[0].public_key(), now=datetime.now(UTC))


def test_the_pem_has_the_order_and_the_key_format_that_gsi_reads(client: Credential) -> None:
    pem = proxy_pem(client.chain, client.key).decode()
    kinds = [line for line in pem.splitlines() if line.startswith("-----BEGIN")]
    certificate = "-----BEGIN CERTIFICATE-----"
    assert kinds == [certificate, "-----BEGIN RSA PRIVATE KEY-----", certificate, certificate]
    assert certificates_from_pem(pem) == client.chain


def test_absurd_chains_are_refused(client: Credential) -> None:
    for pem in ("", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
        with pytest.raises(ChainError, match="unreadable"):
            certificates_from_pem(pem)
    with pytest.raises(ChainError, match="17 certificates"):
        certificates_from_pem(certificates_to_pem(client.chain[:1] * 17))


def test_a_chain_ends_with_its_first_end(client: Credential) -> None:
    assert not_after(client.chain) == client.chain[0].not_valid_after_utc
    assert not_after(client.chain[1:]) == client.chain[1].not_valid_after_utc


def test_names_are_written_in_slash_form(robot: Credential) -> None:
    assert grid_name(robot.chain[0].subject) == "/C=UK/O=Sandbox/CN=Robot"
