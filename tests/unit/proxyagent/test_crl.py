"""Revocation: what a CA has revoked is refused, and so is everything while nobody knows what it has revoked."""

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from asn1crypto import crl as asn1_crl
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mover.sandbox.ca import CertificateAuthority, distinguished_name
from proxyagent.crl import check_revocation
from proxyagent.errors import ChainError, CrlError, RevokedError

MINUTE = timedelta(minutes=1)
POINT = "http://crl.example/ca.crl"
RobotMaker = Callable[..., x509.Certificate]


def crl_of(authority: CertificateAuthority) -> x509.CertificateRevocationList:
    return x509.load_pem_x509_crl(authority.crl_paths[0].read_bytes())


def put(authority: CertificateAuthority, content: bytes, number: int = 0) -> None:
    """Make `content` the CRL file of that number, under both names."""
    for path in authority.crl_paths:
        path.with_suffix(f".r{number}").write_bytes(content)


def points(full_name: str | None = None, **flags: bool) -> x509.IssuingDistributionPoint:
    names = ("only_contains_user_certs", "only_contains_ca_certs", "indirect_crl", "only_contains_attribute_certs")
    return x509.IssuingDistributionPoint(
        full_name=[x509.UniformResourceIdentifier(full_name)] if full_name else None,
        relative_name=None,
        only_some_reasons=None,
        **{**dict.fromkeys(names, False), **flags},
    )


@pytest.fixture
def root(tmp_path: Path) -> CertificateAuthority:
    return CertificateAuthority(tmp_path / "certificates")


@pytest.fixture
def robot(root: CertificateAuthority, keys: list[rsa.RSAPrivateKey]) -> x509.Certificate:
    return root.issue_robot("Robot", keys[0].public_key())


def check(authority: CertificateAuthority, certificate: x509.Certificate, now: datetime | None = None) -> datetime:
    return check_revocation(certificate, authority.directory, now=now or datetime.now(UTC))


def test_a_certificate_that_is_not_revoked_is_good_until_the_first_crl_ends(
    root: CertificateAuthority, keys: list[rsa.RSAPrivateKey]
) -> None:
    middle = root.subordinate("Sandbox Robot CA")
    robot = middle.issue_robot("Robot", keys[0].public_key())
    soon = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    later = soon + timedelta(hours=1)
    for nearest, farthest in ((root, middle), (middle, root)):
        nearest.write_crl(next_update=soon)
        farthest.write_crl(next_update=later)
        assert check(root, robot) == soon


def test_what_was_revoked_is_refused(root: CertificateAuthority, keys: list[rsa.RSAPrivateKey]) -> None:
    middle = root.subordinate("Sandbox Robot CA")
    robot, other = (middle.issue_robot(name, keys[0].public_key()) for name in ("Robot", "Other"))
    middle.revoke(robot.serial_number)
    with pytest.raises(RevokedError, match=rf"CN=Robot \(serial {robot.serial_number:x}\)"):
        check(root, robot)
    check(root, other)
    root.revoke(middle.certificate.serial_number)
    with pytest.raises(RevokedError, match="CN=Sandbox Robot CA"):
        check(root, other)


def test_what_will_be_revoked_is_refused_already(root: CertificateAuthority, robot: x509.Certificate) -> None:
    superseded = x509.CRLReason(x509.ReasonFlags.superseded)
    root.revoke(robot.serial_number, when=datetime.now(UTC) + timedelta(days=1), extensions=[superseded])
    with pytest.raises(RevokedError):
        check(root, robot)


def test_every_ca_needs_a_crl(root: CertificateAuthority, keys: list[rsa.RSAPrivateKey]) -> None:
    middle = root.subordinate("Sandbox Robot CA")
    robot = middle.issue_robot("Robot", keys[0].public_key())
    for authority, name in ((middle, "CN=Sandbox Robot CA"), (root, "CN=Sandbox CA")):
        for path in authority.crl_paths:
            path.unlink()
        with pytest.raises(CrlError, match=f"no revocation list of /C=UK/O=Sandbox/{name}"):
            check(root, robot)
        authority.write_crl()


@pytest.mark.parametrize("kept", [0, 1])
def test_one_name_is_enough(root: CertificateAuthority, robot: x509.Certificate, kept: int) -> None:
    lost = root.crl_paths[1 - kept]
    lost.unlink()
    lost.with_suffix(".0").unlink()
    check(root, robot)
    root.crl_paths[kept].unlink()
    with pytest.raises(CrlError, match="no revocation list"):
        check(root, robot)


