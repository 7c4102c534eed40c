"""Chains: what we accept is what OpenSSL accepts, and nothing that was tampered with."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from asn1crypto import pem as armor
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mover.sandbox.ca import CertificateAuthority
from proxyagent.chain import certificates_from_pem, certificates_to_pem, check_links, grid_name, not_after, proxy_pem
from proxyagent.errors import ChainError
from proxyagent.proxy import Language
from proxyagent.verify import verify_chain
from tests.unit.proxyagent.conftest import Credential, ProxyMaker
from tests.unit.proxyagent.judges import openssl_program

HOURS = timedelta(hours=1)


@pytest.fixture
def client(robot: Credential, keys: list[rsa.RSAPrivateKey], proxy_of: ProxyMaker) -> Credential:
    return proxy_of(proxy_of(robot, keys[1], lifetime=12 * HOURS), keys[2], language=Language.LIMITED)


def links(credential: Credential) -> None:
    check_links(credential.chain, credential.key.public_key(), now=datetime.now(UTC))


def test_a_client_proxy_is_accepted(client: Credential, ca_directory: Path) -> None:
    links(client)
    verify_chain(certificates_to_pem(client.chain), ca_directory)
    assert openssl_program(client.chain, ca_directory) is None


@pytest.mark.parametrize("depth", [0, 1])
def test_a_changed_byte_is_rejected(client: Credential, depth: int, ca_directory: Path) -> None:
    der = bytearray(client.chain[depth].public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1  # of the signature
    chain = list(client.chain)
    chain[depth] = x509.load_der_x509_certificate(bytes(der))
    changed = Credential(tuple(chain), client.key)
    with pytest.raises(ChainError, match="not signed by"):
        links(changed)
    with pytest.raises(ChainError, match=f"signature failure .depth {depth}"):
        verify_chain(certificates_to_pem(changed.chain), ca_directory)
    assert openssl_program(changed.chain, ca_directory) is not None


@pytest.fixture
def impostor(robot: Credential, keys: list[rsa.RSAPrivateKey], proxy_of: ProxyMaker) -> Credential:
    """A proxy that somebody else signed in the robot's name."""
    return proxy_of(Credential(robot.chain, keys[3]), keys[2])


def test_another_issuer_is_rejected(impostor: Credential, ca_directory: Path) -> None:
    with pytest.raises(ChainError, match="not signed by"):
        links(impostor)
    with pytest.raises(ChainError, match="does not verify"):
        verify_chain(certificates_to_pem(impostor.chain), ca_directory)
    assert openssl_program(impostor.chain, ca_directory) is not None


def test_an_ended_proxy_is_rejected(
    robot: Credential, keys: list[rsa.RSAPrivateKey], proxy_of: ProxyMaker, ca_directory: Path
) -> None:
    ended = proxy_of(robot, keys[1], lifetime=timedelta(seconds=1), now=datetime.now(UTC) - timedelta(minutes=2))
    with pytest.raises(ChainError, match="has ended"):
        links(ended)
    with pytest.raises(ChainError, match="has expired"):
        verify_chain(certificates_to_pem(ended.chain), ca_directory)
    assert openssl_program(ended.chain, ca_directory) is not None


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


def test_a_clock_that_is_a_little_behind_does_no_harm(
    client: Credential, authority: CertificateAuthority, keys: list[rsa.RSAPrivateKey]
) -> None:
    begin = client.chain[0].not_valid_before_utc
    check_links(client.chain, client.key.public_key(), now=begin - timedelta(minutes=5))
    with pytest.raises(ChainError, match="not valid yet"):
        check_links(client.chain, client.key.public_key(), now=begin - timedelta(minutes=6))
    now = datetime.now(UTC)
    robot = certificates_to_pem([authority.issue_robot("Robot", keys[0].public_key(), not_before=now)])
    verify_chain(robot, authority.directory, now=now - timedelta(minutes=4))
    with pytest.raises(ChainError, match=r"not yet valid \(depth 0\)"):
        verify_chain(robot, authority.directory, now=now - timedelta(minutes=6))


def test_the_time_is_what_the_caller_says(
    client: Credential, authority: CertificateAuthority, ca_directory: Path
) -> None:
    pem, robot = certificates_to_pem(client.chain), certificates_to_pem(client.chain[2:])
    end = client.chain[0].not_valid_after_utc
    verify_chain(pem, ca_directory, now=end - timedelta(seconds=1))
    with pytest.raises(ChainError, match=r"has expired \(depth 0\)"):
        verify_chain(pem, ca_directory, now=end)
    verify_chain(robot, ca_directory, now=end)
    with pytest.raises(ChainError, match="no valid CA certificate"):
        verify_chain(robot, ca_directory, now=authority.certificate.not_valid_after_utc)


