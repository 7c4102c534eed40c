"""The parts of a VOMS attribute certificate's DER (RFC 5755 section 4.1), taken out and not yet judged."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from asn1crypto import cms, core, parser
from cryptography import x509

from proxyagent.errors import VomsError
from proxyagent.voms import MAX_AC_BYTES

AC_SEQUENCE = x509.ObjectIdentifier("1.3.6.1.4.1.8005.100.100.5")
"""The extension of a proxy that holds attribute certificates."""

FQANS = "1.3.6.1.4.1.8005.100.100.4"
CERTIFICATES = "1.3.6.1.4.1.8005.100.100.10"

_MAX_CERTIFICATES = 10
_TIME = re.compile(rb"[0-9]{14}Z")
_PRINTABLE = re.compile(r"[!-~ ]+")
_HINT = "look at what the VOMS server sends with `openssl asn1parse -inform DER`, and tell the VO's manager"

Rdns = tuple[frozenset[tuple[str, str]], ...]
"""A name as its relative names, each a set of attributes: dotted type and value."""


class CertificateList(core.SequenceOf):  # type: ignore[misc]  # asn1crypto has no type information
    """Certificates, as VOMS puts them into an attribute certificate."""

    _child_spec = core.Any


class CertificateLists(core.SequenceOf):  # type: ignore[misc]  # as above
    """The extension that holds one such list."""

    _child_spec = CertificateList


@dataclass(frozen=True, slots=True)
class Parts:
    """What an attribute certificate says, and the bytes that its signature covers."""

    version: str
    signed: bytes
    signature: bytes
    algorithm: str
    holder_name: Rdns
    holder_serial: int
    issuer_name: Rdns
    not_before: datetime
    not_after: datetime
    authority: str
    """The VO and its server: mice://voms.example.org:15000."""
    fqans: tuple[str, ...]
    certificates: tuple[x509.Certificate, ...]
    critical: frozenset[str]
    """The dotted identifiers of the critical extensions."""


def parts_of(der: bytes) -> Parts:
    """Take an attribute certificate apart.

    Raises:
        VomsError: it is too long, malformed, or not of the shape that VOMS gives it.
    """
    if len(der) > MAX_AC_BYTES:
        raise VomsError(f"an attribute certificate of {len(der)} bytes", hint=_HINT)
    try:
        return _parts_of(der)
    except Exception as error:  # asn1crypto promises no set of errors for bytes that are not what they should be
        raise VomsError(f"an attribute certificate that is malformed: {_words(error)}", hint=_HINT) from error


def acs_to_der(acs: Sequence[bytes]) -> bytes:
    """The value of the extension `AC_SEQUENCE`: SEQUENCE { SEQUENCE OF AttributeCertificate }."""
    return _sequence(_sequence(b"".join(acs)))


def rdns_of(name: x509.Name) -> Rdns:
    """A certificate's name in the form of this module."""
    return tuple(frozenset((each.oid.dotted_string, str(each.value)) for each in rdn) for rdn in name.rdns)


def _sequence(contents: bytes) -> bytes:
    return bytes(parser.emit(0, 1, 16, contents))


def _parts_of(der: bytes) -> Parts:
    whole = cms.AttributeCertificateV2.load(der, strict=True)
    info = whole["ac_info"]
    if info["signature"].dump() != whole["signature_algorithm"].dump():
        raise ValueError("it names two signature algorithms")
    validity = info["att_cert_validity_period"]
    holder_name, holder_serial = _holder(info["holder"])
    authority, fqans = _attribute(info["attributes"])
    extensions = _extensions(info["extensions"])
    return Parts(
        version=info["version"].native,
        signed=info.dump(),
        signature=whole["signature"].native,
        algorithm=whole["signature_algorithm"]["algorithm"].native,
        holder_name=holder_name,
        holder_serial=holder_serial,
        issuer_name=_issuer(info["issuer"]),
        not_before=_time(validity["not_before_time"]),
        not_after=_time(validity["not_after_time"]),
        authority=authority,
        fqans=fqans,
        certificates=_certificates(extensions),
        critical=frozenset(oid for oid, (critical, _) in extensions.items() if critical),
    )