def test_the_times_of_a_crl_count_within_five_minutes(root: CertificateAuthority, robot: x509.Certificate) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    root.write_crl(last_update=now - timedelta(hours=1), next_update=now - 4 * MINUTE)
    assert check(root, robot, now) == now - 4 * MINUTE
    root.write_crl(last_update=now - timedelta(hours=1), next_update=now - 5 * MINUTE)
    with pytest.raises(CrlError, match=f"ended at {now - 5 * MINUTE:%Y-%m-%d %H:%M} UTC"):
        check(root, robot, now)
    root.write_crl(last_update=now + 5 * MINUTE)
    check(root, robot, now)
    root.write_crl(last_update=now + 6 * MINUTE)
    with pytest.raises(CrlError, match="still to come"):
        check(root, robot, now)


def test_a_crl_without_an_end_is_refused(root: CertificateAuthority, robot: x509.Certificate) -> None:
    parsed = asn1_crl.CertificateList.load(crl_of(root).public_bytes(serialization.Encoding.DER))
    del parsed["tbs_cert_list"]["next_update"]
    parsed["signature"] = root._key.sign(parsed["tbs_cert_list"].dump(force=True), padding.PKCS1v15(), hashes.SHA256())
    put(root, parsed.dump())
    with pytest.raises(CrlError, match="does not say when it ends"):
        check(root, robot)


def test_a_crl_by_somebody_else_is_refused(root: CertificateAuthority, robot: x509.Certificate, tmp_path: Path) -> None:
    impostor = CertificateAuthority(tmp_path / "impostor")  # of the same name
    genuine = root.crl_paths[0].read_bytes()
    put(root, impostor.crl_paths[0].read_bytes())
    with pytest.raises(CrlError, match="not signed by that CA"):
        check(root, robot)
    # Beside the right one it is that of a CA with the same name, such as the same CA with its next key.
    put(root, genuine, 1)
    check(root, robot)


