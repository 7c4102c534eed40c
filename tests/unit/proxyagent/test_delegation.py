"""Delegation: a service's request is signed below our own proxy, never with more rights, and never if it is forged."""

import contextlib
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from asn1crypto import csr as asn1_csr
from asn1crypto import pem as armor
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxyagent.chain import certificates_from_pem, certificates_to_pem, check_links, proxy_pem
from proxyagent.delegation import sign_delegation
from proxyagent.errors import ChainError, NoCredentialError, RequestError
from proxyagent.proxy import Language, ProxyInfo, proxy_info
from proxyagent.request import make_request
from proxyagent.verify import verify_chain
from tests.unit.proxyagent.conftest import Credential, ProxyMaker

HOUR = timedelta(hours=1)


def arc_request(key: rsa.RSAPrivateKey, version: int = 2) -> bytes:
    """A request as ARC CE makes it: signed with a version field that RFC 2986 does not know."""
    parsed = asn1_csr.CertificationRequest.load(armor.unarmor(make_request(key).encode())[2])
    info = bytearray(parsed["certification_request_info"].dump())
    info[info.index(b"\x02\x01\x00") + 2] = version
    signature = key.sign(bytes(info), padding.PKCS1v15(), hashes.SHA256())
    return bytes(armor.armor("CERTIFICATE REQUEST", assemble(bytes(info), signature)))


def assemble(info: bytes, signature: bytes) -> bytes:
    algorithm = bytes.fromhex("300d06092a864886f70d01010b0500")  # sha256WithRSAEncryption
    return sequence(info + algorithm + b"\x03\x82" + (len(signature) + 1).to_bytes(2, "big") + b"\0" + signature)


def sequence(content: bytes) -> bytes:
    return b"\x30\x82" + len(content).to_bytes(2, "big") + content


@pytest.fixture
def client(robot: Credential, keys: list[rsa.RSAPrivateKey], proxy_of: ProxyMaker) -> Credential:
    return proxy_of(proxy_of(robot, keys[1], lifetime=12 * HOUR), keys[2])


def delegate(
    credential: Credential, request: bytes, *, lifetime: timedelta = HOUR, now: datetime | None = None
) -> tuple[x509.Certificate, ...]:
    pem = proxy_pem(credential.chain, credential.key)
    return certificates_from_pem(sign_delegation(pem, request, lifetime=lifetime, now=now or datetime.now(UTC)))


@pytest.mark.parametrize("version", [0, 1, 2])
def test_a_service_gets_a_proxy_below_ours(
    client: Credential, keys: list[rsa.RSAPrivateKey], ca_directory: Path, version: int
) -> None:
    chain = delegate(client, arc_request(keys[3], version))
    assert chain[1:] == client.chain
    assert proxy_info(chain[0]) == ProxyInfo(Language.INHERIT_ALL)
    check_links(chain, keys[3].public_key(), now=datetime.now(UTC))
    verify_chain(certificates_to_pem(chain), ca_directory)


def test_openssl_agrees_on_what_arc_sends(keys: list[rsa.RSAPrivateKey]) -> None:
    done = subprocess.run(
        ["openssl", "req", "-noout", "-verify", "-text"],
        input=arc_request(keys[3]),
        capture_output=True,
        check=True,
        timeout=30,
    )
    assert b"verify OK" in done.stdout + done.stderr
    assert b"Version: Unknown (2)" in done.stdout


def test_the_answer_has_no_key(client: Credential, keys: list[rsa.RSAPrivateKey]) -> None:
    pem = proxy_pem(client.chain, client.key)
    answer = sign_delegation(pem, arc_request(keys[3]), lifetime=HOUR, now=datetime.now(UTC))
    kinds = {line for line in answer.splitlines() if line.startswith("-----BEGIN")}
    assert kinds == {"-----BEGIN CERTIFICATE-----"}


def test_limits_are_kept(robot: Credential, keys: list[rsa.RSAPrivateKey], proxy_of: ProxyMaker) -> None:
    request = arc_request(keys[3])
    limited = proxy_of(robot, keys[1], language=Language.LIMITED, path_length=2)
    assert proxy_info(delegate(limited, request)[0]) == ProxyInfo(Language.LIMITED, 1)
    with pytest.raises(RequestError, match="may not issue"):
        delegate(proxy_of(robot, keys[1], path_length=0), request)


def test_a_service_gets_a_limited_proxy_on_request(client: Credential, keys: list[rsa.RSAPrivateKey]) -> None:
    request = arc_request(keys[3])
    assert proxy_info(delegate(client, request)[0]) == ProxyInfo(Language.INHERIT_ALL)
    pem = sign_delegation(
        proxy_pem(client.chain, client.key), request, lifetime=HOUR, now=datetime.now(UTC), limited=True
    )
    assert proxy_info(certificates_from_pem(pem)[0]) == ProxyInfo(Language.LIMITED)


