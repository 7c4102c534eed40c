"""Signed statements: who made one can be verified long after, and nothing that was changed or revoked passes."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from mover.sandbox.ca import CertificateAuthority
from proxyagent.chain import certificates_from_pem, certificates_to_pem, proxy_pem
from proxyagent.client import ClientProxy, Signed, VerifiedChain, verify_chain, verify_signed
from proxyagent.errors import ChainError, CrlError, NoCredentialError, RevokedError, SignatureError
from proxyagent.messages import IssueAnswer
from proxyagent.proxy import Language
from proxyagent.statement import CONTEXT, check_signature, sign_statement
from tests.unit.proxyagent.conftest import Credential, ProxyMaker
from tests.unit.proxyagent.forging import LIMITED, Step, damaged, forge

MINUTE = timedelta(minutes=1)
TEXT = b'{"run": 4742}\n'


@pytest.fixture
def authority(tmp_path: Path) -> CertificateAuthority:
    return CertificateAuthority(tmp_path / "certificates")


@pytest.fixture
def robot(authority: CertificateAuthority, keys: list[rsa.RSAPrivateKey]) -> Credential:
    return Credential((authority.issue_robot("Robot", keys[0].public_key()),), keys[0])


@pytest.fixture
def at() -> datetime:
    """When everything was signed: some minutes ago."""
    return datetime.now(UTC).replace(microsecond=0) - 8 * MINUTE


@pytest.fixture
def ended(robot: Credential, keys: list[rsa.RSAPrivateKey], proxy_of: ProxyMaker, at: datetime) -> Credential:
    """A client proxy that was good at `at` and ended a minute later."""
    session = proxy_of(robot, keys[1], lifetime=2 * MINUTE, now=at)
    return proxy_of(session, keys[2], lifetime=MINUTE, now=at, language=Language.LIMITED)


@pytest.fixture
def signed(ended: Credential, at: datetime) -> Signed:
    return sign_statement(proxy_pem(ended.chain, ended.key), TEXT, now=at)


@pytest.fixture
def proxy(robot: Credential, keys: list[rsa.RSAPrivateKey], proxy_of: ProxyMaker) -> Iterator[ClientProxy]:
    made = proxy_of(proxy_of(robot, keys[1]), keys[2])
    with ClientProxy.from_answer(IssueAnswer(chain=certificates_to_pem(made.chain)), keys[2]) as client:
        yield client


def pem_of(credential: Credential) -> bytes:
    return certificates_to_pem(credential.chain).encode()


def test_a_client_signs_and_anybody_verifies(proxy: ClientProxy, authority: CertificateAuthority) -> None:
    now = datetime.now(UTC)
    signed = proxy.sign(TEXT)
    found = verify_signed(TEXT, signed, authority.directory, now)
    assert (found.subject, found.identity, found.not_after) == (proxy.subject, proxy.identity, proxy.not_after)
    assert found.not_before <= now
    assert signed.chain_pem.count(b"-----BEGIN") == signed.chain_pem.count(b"-----BEGIN CERTIFICATE-----") == 3
    proxy.close()
    with pytest.raises(ValueError, match="closed"):
        proxy.sign(TEXT)


def test_openssl_verifies_it_too(proxy: ClientProxy, tmp_path: Path) -> None:
    signature, algorithm, chain = proxy.sign(TEXT)
    assert algorithm == "sha256WithRSAEncryption"
    key = certificates_from_pem(chain.decode())[0].public_key()
    public = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "key").write_bytes(public)
    (tmp_path / "signature").write_bytes(signature)
    command = ["openssl", "dgst", "-sha256", "-verify", "key", "-signature", "signature"]
    for text, code in ((b"proxyagent statement 1\n" + TEXT, 0), (TEXT, 1)):
        done = subprocess.run(command, cwd=tmp_path, input=text, capture_output=True, check=False, timeout=60)
        assert done.returncode == code


def test_it_is_verified_long_after_the_proxy_has_ended(
    signed: Signed, ended: Credential, authority: CertificateAuthority, at: datetime
) -> None:
    found = verify_signed(TEXT, signed, authority.directory, at)
    assert found == VerifiedChain(
        subject=f"/C=UK/O=Sandbox/CN=Robot/CN={ended.chain[1].serial_number}/CN={ended.chain[0].serial_number}",
        identity="/C=UK/O=Sandbox/CN=Robot",
        not_before=ended.chain[0].not_valid_before_utc,
        not_after=at + MINUTE,
    )
    with pytest.raises(ChainError, match="has ended"):
        verify_signed(TEXT, signed, authority.directory, at + MINUTE)
    with pytest.raises(ChainError, match="not valid yet"):
        verify_signed(TEXT, signed, authority.directory, found.not_before - 5 * MINUTE - timedelta(seconds=1))


def test_what_was_changed_is_refused(signed: Signed, authority: CertificateAuthority, at: datetime) -> None:
    flipped = bytes((signed.signature[0] ^ 1,)) + signed.signature[1:]
    cases = [(TEXT + b" ", signed), (TEXT, signed._replace(signature=flipped)), (TEXT, signed._replace(signature=b""))]
    for text, changed in cases:
        with pytest.raises(SignatureError, match="not over this text"):
            verify_signed(text, changed, authority.directory, at)
    with pytest.raises(SignatureError, match="unknown kind 'md5"):
        verify_signed(TEXT, signed._replace(algorithm="md5WithRSAEncryption"), authority.directory, at)


def test_another_key_of_the_same_robot_did_not_sign_it(signed: Signed, ended: Credential) -> None:
    without_leaf = certificates_to_pem(ended.chain[1:]).encode()
    with pytest.raises(SignatureError, match="not over this text"):
        check_signature(TEXT, signed._replace(chain_pem=without_leaf))


def test_a_statement_is_no_certificate_and_no_certificate_is_a_statement(ended: Credential, at: datetime) -> None:
    """Whoever chooses the text must not get a proxy below ours, nor turn what our key signed into a statement."""
    body = ended.chain[0].tbs_certificate_bytes
    pem = proxy_pem(ended.chain, ended.key)
    signed = sign_statement(pem, body, now=at)
    public = ended.key.public_key()
    public.verify(signed.signature, CONTEXT + body, padding.PKCS1v15(), hashes.SHA256())
    assert signed.signature != ended.key.sign(body, padding.PKCS1v15(), hashes.SHA256())
    plain = signed._replace(signature=ended.key.sign(body, padding.PKCS1v15(), hashes.SHA256()))
    with pytest.raises(SignatureError):
        check_signature(body, plain)


def test_an_ended_proxy_signs_nothing(ended: Credential, at: datetime) -> None:
    with pytest.raises(NoCredentialError, match="the proxy ended"):
        sign_statement(proxy_pem(ended.chain, ended.key), TEXT, now=at + MINUTE)


def test_what_is_no_chain_of_proxies_is_refused(
    ended: Credential, robot: Credential, keys: list[rsa.RSAPrivateKey], authority: CertificateAuthority, at: datetime
) -> None:
    full_below_limited = forge(
        robot.chain[0], robot.key, [Step(keys[1], LIMITED, begin=-9 * MINUTE), Step(keys[2], begin=-9 * MINUTE)]
    )
    cases: dict[str, list[Sequence[x509.Certificate]]] = {
        "does not end in an end-entity": [ended.chain[2:], ended.chain[:2]],
        "not signed by the next": [(damaged(ended.chain[0]), *ended.chain[1:])],
        "not limited": [full_below_limited],
    }
    for reason, chains in cases.items():
        for chain in chains:
            with pytest.raises(ChainError, match=reason):
                verify_chain(certificates_to_pem(chain).encode(), authority.directory, at)
    with pytest.raises(ChainError, match="unreadable"):
        verify_chain(b"\xff" + pem_of(ended)[:100], authority.directory, at)


def test_a_robot_of_an_unknown_ca_is_refused(ended: Credential, tmp_path: Path, at: datetime) -> None:
    other = CertificateAuthority(tmp_path / "other", common_name="Other CA")
    with pytest.raises(ChainError, match="no CA certificate"):
        verify_chain(pem_of(ended), other.directory, at)


def test_revoked_before_it_was_signed(ended: Credential, authority: CertificateAuthority, at: datetime) -> None:
    superseded = x509.CRLReason(x509.ReasonFlags.superseded)
    authority.revoke(ended.chain[-1].serial_number, when=at - timedelta(seconds=1), extensions=[superseded])
    with pytest.raises(RevokedError, match="CN=Robot"):
        verify_chain(pem_of(ended), authority.directory, at)


ENTRIES: dict[str, tuple[list[x509.ExtensionType], bool]] = {
    "superseded": ([x509.CRLReason(x509.ReasonFlags.superseded)], True),
    "ceased": ([x509.CRLReason(x509.ReasonFlags.cessation_of_operation)], True),
    "no reason": ([], False),
    "unspecified": ([x509.CRLReason(x509.ReasonFlags.unspecified)], False),
    "stolen": ([x509.CRLReason(x509.ReasonFlags.key_compromise)], False),
    "on hold": ([x509.CRLReason(x509.ReasonFlags.certificate_hold)], False),
    "something else": (
        [
            x509.CRLReason(x509.ReasonFlags.superseded),
            x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0"),
        ],
        False,
    ),
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_revoked_after_it_was_signed(
    ended: Credential, authority: CertificateAuthority, at: datetime, entry: str
) -> None:
    """A stolen key can sign with any date, so it counts when the CA clears the key, and then only."""
    extensions, passes = ENTRIES[entry]
    authority.revoke(ended.chain[-1].serial_number, when=at + 10 * MINUTE, extensions=extensions)
    if passes:
        verify_chain(pem_of(ended), authority.directory, at)
    else:
        with pytest.raises(RevokedError):
            verify_chain(pem_of(ended), authority.directory, at)


def test_no_longer_trusted_before_it_was_signed(
    ended: Credential, authority: CertificateAuthority, at: datetime
) -> None:
    superseded = x509.CRLReason(x509.ReasonFlags.superseded)
    for invalid, passes in ((at - MINUTE, False), (at + 10 * MINUTE, True)):
        extensions = [superseded, x509.InvalidityDate(invalid.replace(tzinfo=None))]
        authority.revoke(ended.chain[-1].serial_number, when=at + 10 * MINUTE, extensions=extensions)
        if passes:
            verify_chain(pem_of(ended), authority.directory, at)
        else:
            with pytest.raises(RevokedError):
                verify_chain(pem_of(ended), authority.directory, at)


def test_the_lists_must_have_been_good_then(ended: Credential, authority: CertificateAuthority, at: datetime) -> None:
    # Of before, and ended since: a copy of the directory of then.
    authority.write_crl(last_update=at - 60 * MINUTE, next_update=at + MINUTE)
    verify_chain(pem_of(ended), authority.directory, at)
    # Of after: it knows more.
    authority.write_crl(last_update=at + 9 * MINUTE)
    verify_chain(pem_of(ended), authority.directory, at)
    authority.write_crl(last_update=at - 60 * MINUTE, next_update=at - 6 * MINUTE)
    with pytest.raises(CrlError, match="ended at"):
        verify_chain(pem_of(ended), authority.directory, at)
    for path in authority.crl_paths:
        path.unlink()
    with pytest.raises(CrlError, match="no revocation list"):
        verify_chain(pem_of(ended), authority.directory, at)


def test_the_client_library_is_light() -> None:
    """The mover loads it in every process: no module of a dongle, and M2Crypto for those who verify only."""
    code = "import sys, proxyagent.client; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert "proxyagent.statement" in done.stdout.split()
    assert not {"pkcs11", "M2Crypto", "proxyagent.past", "proxyagent.crl"} & set(done.stdout.split())
