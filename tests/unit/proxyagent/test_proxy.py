"""RFC 3820: what is in a proxy certificate, and who may issue one."""

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxyagent.errors import ChainError, NoCredentialError, RequestError
from proxyagent.proxy import (
    PROXY_CERT_INFO,
    Language,
    ProxyInfo,
    check_issuer,
    encode_proxy_info,
    issue_proxy,
    proxy_info,
)
from tests.unit.proxyagent.conftest import Credential, ProxyMaker

CertificateMaker = Callable[..., x509.Certificate]

# Signing with a 2048-bit key takes milliseconds.
few = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
INFOS = st.builds(ProxyInfo, st.sampled_from(Language), st.none() | st.integers(0, 10))
USAGES = st.fixed_dictionaries(
    {
        name: st.booleans()
        for name in ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign")
    }
)


def key_usage(**flags: bool) -> x509.KeyUsage:
    defaults = dict.fromkeys(
        (
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    return x509.KeyUsage(**{**defaults, "digital_signature": True, **flags})


@given(info=INFOS)
def test_proxy_cert_info_is_read_back_as_written(info: ProxyInfo, certificate_with: CertificateMaker) -> None:
    value = x509.UnrecognizedExtension(PROXY_CERT_INFO, encode_proxy_info(info))
    assert proxy_info(certificate_with((value, True))) == info


def test_proxy_cert_info_is_the_der_of_the_rfc() -> None:
    # SEQUENCE { INTEGER 1, SEQUENCE { OID 1.3.6.1.5.5.7.21.1 } }
    assert encode_proxy_info(ProxyInfo(Language.INHERIT_ALL, 1)).hex() == "300f020101300a06082b06010505071501"


@given(der=st.binary(max_size=40))
def test_foreign_proxy_cert_info_is_read_or_refused(der: bytes, certificate_with: CertificateMaker) -> None:
    certificate = certificate_with((x509.UnrecognizedExtension(PROXY_CERT_INFO, der), True))
    with contextlib.suppress(ChainError):
        assert proxy_info(certificate) is not None


def test_proxy_cert_info_that_is_not_critical_is_refused(certificate_with: CertificateMaker) -> None:
    value = x509.UnrecognizedExtension(PROXY_CERT_INFO, encode_proxy_info(ProxyInfo(Language.LIMITED)))
    with pytest.raises(ChainError, match="not critical"):
        proxy_info(certificate_with((value, False)))


def test_draft_proxies_are_refused(certificate_with: CertificateMaker) -> None:
    draft = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.3536.1.222"), b"\x30\x00")
    with pytest.raises(ChainError, match="draft"):
        proxy_info(certificate_with((draft, True)))


@few
@given(info=INFOS, seconds=st.integers(1, 10**6))
def test_rules_for_every_proxy(
    info: ProxyInfo, seconds: int, robot: Credential, keys: list[rsa.RSAPrivateKey], proxy_of: ProxyMaker
) -> None:
    eec = robot.chain[0]
    now = datetime.now(UTC).replace(microsecond=0)
    proxy = proxy_of(
        robot,
        keys[1],
        lifetime=timedelta(seconds=seconds),
        language=info.language,
        path_length=info.path_length,
        now=now,
    ).chain[0]
    # Section 3.4: the issuer's name, and one CN more. Section 3.3: a serial number that nobody else has.
    assert proxy.issuer == eec.subject
    assert proxy.subject.rdns[:-1] == eec.subject.rdns
    assert [each.oid for each in proxy.subject.rdns[-1]] == [NameOID.COMMON_NAME]
    assert proxy.serial_number.bit_length() > 64
    # Section 3.5: no subjectAltName, and section 3.7: not a CA. There is nothing but these two, critical.
    assert {(each.oid, each.critical) for each in proxy.extensions} == {
        (x509.KeyUsage.oid, True),
        (PROXY_CERT_INFO, True),
    }
    assert proxy_info(proxy) == info
    assert proxy.not_valid_before_utc == max(eec.not_valid_before_utc, now - timedelta(minutes=5))
    assert proxy.not_valid_after_utc == min(eec.not_valid_after_utc, now + timedelta(seconds=seconds))
    proxy.verify_directly_issued_by(eec)


@few
@given(flags=USAGES)
def test_key_usage_is_the_issuers_without_signing_for_others(
    flags: dict[str, bool], certificate_with: CertificateMaker, keys: list[rsa.RSAPrivateKey]
) -> None:
    issuer = certificate_with((key_usage(**flags), True))
    info = ProxyInfo(Language.INHERIT_ALL)
    now = datetime.now(UTC)
    proxy = issue_proxy(issuer, keys[0], keys[1].public_key(), info=info, lifetime=timedelta(hours=1), now=now)
    expected = key_usage(**{**flags, "content_commitment": False, "crl_sign": False})
    assert proxy.extensions.get_extension_for_class(x509.KeyUsage).value == expected


def test_names_and_serials_are_unique(robot: Credential, keys: list[rsa.RSAPrivateKey], proxy_of: ProxyMaker) -> None:
    proxies = [proxy_of(robot, keys[1]).chain[0] for _ in range(20)]
    assert len({each.serial_number for each in proxies}) == 20
    assert len({each.subject for each in proxies}) == 20


def test_a_path_gets_shorter_and_ends(robot: Credential, keys: list[rsa.RSAPrivateKey], proxy_of: ProxyMaker) -> None:
    first = proxy_of(robot, keys[1], path_length=2)
    second = proxy_of(first, keys[2], path_length=5)
    third = proxy_of(second, keys[3])
    lengths = [info.path_length for each in (first, second, third) if (info := proxy_info(each.chain[0]))]
    assert lengths == [2, 1, 0]
    with pytest.raises(RequestError, match="may not issue"):
        proxy_of(third, keys[1])


def test_limited_stays_limited(robot: Credential, keys: list[rsa.RSAPrivateKey], proxy_of: ProxyMaker) -> None:
    limited = proxy_of(robot, keys[1], language=Language.LIMITED)
    for asked in (Language.LIMITED, Language.INHERIT_ALL):
        below = proxy_of(limited, keys[2], language=asked)
        further = proxy_of(below, keys[3], language=asked)
        assert proxy_info(below.chain[0]) == proxy_info(further.chain[0]) == ProxyInfo(Language.LIMITED)
    with pytest.raises(RequestError, match="only limited"):
        proxy_of(limited, keys[2], language=Language.INDEPENDENT)


def test_independent_may_be_anywhere_else(
    robot: Credential, keys: list[rsa.RSAPrivateKey], proxy_of: ProxyMaker
) -> None:
    independent = proxy_of(robot, keys[1], language=Language.INDEPENDENT)
    for language in Language:
        assert proxy_info(proxy_of(independent, keys[2], language=language).chain[0]) == ProxyInfo(language)


@pytest.mark.parametrize(
    ("der", "reason"),
    [
        ("300c300a06082b06010505071500", "unknown policy language 1.3.6.1.5.5.7.21.0"),  # id-ppl-anyLanguage
        ("300b300906072a03040506070800", "unreadable"),  # an OID that ends in the middle
        ("3010300e06082b060105050715010402 6869", "a policy beside"),
        ("3010300e06082b060105050715020402 6869", "a policy beside"),
        ("300f0201ff300a06082b06010505071501", "negative"),
        ("300c300a06082b0601050507150100", "unreadable"),  # trailing byte
        ("3000", "unreadable"),
        ("", "unreadable"),
    ],
)
def test_other_policies_are_refused(der: str, reason: str, certificate_with: CertificateMaker) -> None:
    value = x509.UnrecognizedExtension(PROXY_CERT_INFO, bytes.fromhex(der))
    with pytest.raises(ChainError, match=reason):
        proxy_info(certificate_with((value, True)))


def test_a_certificate_without_key_usage_may_sign(
    certificate_with: CertificateMaker, keys: list[rsa.RSAPrivateKey], proxy_of: ProxyMaker
) -> None:
    proxy = proxy_of(Credential((certificate_with(),), keys[0]), keys[1]).chain[0]
    expected = key_usage(key_encipherment=True)
    assert proxy.extensions.get_extension_for_class(x509.KeyUsage).value == expected


def test_a_name_keeps_its_encoding_and_its_structure(
    certificate_with: CertificateMaker, keys: list[rsa.RSAPrivateKey], proxy_of: ProxyMaker
) -> None:
    def attribute(oid: x509.ObjectIdentifier, value: str, kind: _ASN1Type) -> x509.NameAttribute[str]:
        return x509.NameAttribute(oid, value, _type=kind)

    name = x509.Name(
        [
            x509.RelativeDistinguishedName([attribute(NameOID.DOMAIN_COMPONENT, "org", _ASN1Type.IA5String)]),
            x509.RelativeDistinguishedName([attribute(NameOID.ORGANIZATION_NAME, "Grün", _ASN1Type.BMPString)]),
            x509.RelativeDistinguishedName(
                [
                    attribute(NameOID.COMMON_NAME, "Robot: mover", _ASN1Type.PrintableString),
                    attribute(NameOID.USER_ID, "mover", _ASN1Type.UTF8String),
                ]
            ),
        ]
    )
    eec = certificate_with(name=name)
    proxy = proxy_of(Credential((eec,), keys[0]), keys[1]).chain[0]
    # The same bytes as issuer and as the subject's beginning.
    assert proxy.public_bytes(serialization.Encoding.DER).count(name.public_bytes()[2:]) == 2
    assert [len(each) for each in proxy.subject.rdns] == [1, 1, 2, 1]
    proxy.verify_directly_issued_by(eec)


def test_more_extensions_go_in_uncritical(
    robot: Credential, keys: list[rsa.RSAPrivateKey], certificate_with: CertificateMaker
) -> None:
    def issue(extension: x509.UnrecognizedExtension) -> x509.Certificate:
        return issue_proxy(
            robot.chain[0],
            keys[0],
            keys[1].public_key(),
            info=ProxyInfo(Language.INHERIT_ALL),
            lifetime=timedelta(hours=1),
            now=datetime.now(UTC),
            extensions=[extension],
        )

    attributes = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.8005.100.100.5"), b"\x30\x00")
    found = issue(attributes).extensions.get_extension_for_oid(attributes.oid)
    assert (found.value, found.critical) == (attributes, False)
    # A subjectAltName, basicConstraints, and a second proxyCertInfo.
    for oid in ("2.5.29.17", "2.5.29.19", PROXY_CERT_INFO.dotted_string):
        with pytest.raises(ValueError, match=r"not for the caller|already"):
            issue(x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), b"\x30\x00"))