def test_the_path_to_the_root_is_returned(keys: list[rsa.RSAPrivateKey], tmp_path: Path) -> None:
    root = CertificateAuthority(tmp_path / "certificates")
    middle = root.subordinate("Sandbox Robot CA")
    robot = middle.issue_robot("Robot", keys[0].public_key())
    path = verify_chain(certificates_to_pem([robot]), root.directory)
    assert path == (robot, middle.certificate, root.certificate)
    # What the directory has not, does not count, wherever it is presented.
    for each in middle.crl_paths:
        each.with_suffix(".0").unlink()
    assert verify_chain(certificates_to_pem([robot, middle.certificate]), root.directory) == path
    for each in root.crl_paths:
        each.with_suffix(".0").unlink()
    with pytest.raises(ChainError, match="no CA certificate"):
        verify_chain(certificates_to_pem(path), root.directory)


def test_a_ca_that_renewed_its_certificate_is_found(keys: list[rsa.RSAPrivateKey], tmp_path: Path) -> None:
    ca = CertificateAuthority(tmp_path / "certificates")
    robot = ca.issue_robot("Robot", keys[0].public_key())
    old = x509.CertificateBuilder(
        ca.certificate.issuer,
        ca.certificate.subject,
        ca._key.public_key(),
        1,
        datetime(2020, 1, 1, tzinfo=UTC),
        datetime(2025, 1, 1, tzinfo=UTC),
        [*ca.certificate.extensions],
    ).sign(ca._key, hashes.SHA256())
    for each in ca.crl_paths:
        each.with_suffix(".0").rename(each.with_suffix(".1"))
        each.with_suffix(".0").write_bytes(old.public_bytes(serialization.Encoding.PEM))
    assert verify_chain(certificates_to_pem([robot]), ca.directory)[-1] == ca.certificate


def test_a_ca_file_that_cannot_be_read_is_named(robot: Credential, tmp_path: Path) -> None:
    ca = CertificateAuthority(tmp_path / "certificates")
    file = ca.crl_paths[0].with_suffix(".0")
    for content, reason in ((b"rubbish", "malformed"), (b"x" * (1 << 20), "larger than 256 KiB")):
        file.write_bytes(content)
        with pytest.raises(ChainError, match=reason) as raised:
            verify_chain(certificates_to_pem(robot.chain), ca.directory)
        assert str(file) in raised.value.message


def test_an_end_entity_certificate_with_unknown_demands_is_refused(
    certificate_with: Callable[..., x509.Certificate], keys: list[rsa.RSAPrivateKey], proxy_of: ProxyMaker
) -> None:
    for oid, critical, accepted in (("1.2.3.4", False, True), ("1.2.3.4", True, False), ("2.5.29.32", True, True)):
        value = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), b"\x30\x06\x30\x04\x06\x02\x2a\x03")
        chain = proxy_of(Credential((certificate_with((value, critical)),), keys[0]), keys[1])
        if accepted:
            links(chain)
        else:
            with pytest.raises(ChainError, match=r"unknown critical extension 1\.2\.3\.4"):
                links(chain)


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
    der = client.chain[0].public_bytes(serialization.Encoding.DER)
    version_5 = der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x04", 1)
    with pytest.raises(ChainError, match="unreadable"):
        certificates_from_pem(armor.armor("CERTIFICATE", version_5).decode())
    with pytest.raises(ChainError, match="17 certificates"):
        certificates_from_pem(certificates_to_pem(client.chain[:1] * 17))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(depth=st.integers(0, 2), position=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_damaged_chain_is_refused(
    client: Credential, ca_directory: Path, depth: int, position: int, bit: int
) -> None:
    ders = [bytearray(each.public_bytes(serialization.Encoding.DER)) for each in client.chain]
    ders[depth][position % len(ders[depth])] ^= 1 << bit
    pem = "".join(armor.armor("CERTIFICATE", bytes(each)).decode() for each in ders)
    try:
        chain = certificates_from_pem(pem)
        links(Credential(chain, client.key))
        verify_chain(pem, ca_directory)
    except ChainError:
        return
    # What is not signed may differ: how many bits of the signature's last byte are not used.
    assert [each.tbs_certificate_bytes for each in chain] == [each.tbs_certificate_bytes for each in client.chain]


def test_a_chain_ends_with_its_first_end(client: Credential) -> None:
    assert not_after(client.chain) == client.chain[0].not_valid_after_utc
    assert not_after(client.chain[1:]) == client.chain[1].not_valid_after_utc


def test_names_are_written_in_slash_form(robot: Credential) -> None:
    assert grid_name(robot.chain[0].subject) == "/C=UK/O=Sandbox/CN=Robot"