def _holder(holder: Any) -> tuple[Rdns, int]:
    # RFC 5755 section 4.2.2: one form only. VOMS names the certificate by issuer and serial number.
    if [form for form, value in holder.native.items() if value is not None] != ["base_certificate_id"]:
        raise ValueError("its holder is not named by issuer and serial number")
    base = holder["base_certificate_id"]
    return _directory_name(base["issuer"]), cast("int", base["serial"].native)


def _issuer(issuer: Any) -> Rdns:
    # RFC 5755 section 4.2.3: v2Form with a name and nothing else.
    if issuer.name != "v2_form" or [form for form, value in issuer.native.items() if value] != ["issuer_name"]:
        raise ValueError("its issuer is not given by name")
    return _directory_name(issuer.chosen["issuer_name"])


def _directory_name(names: Any) -> Rdns:
    if len(names) != 1 or names[0].name != "directory_name":
        raise ValueError("a name that is not one directory name")
    rdns = names[0].chosen.chosen
    return tuple(frozenset((each["type"].dotted, str(each["value"].native)) for each in rdn) for rdn in rdns)


def _time(time: Any) -> datetime:
    # RFC 5755 section 4.2.6: GeneralizedTime to the second, in UTC.
    if not _TIME.fullmatch(time.contents):
        raise ValueError("a time that is not GeneralizedTime to the second")
    return datetime.strptime(time.contents.decode(), "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def _attribute(attributes: Any) -> tuple[str, tuple[str, ...]]:
    found = [each for each in attributes if each["type"].dotted == FQANS]
    if len(found) != 1:
        raise ValueError(f"{len(found)} attributes with FQANs")
    values = cms.SetOfIetfAttrSyntax.load(found[0]["values"].dump(), strict=True)
    if len(values) != 1 or len(values[0]["policy_authority"]) != 1:
        raise ValueError("FQANs that are not of one VO")
    authority = values[0]["policy_authority"][0]
    if authority.name != "uniform_resource_identifier":
        raise ValueError("a VO that is not given by URI")
    fqans = tuple(_text(each.chosen.contents) for each in values[0]["values"] if each.name == "octets")
    if not fqans or len(fqans) != len(values[0]["values"]):
        raise ValueError("FQANs that are not strings of octets")
    return _text(authority.chosen.contents), fqans


def _text(octets: bytes) -> str:
    text = octets.decode("ascii")
    if not _PRINTABLE.fullmatch(text):
        raise ValueError("a text that is not printable")
    return text


def _extensions(extensions: Any) -> dict[str, tuple[bool, bytes]]:
    found = {each["extn_id"].dotted: (bool(each["critical"].native), bytes(each["extn_value"])) for each in extensions}
    if len(found) != len(extensions):
        raise ValueError("an extension twice")
    return found


def _certificates(extensions: dict[str, tuple[bool, bytes]]) -> tuple[x509.Certificate, ...]:
    if CERTIFICATES not in extensions:
        raise ValueError("no certificate of its issuer")
    lists = CertificateLists.load(extensions[CERTIFICATES][1], strict=True)
    if len(lists) != 1 or not 0 < len(lists[0]) <= _MAX_CERTIFICATES:
        raise ValueError("certificates in another form than VOMS's")
    return tuple(_certificate(each.dump()) for each in lists[0])


def _certificate(der: bytes) -> x509.Certificate:
    certificate = x509.load_der_x509_certificate(der)
    # They are parsed when they are looked at: here, where that may fail.
    _ = certificate.subject, certificate.issuer, certificate.extensions, certificate.public_key()
    _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return certificate


def _words(error: Exception) -> str:
    return str(error).split("\n", 1)[0][:200] or type(error).__name__