def test_it_ends_in_time(robot: Credential, keys: list[rsa.RSAPrivateKey], proxy_of: ProxyMaker) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    request = arc_request(keys[3])
    ours = proxy_of(robot, keys[1], lifetime=HOUR, now=now)
    for lifetime, end in ((HOUR / 2, now + HOUR / 2), (2 * HOUR, now + HOUR)):
        assert delegate(ours, request, lifetime=lifetime, now=now)[0].not_valid_after_utc == end
    with pytest.raises(NoCredentialError, match="the proxy ended"):
        delegate(ours, request, now=now + HOUR)


def test_what_is_not_our_proxy_does_not_sign(
    robot: Credential, client: Credential, keys: list[rsa.RSAPrivateKey]
) -> None:
    request = arc_request(keys[3])
    with pytest.raises(ChainError, match="not a proxy"):
        delegate(robot, request)
    with pytest.raises(ChainError, match="not a proxy with its key"):
        delegate(Credential(client.chain, keys[0]), request)
    with pytest.raises(ChainError, match="without a readable key"):
        sign_delegation(certificates_to_pem(client.chain).encode(), request, lifetime=HOUR, now=datetime.now(UTC))


def test_our_own_key_is_not_delegated_to(client: Credential) -> None:
    with pytest.raises(RequestError, match="issuer's key"):
        delegate(client, arc_request(client.key))


@pytest.mark.parametrize("key", [0, 2])
def test_a_version_that_was_changed_after_signing_is_noticed(
    client: Credential, keys: list[rsa.RSAPrivateKey], key: int
) -> None:
    der = bytearray(armor.unarmor(arc_request(keys[3], key))[2])
    assert der[8:11] == bytes((2, 1, key))
    der[10] = 2 - key
    with pytest.raises(RequestError, match="not signed by its own key"):
        delegate(client, armor.armor("CERTIFICATE REQUEST", bytes(der)))


def test_hostile_requests_are_refused(client: Credential, keys: list[rsa.RSAPrivateKey]) -> None:
    good = arc_request(keys[3])
    der = armor.unarmor(good)[2]
    certificate = client.chain[0].public_bytes(serialization.Encoding.PEM)
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - it must be refused
    cases = {
        b"": "unreadable",
        b"\xff\xfe": "unreadable",
        b"-----BEGIN CERTIFICATE REQUEST-----\n": "unreadable",
        b"-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----\n": "unreadable",
        der: "unreadable",
        certificate: "unreadable",
        good + b"x" * (1 << 16): "unreadable",
        arc_request(keys[3], 3): "unreadable",
        armor.armor("CERTIFICATE REQUEST", der + b"\0"): "unreadable",
        armor.armor("CERTIFICATE REQUEST", der[:-1]): "unreadable",
        armor.armor("CERTIFICATE REQUEST", b"\x30\x80\x30\x80\x02\x01\x00" + b"\0" * 99): "unreadable",
        armor.armor("CERTIFICATE REQUEST", b"\x30\x84\xff\xff\xff\xff\x30\x03\x02\x01\x00"): "unreadable",
        make_request(weak).encode(): "1024 bits",
    }
    for request, reason in cases.items():
        with pytest.raises(RequestError, match=reason):
            delegate(client, request)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_damaged_request_is_refused_or_for_the_same_key(
    client: Credential, keys: list[rsa.RSAPrivateKey], position: int, bit: int
) -> None:
    der = bytearray(armor.unarmor(arc_request(keys[3]))[2])
    der[position % len(der)] ^= 1 << bit
    # What is not signed may differ: how many bits of the signature's last byte are not used.
    with contextlib.suppress(RequestError):
        chain = delegate(client, armor.armor("CERTIFICATE REQUEST", bytes(der)))
        assert chain[0].public_key() == keys[3].public_key()


@given(request=st.binary(max_size=300))
def test_rubbish_is_refused(client_pem: bytes, request: bytes) -> None:
    with pytest.raises(RequestError, match="unreadable"):
        sign_delegation(client_pem, request, lifetime=HOUR, now=datetime.now(UTC))


@pytest.fixture(scope="module")
def client_pem(robot: Credential, keys: list[rsa.RSAPrivateKey], proxy_of: ProxyMaker) -> bytes:
    proxy = proxy_of(robot, keys[1])
    return proxy_pem(proxy.chain, proxy.key)
