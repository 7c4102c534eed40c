"""Attribute certificates: what a VOMS server issues is accepted, and whatever differs in one thing is not."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from asn1crypto import cms
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mover.sandbox.ca import CertificateAuthority
from proxyagent.errors import VomsError
from proxyagent.request import new_key
from proxyagent.voms.ac import AttributeCertificate, ac_extension, check_ac
from tests.unit.proxyagent.conftest import Credential
from tests.voms_maker import AcMaker, certificates_extension, directory_name, extension, fqan_attribute

NOW = datetime.now(UTC).replace(microsecond=0)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
PRODUCTION = "/mice/Role=production"
URI = "mice://voms.example.org:15000"

MANY = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Bench:
    """Makes attribute certificates for the robot and checks them, all as it should be but for what is given."""

    def __init__(self, authority: CertificateAuthority, robot: x509.Certificate, vomsdir: Path) -> None:
        self.authority = authority
        self.robot = robot
        self.vomsdir = vomsdir
        self.maker = AcMaker(authority)
        self.maker.write_lsc(vomsdir)
        self.example = self.make()

    def make(
        self,
        *fqans: str,
        maker: AcMaker | None = None,
        holder: x509.Certificate | None = None,
        not_before: datetime = NOW,
        lifetime: timedelta = 12 * HOUR,
        **changes: Any,
    ) -> bytes:
        return (maker or self.maker).make(
            holder=holder or self.robot,
            fqans=fqans or (PRODUCTION, "/mice"),
            not_before=not_before,
            lifetime=lifetime,
            changes={name.removesuffix("_"): value for name, value in changes.items()},
        )

    def check(
        self,
        der: bytes,
        fqans: Sequence[str] = (PRODUCTION,),
        *,
        vo: str = "mice",
        now: datetime = NOW,
        ca_directory: Path | None = None,
        check_crls: bool = False,
    ) -> AttributeCertificate:
        return check_ac(
            der,
            holder=self.robot,
            vo=vo,
            fqans=fqans,
            vomsdir=self.vomsdir,
            ca_directory=ca_directory or self.authority.directory,
            now=now,
            check_crls=check_crls,
        )

    def refuse(self, match: str, der: bytes, *arguments: Any, **changes: Any) -> None:
        with pytest.raises(VomsError, match=match):
            self.check(der, *arguments, **changes)


@pytest.fixture(scope="module")
def bench(authority: CertificateAuthority, robot: Credential, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(authority, robot.chain[0], tmp_path_factory.mktemp("vomsdir"))


def test_what_a_server_issues_is_accepted(bench: Bench) -> None:
    der = bench.make()
    found = bench.check(der)
    assert found == AttributeCertificate(
        vo="mice",
        fqans=(PRODUCTION, "/mice"),
        not_before=NOW,
        not_after=NOW + 12 * HOUR,
        der=der,
        issuer="/C=UK/O=Sandbox/CN=VOMS double",
    )
    assert bench.check(der, check_crls=True) == found
    # As policies write them: both spellings of a role, and groups by themselves.
    assert bench.check(der, ["/mice/ROLE=production", "/mice"]) == found


def test_a_holder_may_be_named_as_the_standard_wants(bench: Bench) -> None:
    base = {"issuer": [directory_name(bench.robot.issuer)], "serial": bench.robot.serial_number}
    assert bench.check(bench.make(holder_={"base_certificate_id": base}))


# 1. Size and shape.


def test_absurd_bytes_are_refused(bench: Bench) -> None:
    for der in (b"", b"\x30\x80", b"0" * 1000, bench.make()[:-1], bench.make() + b"\x00"):
        bench.refuse("malformed", der)
    bench.refuse("of 32769 bytes", b"0" * 32769)


def test_other_shapes_are_refused(bench: Bench) -> None:
    name = directory_name(bench.robot.subject)
    bench.refuse("holder is not named", bench.make(holder_={"entity_name": [name]}))
    base = {"issuer": [name], "serial": bench.robot.serial_number}
    bench.refuse("holder is not named", bench.make(holder_={"base_certificate_id": base, "entity_name": [name]}))
    bench.refuse(
        "not one directory name", bench.make(holder_={"base_certificate_id": {**base, "issuer": [name, name]}})
    )
    attribute = fqan_attribute(URI, [PRODUCTION])
    bench.refuse("2 attributes with FQANs", bench.make(attributes=[attribute, attribute]))
    bench.refuse("0 attributes with FQANs", bench.make(attributes=[]))
    bench.refuse("no certificate of its issuer", bench.make(extensions=[]))
    certificates = certificates_extension(bench.maker.certificate)
    bench.refuse("an extension twice", bench.make(extensions=[certificates, certificates]))
    bench.refuse("not printable", bench.make(attributes=[fqan_attribute(URI, ["/mice/a\nb"])]))


def test_two_signature_algorithms_are_refused(bench: Bench) -> None:
    whole = cms.AttributeCertificateV2.load(bench.make())
    whole["signature_algorithm"] = {"algorithm": "sha512_rsa", "parameters": None}
    bench.refuse("two signature algorithms", whole.dump(force=True))


# 2. What must be understood.


def test_unknown_critical_extensions_are_refused_and_targets_are_not(bench: Bench) -> None:
    certificates = certificates_extension(bench.maker.certificate)
    unknown = extension("1.2.3.4", b"\x05\x00", critical=True)
    bench.refuse("unknown critical extension 1.2.3.4", bench.make(extensions=[certificates, unknown]))
    harmless = extension("1.2.3.4", b"\x05\x00")
    targets = extension("2.5.29.55", bytes.fromhex("3000"), critical=True)
    assert bench.check(bench.make(extensions=[certificates, harmless, targets]))
    bench.refuse("another version", bench.make(version="v1"))


# 3. The signature.


def test_a_changed_byte_of_the_signature_is_refused(bench: Bench) -> None:
    der = bytearray(bench.make())
    der[-1] ^= 1
    bench.refuse("not signed by a certificate that it carries", bytes(der))


def test_another_key_is_refused(bench: Bench) -> None:
    impostor = AcMaker(bench.authority)
    impostor.certificate = bench.maker.certificate  # everything is right but the key
    bench.refuse("not signed by a certificate that it carries", bench.make(maker=impostor))


def test_a_certificate_of_another_name_than_the_issuer_is_refused(bench: Bench) -> None:
    other = AcMaker(bench.authority, name="Other")
    der = bench.make(
        maker=other,
        issuer=cms.AttCertIssuer(
            name="v2_form", value=cms.V2Form({"issuer_name": [directory_name(bench.maker.certificate.subject)]})
        ),
    )
    bench.refuse("not signed by a certificate that it carries", der)


def test_a_server_may_have_an_elliptic_key(tmp_path: Path, authority: CertificateAuthority, robot: Credential) -> None:
    bench = Bench(authority, robot.chain[0], tmp_path)
    bench.maker = AcMaker(authority, key=ec.generate_private_key(ec.SECP256R1()))
    der = bench.make()
    assert bench.check(der)
    bench.refuse("not signed by a certificate that it carries|malformed", der[:-1] + bytes([der[-1] ^ 1]))
    bench.refuse("signed with sha256_rsa", bench.make(signature={"algorithm": "sha256_rsa", "parameters": None}))


def test_weak_signatures_are_refused(bench: Bench) -> None:
    for algorithm in ("sha1_rsa", "md5_rsa", "sha256_ecdsa"):
        bench.refuse(f"signed with {algorithm}", bench.make(signature={"algorithm": algorithm, "parameters": None}))


# 4. and 5. The server.


def test_a_server_that_vomsdir_does_not_name_is_refused(bench: Bench) -> None:
    other = AcMaker(bench.authority, name="Other")
    bench.refuse("CN=Other, certified by .*, is no VOMS server of 'mice'", bench.make(maker=other))


def test_a_server_of_another_ca_with_the_same_names_is_refused(bench: Bench, tmp_path: Path) -> None:
    forged = AcMaker(CertificateAuthority(tmp_path / "forged"))
    bench.refuse("is not trusted", bench.make(maker=forged))
    bench.refuse("is not trusted", bench.make(), ca_directory=tmp_path)


def test_a_proxy_of_the_servers_certificate_is_no_server(bench: Bench, proxy_of: Callable[..., Credential]) -> None:
    server_key, proxy_key = new_key(), new_key()
    server = AcMaker(bench.authority, key=server_key)
    delegated = AcMaker(bench.authority, key=proxy_key)
    delegated.certificate = proxy_of(Credential((server.certificate,), server_key), proxy_key).chain[0]
    bench.refuse("is no VOMS server", bench.make(maker=delegated))


def test_a_revoked_server_is_refused_where_crls_count(tmp_path: Path) -> None:
    authority = CertificateAuthority(tmp_path / "ca")
    bench = Bench(authority, authority.issue_robot("Robot", new_key().public_key()), tmp_path / "vomsdir")
    authority.revoke(bench.maker.certificate.serial_number)
    assert bench.check(bench.make())
    bench.refuse("is not trusted: the CA has revoked", bench.make(), check_crls=True)


def test_a_server_below_a_subordinate_ca_is_accepted(tmp_path: Path) -> None:
    root = CertificateAuthority(tmp_path / "ca")
    below = root.subordinate("Sandbox Host CA")
    bench = Bench(below, root.issue_robot("Robot", new_key().public_key()), tmp_path / "vomsdir")
    both = certificates_extension(below.certificate, bench.maker.certificate)  # in either order
    for extensions in ([certificates_extension(bench.maker.certificate)], [both]):
        assert bench.check(bench.make(extensions=extensions), check_crls=True)
    # A vomsdir that names the whole chain wants to see it.
    lsc = tmp_path / "vomsdir/mice/double.example.org.lsc"
    lsc.write_text(lsc.read_text() + "/C=UK/O=Sandbox/CN=Sandbox CA\n")
    assert bench.check(bench.make(extensions=[both]))
    bench.refuse("is no VOMS server", bench.make())


# 6. The holder.


def test_another_holder_is_refused(bench: Bench) -> None:
    key = new_key().public_key()
    # The same name with another serial number, and another name with the same serial number.
    bench.refuse("another holder", bench.make(holder=bench.authority.issue_robot("Robot", key)))
    base = {"issuer": [directory_name(bench.maker.certificate.subject)], "serial": bench.robot.serial_number}
    bench.refuse("another holder", bench.make(holder_={"base_certificate_id": base}))


# 7. The time.


def test_times_are_judged_with_five_minutes_of_tolerance(bench: Bench) -> None:
    early = bench.make(not_before=NOW + 4 * MINUTE)
    late = bench.make(not_before=NOW - 2 * HOUR, lifetime=2 * HOUR - 4 * MINUTE)
    assert bench.check(early)
    assert bench.check(late)
    bench.refuse("not valid before", bench.make(not_before=NOW + 6 * MINUTE))
    bench.refuse("ended at", bench.make(not_before=NOW - 2 * HOUR, lifetime=2 * HOUR - 6 * MINUTE))
    bench.refuse("ended at", bench.make(lifetime=timedelta(0)), now=NOW + HOUR)


def test_another_form_of_time_is_refused(bench: Bench) -> None:
    times = {"not_before_time": NOW.replace(microsecond=5), "not_after_time": NOW + HOUR}
    bench.refuse("not GeneralizedTime to the second", bench.make(att_cert_validity_period=times))


# 8. and 9. What is granted.


def test_another_vo_is_refused(bench: Bench) -> None:
    for uri in ("cms://voms.example.org:15000", "mice.example.org://voms", "micevoms.example.org"):
        bench.refuse("not of VO 'mice'", bench.make(attributes=[fqan_attribute(uri, [PRODUCTION])]))
    for foreign in ("/cms", "/mice2/Role=production", "mice", "/micex"):
        bench.refuse("of VO 'mice' with", bench.make(PRODUCTION, foreign))


def test_less_other_or_more_than_was_asked_for_is_refused(bench: Bench) -> None:
    bench.refuse("without /mice/Role=production", bench.make("/mice"))
    bench.refuse("/mice before /mice/Role=production", bench.make("/mice", PRODUCTION))
    bench.refuse("/mice/Role=reco, which was not asked for", bench.make(PRODUCTION, "/mice", "/mice/Role=reco"))
    bench.refuse("without /mice/Role=Production", bench.make(), ["/mice/Role=Production"])
    bench.refuse("without", bench.make(), [])
    assert bench.check(bench.make(PRODUCTION, "/mice/Role=reco", "/mice"), [PRODUCTION, "/mice/Role=reco"])


# Whatever else.


@pytest.mark.filterwarnings("ignore::UserWarning")  # cryptography's, about odd certificates
@MANY
@given(st.data())
def test_changed_bytes_are_refused_or_change_nothing(bench: Bench, data: st.DataObject) -> None:
    der = bytearray(bench.example)
    facts = bench.check(bytes(der))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, max(len(der) - 1, 0)))
        kind = data.draw(st.sampled_from(("change", "remove", "insert", "cut")))
        if kind == "change" and der:
            der[place] = data.draw(st.integers(0, 255))
        elif kind == "remove":
            del der[place : place + data.draw(st.integers(1, 40))]
        elif kind == "insert":
            der[place:place] = data.draw(st.binary(max_size=40))
        else:
            del der[place:]
    try:
        found = bench.check(bytes(der))
    except VomsError:
        return
    assert replace(found, der=b"") == replace(facts, der=b"")


@pytest.mark.filterwarnings("ignore::UserWarning")  # cryptography's, about odd certificates
@MANY
@given(st.data())
def test_whatever_a_trusted_server_signs_grants_no_more_than_was_asked(bench: Bench, data: st.DataObject) -> None:
    info = bytearray(cms.AttributeCertificateV2.load(bench.example)["ac_info"].dump())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(4, len(info) - 1))
        if data.draw(st.booleans()):
            info[place] = data.draw(st.integers(0, 255))
        else:
            size = data.draw(st.integers(1, 20))
            info[place : place + size] = data.draw(st.binary(min_size=size, max_size=size))
    _same_or_refused(bench, bench.maker.sign_bytes(bytes(info)))


@pytest.mark.filterwarnings("ignore::UserWarning")  # cryptography's, about odd certificates
@MANY
@given(st.data())
def test_any_certificate_in_the_servers_place_is_refused(bench: Bench, data: st.DataObject) -> None:
    certificate = bytearray(bench.maker.certificate.public_bytes(serialization.Encoding.DER))
    place = data.draw(st.integers(0, len(certificate) - 1))
    certificate[place] ^= data.draw(st.integers(1, 255))
    original = bench.maker.certificate.public_bytes(serialization.Encoding.DER)
    info = cms.AttributeCertificateV2.load(bench.example)["ac_info"].dump().replace(original, bytes(certificate))
    with pytest.raises(VomsError):
        bench.check(bench.maker.sign_bytes(info))


def _same_or_refused(bench: Bench, der: bytes) -> None:
    try:
        found = bench.check(der)
    except VomsError:
        return
    assert found.vo == "mice"
    assert found.fqans[0] == PRODUCTION
    assert {fqan for fqan in found.fqans if "/Role=" in fqan} == {PRODUCTION}
    assert all(f"{fqan}/".startswith("/mice/") for fqan in found.fqans)
    assert found.not_before - 5 * MINUTE <= NOW < found.not_after + 5 * MINUTE


def test_a_proxy_carries_attribute_certificates_in_two_sequences(bench: Bench) -> None:
    one, other = bench.make(), bench.make("/mice")
    for acs in ([one], [one, other]):
        value = ac_extension(acs)
        assert value.oid.dotted_string == "1.3.6.1.4.1.8005.100.100.5"
        contents = b"".join(acs)
        assert value.value.endswith(contents)
        header = value.value.removesuffix(contents)
        outer, inner = len(contents) + 4, len(contents)
        assert header == b"\x30\x82" + outer.to_bytes(2, "big") + b"\x30\x82" + inner.to_bytes(2, "big")
