"""Signed statements: who made one can be verified long after, and nothing that was changed or revoked passes."""

import base64
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from mover.sandbox.ca import CertificateAuthority
from proxyagent.chain import certificates_to_pem, proxy_pem
from proxyagent.client import ClientProxy, Jws, VerifiedChain, read_statement, verify_chain, verify_statement
from proxyagent.errors import ChainError, CrlError, NoCredentialError, RevokedError, SignatureError
from proxyagent.messages import IssueAnswer
from proxyagent.proxy import Language
from proxyagent.statement import check_signature, sign_statement
from tests.unit.proxyagent.conftest import Credential, ProxyMaker
from tests.unit.proxyagent.forging import LIMITED, Step, damaged, forge

MINUTE = timedelta(minutes=1)
TEXT = b'{"run": 4742}\n'
KIND = "test+jws"


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
def signed(ended: Credential, at: datetime) -> Jws:
    return read_statement(sign_statement(proxy_pem(ended.chain, ended.key), TEXT, KIND, now=at), KIND)


@pytest.fixture
def proxy(robot: Credential, keys: list[rsa.RSAPrivateKey], proxy_of: ProxyMaker) -> Iterator[ClientProxy]:
    made = proxy_of(proxy_of(robot, keys[1]), keys[2])
    with ClientProxy.from_answer(IssueAnswer(chain=certificates_to_pem(made.chain)), keys[2]) as client:
        yield client


def pem_of(credential: Credential) -> bytes:
    return certificates_to_pem(credential.chain).encode()


def test_a_client_signs_and_anybody_verifies(proxy: ClientProxy, authority: CertificateAuthority) -> None:
    now = datetime.now(UTC)
    signed = read_statement(proxy.sign(TEXT, KIND), KIND)
    assert signed.payload == TEXT
    found = verify_statement(signed, authority.directory, now)
    assert (found.subject, found.identity, found.not_after) == (proxy.subject, proxy.identity, proxy.not_after)
    assert found.not_before <= now
    assert signed.chain_pem.count(b"-----BEGIN") == signed.chain_pem.count(b"-----BEGIN CERTIFICATE-----") == 3
    proxy.close()
    with pytest.raises(ValueError, match="closed"):
        proxy.sign(TEXT, KIND)