def test_the_issuers_key_is_not_used_again(robot: Credential, proxy_of: ProxyMaker) -> None:
    with pytest.raises(RequestError, match="issuer's key"):
        proxy_of(robot, robot.key)


@pytest.mark.parametrize("seconds", [0, -60, 0.5])
def test_a_proxy_without_a_lifetime_is_refused(
    robot: Credential, keys: list[rsa.RSAPrivateKey], proxy_of: ProxyMaker, seconds: float
) -> None:
    with pytest.raises(RequestError, match="end before"):
        proxy_of(robot, keys[1], lifetime=timedelta(seconds=seconds))


def test_issuers_that_may_not(certificate_with: CertificateMaker) -> None:
    now = datetime.now(UTC)
    hour = timedelta(hours=1)
    cases = {
        "ended": certificate_with(not_before=now - 2 * hour, not_after=now - hour),
        "not valid before": certificate_with(not_before=now + hour, not_after=now + 2 * hour),
        "of a CA": certificate_with((x509.BasicConstraints(ca=True, path_length=None), True)),
        "digitalSignature": certificate_with((key_usage(digital_signature=False, key_encipherment=True), True)),
        "no subject": certificate_with(name=x509.Name([])),
        "unreadable": certificate_with((x509.UnrecognizedExtension(x509.KeyUsage.oid, b"rubbish"), True)),
    }
    for reason, issuer in cases.items():
        with pytest.raises(NoCredentialError, match=reason):
            check_issuer(issuer)
    check_issuer(certificate_with(not_before=now + timedelta(minutes=4), not_after=now + hour))


def test_a_proxy_does_not_start_before_its_issuer(
    certificate_with: CertificateMaker, keys: list[rsa.RSAPrivateKey], proxy_of: ProxyMaker
) -> None:
    young = certificate_with(not_before=datetime.now(UTC) - timedelta(minutes=1))
    proxy = proxy_of(Credential((young,), keys[0]), keys[1]).chain[0]
    assert proxy.not_valid_before_utc == young.not_valid_before_utc