def test_a_crl_with_another_name_is_refused(root: CertificateAuthority, robot: x509.Certificate) -> None:
    now = datetime.now(UTC)
    builder = x509.CertificateRevocationListBuilder(distinguished_name("Other CA"), now, now + timedelta(hours=1))
    put(root, builder.sign(root._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    with pytest.raises(CrlError, match="CN=Other CA is not signed by that CA"):
        check(root, robot)


def test_the_newest_crl_counts(root: CertificateAuthority, robot: x509.Certificate) -> None:
    older = root.crl_paths[0].read_bytes()
    root.revoke(robot.serial_number)
    put(root, root.crl_paths[0].read_bytes(), 7)
    put(root, older)
    with pytest.raises(RevokedError):
        check(root, robot)


def test_der_is_read_too(root: CertificateAuthority, robot: x509.Certificate) -> None:
    put(root, crl_of(root).public_bytes(serialization.Encoding.DER))
    check(root, robot)
    root.revoke(robot.serial_number)
    put(root, crl_of(root).public_bytes(serialization.Encoding.DER))
    with pytest.raises(RevokedError):
        check(root, robot)


@pytest.mark.parametrize(
    ("name", "critical"),
    [
        ("delta", True),
        ("delta", False),
        ("indirect", True),
        ("indirect", False),
        ("CAs only", True),
        ("attribute certificates only", True),
        ("elsewhere", True),
        ("unknown", True),
    ],
)
def test_a_crl_that_may_not_tell_about_the_certificate_is_refused(
    root: CertificateAuthority, robot: x509.Certificate, name: str, critical: bool
) -> None:
    extensions = {
        "delta": (x509.DeltaCRLIndicator(1), "has changes only"),
        "indirect": (points(indirect_crl=True), "one of several parts"),
        "CAs only": (points(only_contains_ca_certs=True), "one of several parts"),
        "attribute certificates only": (points(only_contains_attribute_certs=True), "one of several parts"),
        "elsewhere": (points("http://crl.example/part2.crl"), "one of several parts"),
        "unknown": (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), "extension 1.2.3.4"),
    }
    value, reason = extensions[name]
    root.write_crl(extensions=[(value, critical)])
    with pytest.raises(CrlError, match=reason):
        check(root, robot)


def test_a_crl_that_names_the_certificates_own_point_is_taken(
    root: CertificateAuthority, keys: list[rsa.RSAPrivateKey]
) -> None:
    plain = root.issue_robot("Robot", keys[0].public_key())
    point = x509.DistributionPoint([x509.UniformResourceIdentifier(POINT)], None, None, None)
    builder = x509.CertificateBuilder(
        plain.issuer,
        plain.subject,
        keys[0].public_key(),
        1,
        plain.not_valid_before_utc,
        plain.not_valid_after_utc,
        [*plain.extensions],
    )
    robot = builder.add_extension(x509.CRLDistributionPoints([point]), critical=False).sign(root._key, hashes.SHA256())
    root.write_crl(extensions=[(x509.CRLNumber(7), False), (points(POINT, only_contains_user_certs=True), True)])
    check(root, robot)
    root.revoke(robot.serial_number)
    with pytest.raises(RevokedError):
        check(root, robot)


def test_a_ca_that_may_not_sign_crls_is_refused(root: CertificateAuthority, keys: list[rsa.RSAPrivateKey]) -> None:
    middle = root.subordinate("Sandbox Robot CA")
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    others = [each for each in middle.certificate.extensions if each.oid != usage.oid]
    builder = x509.CertificateBuilder(
        middle.certificate.issuer,
        middle.certificate.subject,
        middle._key.public_key(),
        1,
        middle.certificate.not_valid_before_utc,
        middle.certificate.not_valid_after_utc,
        [*others, x509.Extension(usage.oid, True, usage)],
    )
    certificate = builder.sign(root._key, hashes.SHA256())
    for path in middle.crl_paths:
        path.with_suffix(".0").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    with pytest.raises(CrlError, match="may not sign revocation lists"):
        check(root, middle.issue_robot("Robot", keys[0].public_key()))


def test_unreadable_files_are_refused(root: CertificateAuthority, robot: x509.Certificate) -> None:
    whole = root.crl_paths[0].read_bytes()
    for content in (b"", b"rubbish", whole[: len(whole) // 2], whole.replace(b"M", b"N"), b"\x30\x80"):
        put(root, content)
        with pytest.raises(CrlError, match="unreadable"):
            check(root, robot)


def test_an_absurdly_large_file_is_not_read(root: CertificateAuthority, robot: x509.Certificate) -> None:
    with root.crl_paths[0].open("ab") as file:
        file.truncate(100 << 30)  # sparse
    with pytest.raises(CrlError, match="larger than 32768 KiB"):
        check(root, robot)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["directory", "FIFO"])
def test_what_is_no_file_is_refused(
    root: CertificateAuthority, robot: x509.Certificate, make: Callable[[Path], None]
) -> None:
    root.crl_paths[0].unlink()
    make(root.crl_paths[0])
    with pytest.raises(CrlError, match=r"not a regular file|Is a directory"):
        check(root, robot)


def test_a_file_that_is_being_replaced_is_waited_for(
    root: CertificateAuthority, robot: x509.Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = root.crl_paths[0].read_bytes()
    states = [whole[:100], whole]  # half written, then complete

    def next_state(_: float) -> None:
        put(root, states.pop(0))

    for path in root.crl_paths:
        path.unlink()
    monkeypatch.setattr("proxyagent.crl.time.sleep", next_state)
    check(root, robot)
    assert states == []


def test_files_of_other_cas_are_not_read(root: CertificateAuthority, robot: x509.Certificate) -> None:
    for number in range(300):
        for kind in ("0", "r0"):
            (root.directory / f"{number:08x}.{kind}").write_bytes(b"\x00" * 1000)
    check(root, robot)


def test_a_certificate_of_no_known_ca_is_refused(
    root: CertificateAuthority, robot: x509.Certificate, tmp_path: Path
) -> None:
    with pytest.raises(ChainError, match="no CA certificate"):
        check_revocation(robot, tmp_path, now=datetime.now(UTC))
    other = CertificateAuthority(tmp_path / "other")
    with pytest.raises(ChainError, match="does not verify"):
        check(other, robot)
    with pytest.raises(ChainError, match="its own issuer"):
        check(root, root.certificate)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_damaged_crl_never_hides_a_revocation(
    revoking: tuple[CertificateAuthority, x509.Certificate, bytes], position: int, bit: int
) -> None:
    authority, robot, der = revoking
    damaged = bytearray(der)
    damaged[position % len(der)] ^= 1 << bit
    put(authority, bytes(damaged))
    with pytest.raises((CrlError, RevokedError)):
        check(authority, robot)


@pytest.fixture
def revoking(
    root: CertificateAuthority, robot: x509.Certificate, monkeypatch: pytest.MonkeyPatch
) -> tuple[CertificateAuthority, x509.Certificate, bytes]:
    """A CA, a robot that it has revoked, and its CRL; no waiting for better ones."""
    root.revoke(robot.serial_number)
    monkeypatch.setattr("proxyagent.crl._PAUSE_SECONDS", 0)
    return root, robot, crl_of(root).public_bytes(serialization.Encoding.DER)