def test_openssl_verifies_it_too(proxy: ClientProxy, authority: CertificateAuthority, tmp_path: Path) -> None:
    """By RFC 7515 alone: what is signed is the text of the two members, with a dot between them."""
    outer = json.loads(proxy.sign(TEXT, KIND))

    def raw(text: str) -> bytes:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))

    header = json.loads(raw(outer["protected"]))
    assert (header["alg"], header["typ"], raw(outer["payload"])) == ("RS256", KIND, TEXT)
    for number, certificate in enumerate(header["x5c"]):
        (tmp_path / f"{number}.der").write_bytes(base64.b64decode(certificate))

    def openssl(*arguments: str, text: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        command = ["openssl", *arguments]
        return subprocess.run(command, cwd=tmp_path, input=text, capture_output=True, check=False, timeout=60)

    for number in range(3):
        assert openssl("x509", "-inform", "DER", "-in", f"{number}.der", "-out", f"{number}.pem").returncode == 0
    (tmp_path / "issuers.pem").write_bytes((tmp_path / "1.pem").read_bytes() + (tmp_path / "2.pem").read_bytes())
    trust = ("-allow_proxy_certs", "-CApath", str(authority.directory), "-untrusted", "issuers.pem")
    assert openssl("verify", *trust, "0.pem").returncode == 0
    (tmp_path / "key").write_bytes(openssl("x509", "-in", "0.pem", "-pubkey", "-noout").stdout)
    (tmp_path / "signature").write_bytes(raw(outer["signature"]))
    signed = f"{outer['protected']}.{outer['payload']}".encode()
    for text, code in ((signed, 0), (signed + b"x", 1)):
        assert openssl("dgst", "-sha256", "-verify", "key", "-signature", "signature", text=text).returncode == code


def test_it_is_verified_long_after_the_proxy_has_ended(
    signed: Jws, ended: Credential, authority: CertificateAuthority, at: datetime
) -> None:
    found = verify_statement(signed, authority.directory, at)
    assert found == VerifiedChain(
        subject=f"/C=UK/O=Sandbox/CN=Robot/CN={ended.chain[1].serial_number}/CN={ended.chain[0].serial_number}",
        identity="/C=UK/O=Sandbox/CN=Robot",
        not_before=ended.chain[0].not_valid_before_utc,
        not_after=at + MINUTE,
    )
    with pytest.raises(ChainError, match="has ended"):
        verify_statement(signed, authority.directory, at + MINUTE)
    with pytest.raises(ChainError, match="not valid yet"):
        verify_statement(signed, authority.directory, found.not_before - 5 * MINUTE - timedelta(seconds=1))


def test_what_was_changed_is_refused(signed: Jws, authority: CertificateAuthority, at: datetime) -> None:
    flipped = bytes((signed.signature[0] ^ 1,)) + signed.signature[1:]
    cases = [
        replace(signed, signing_input=signed.signing_input + b"x"),
        replace(signed, signature=flipped),
        replace(signed, signature=b""),
    ]
    for changed in cases:
        with pytest.raises(SignatureError, match="not over this text"):
            verify_statement(changed, authority.directory, at)


def test_another_key_of_the_same_robot_did_not_sign_it(signed: Jws, ended: Credential) -> None:
    without_leaf = certificates_to_pem(ended.chain[1:]).encode()
    with pytest.raises(SignatureError, match="not over this text"):
        check_signature(replace(signed, chain_pem=without_leaf))


def test_a_statement_is_no_certificate_and_no_certificate_is_a_statement(ended: Credential, at: datetime) -> None:
    """Whoever chooses the text must not get a proxy below ours, nor turn what our key signed into a statement."""
    body = ended.chain[0].tbs_certificate_bytes
    signed = read_statement(sign_statement(proxy_pem(ended.chain, ended.key), body, KIND, now=at), KIND)
    # A header in base64url begins so; DER begins with 0x30, a TLS 1.3 signature with 64 blanks.
    assert signed.signing_input.startswith(b"eyJ")
    with pytest.raises(InvalidSignature):
        ended.key.public_key().verify(signed.signature, body, padding.PKCS1v15(), hashes.SHA256())
    plain = replace(signed, signature=ended.key.sign(body, padding.PKCS1v15(), hashes.SHA256()))
    with pytest.raises(SignatureError):
        check_signature(plain)


def _encoded(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


_HEADER = {"alg": "RS256", "typ": KIND, "x5c": ["AAAA"]}
_OUTER = {"payload": "AAAA", "protected": _encoded(_HEADER), "signature": "AAAA"}


def _with_header(**changes: object) -> bytes:
    return json.dumps({**_OUTER, "protected": _encoded({**_HEADER, **changes})}).encode()


HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "cannot be read"),
    "no JSON": (b"\xff\xfe", "cannot be read"),
    "deep": (b"[" * 200_000, "too deeply"),
    "deep objects": (b'{"a":' * 200_000, "too deeply"),
    "large": (b" " * (17 << 20), "too large"),
    "a huge number": (b'{"payload": ' + b"9" * 10_000 + b"}", "cannot be read"),
    "not a number": (b'{"payload": NaN}', "cannot be read"),
    "no object": (b"[]", "no JSON object"),
    "compact": (b"eyJ.AAAA.AAAA", "cannot be read"),
    "twice": (b'{"payload": "AAAA", ' + json.dumps(_OUTER).encode()[1:], "stands twice"),
    "one more": (json.dumps({**_OUTER, "header": {}}).encode(), "does not consist of"),
    "one less": (json.dumps({"payload": "", "protected": ""}).encode(), "does not consist of"),
    "wrong types": (json.dumps({**_OUTER, "payload": ["AAAA"]}).encode(), "base64url"),
    "padded": (json.dumps({**_OUTER, "payload": "AA=="}).encode(), "base64url"),
    "plain base64": (json.dumps({**_OUTER, "payload": "++++"}).encode(), "base64url"),
    "loose bits": (json.dumps({**_OUTER, "payload": "AB"}).encode(), "base64url"),
    "not ASCII": (json.dumps({**_OUTER, "payload": "\ud800"}).encode(), "base64url"),
    "none": (_with_header(alg="none"), "signed with RS256"),
    "a shared key": (_with_header(alg="HS256"), "signed with RS256"),
    "no algorithm": (_with_header(alg=None), "signed with RS256"),
    "another kind": (_with_header(typ="other+jws"), "header is not that of test"),
    "more in the header": (_with_header(jwk={}), "nothing else"),
    "critical": (_with_header(crit=["exp"]), "nothing else"),
    "no chain": (_with_header(x5c=[]), "no list of certificates"),
    "a long chain": (_with_header(x5c=["AAAA"] * 17), "no list of certificates"),
    "a chain of numbers": (_with_header(x5c=[1]), "no base64"),
    "a chain of rubbish": (_with_header(x5c=["*"]), "no base64"),
    "a chain of one text": (_with_header(x5c="AAAA"), "no list of certificates"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_statements_are_refused(case: str) -> None:
    text, said = HOSTILE[case]
    with pytest.raises(SignatureError, match=said):
        read_statement(text, KIND)


def test_a_chain_that_is_none_is_refused(authority: CertificateAuthority, at: datetime) -> None:
    with pytest.raises(ChainError, match="unreadable"):
        verify_statement(read_statement(json.dumps(_OUTER).encode(), KIND), authority.directory, at)


def test_what_could_not_be_read_is_not_made(proxy: ClientProxy) -> None:
    with pytest.raises(SignatureError, match="too large"):
        proxy.sign(bytes(13 << 20), KIND)


def test_an_ended_proxy_signs_nothing(ended: Credential, at: datetime) -> None:
    with pytest.raises(NoCredentialError, match="the proxy ended"):
        sign_statement(proxy_pem(ended.chain, ended.key), TEXT, KIND, now=at + MINUTE)


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
