"""Certificate revocation lists (RFC 5280 section 5): has a CA revoked our certificate? Nobody knows without a list."""

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtensionOID

from proxyagent.cadirectory import files_of
from proxyagent.chain import certificates_to_pem, grid_name
from proxyagent.clock import SKEW
from proxyagent.errors import ChainError, CrlError, RevokedError
from proxyagent.extensions import UNREADABLE, extensions_of, is_ca, key_usage_of
from proxyagent.verify import verify_chain

_MAX_CRL_BYTES = 32 << 20
# fetch-crl may be replacing a file at this very moment.
_ATTEMPTS = 3
_PAUSE_SECONDS = 0.05
_KNOWN_CRITICAL = {ExtensionOID.CRL_NUMBER, ExtensionOID.AUTHORITY_KEY_IDENTIFIER}
# Reasons for which a signature of before stays good; without a reason, nobody knows that the key was not stolen.
_KEY_NOT_TO_BLAME = {
    x509.ReasonFlags.affiliation_changed,
    x509.ReasonFlags.superseded,
    x509.ReasonFlags.cessation_of_operation,
    x509.ReasonFlags.privilege_withdrawn,
}
_HINT = "run fetch-crl, and see why it did not run or what it complains about"


@dataclass(frozen=True, slots=True)
class _When:
    now: datetime
    judged: datetime
    """The time for which the question is asked; `now`, or an earlier one."""


def check_revocation(
    certificate: x509.Certificate, ca_directory: Path, *, now: datetime, at: datetime | None = None
) -> datetime:
    """See that no CA has revoked the certificate, nor any CA between it and the root (RFC 5280 section 6.3).

    Every one of these CAs must have a current CRL in `ca_directory` (``<hash>.r0`` to ``.r9``, PEM or DER). Clocks may
    differ by five minutes.

    Args:
        at: an earlier time for which to judge, by the CRLs that the directory has now. A certificate that was revoked
            later than that passes if the CA says that its key is not to blame: a stolen key can sign with any date.

    Returns:
        When the first of these CRLs ends (UTC, aware).

    Raises:
        RevokedError: the certificate, or one above it, is revoked.
        CrlError: a CRL is missing, unreadable, absurdly large, forged, ended, not valid yet, or of a kind that we do
            not understand, so nobody knows.
        ChainError: the certificate does not verify up to a CA of the directory.
    """
    when = _When(now, now if at is None else at)
    path = verify_chain(certificates_to_pem([certificate]), ca_directory, now=when.judged)
    if len(path) < 2:
        raise ChainError("the certificate is its own issuer", hint="get one from a CA")
    return min(_check_by_issuer(child, issuer, ca_directory, when) for child, issuer in itertools.pairwise(path))


def _check_by_issuer(child: x509.Certificate, issuer: x509.Certificate, directory: Path, when: _When) -> datetime:
    crl, next_update = _newest(_read(child, directory), child, issuer, when)
    revoked = crl.get_revoked_certificate_by_serial_number(child.serial_number)
    if revoked is not None and not _was_good(revoked, when):
        raise RevokedError(
            f"the CA has revoked the certificate {grid_name(child.subject)} (serial {child.serial_number:x}) "
            f"at {revoked.revocation_date_utc:%Y-%m-%d %H:%M} UTC",
            hint="if nobody here asked for that, treat the key as stolen; get a new certificate from the CA",
        )
    return next_update


def _was_good(revoked: x509.RevokedCertificate, when: _When) -> bool:
    """Whether a certificate that is revoked now could be trusted then (RFC 5280 section 5.3)."""
    if revoked.revocation_date_utc <= when.judged + SKEW or when.judged >= when.now:
        return False
    try:
        told = {type(each.value): each.value for each in revoked.extensions}
    except UNREADABLE:
        return False
    reason, invalid = told.pop(x509.CRLReason, None), told.pop(x509.InvalidityDate, None)
    if told or not isinstance(reason, x509.CRLReason) or reason.reason not in _KEY_NOT_TO_BLAME:
        return False
    return not isinstance(invalid, x509.InvalidityDate) or invalid.invalidity_date_utc > when.judged + SKEW


def _read(child: x509.Certificate, directory: Path) -> list[x509.CertificateRevocationList]:
    """The CRLs in the directory under the name of the CA that issued `child`; at least one."""
    problem = f"there is no revocation list of {grid_name(child.issuer)} in {directory}"
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_PAUSE_SECONDS)
        try:
            files = {content: path for path, content in files_of(child, directory, "r", max_bytes=_MAX_CRL_BYTES)}
            if files:
                return [_parse(path, content) for content, path in files.items()]
        except ChainError as error:
            problem = error.message
    raise CrlError(problem, hint=_HINT)


def _parse(path: Path, content: bytes) -> x509.CertificateRevocationList:
    try:
        is_pem = b"-----BEGIN X509 CRL-----" in content
        crl = x509.load_pem_x509_crl(content) if is_pem else x509.load_der_x509_crl(content)
        _ = crl.extensions, crl.issuer, crl.signature_hash_algorithm, crl.last_update_utc, crl.next_update_utc
    except UNREADABLE as error:
        raise CrlError(f"the revocation list {path} is unreadable", hint=_HINT) from error
    return crl


def _newest(
    crls: Sequence[x509.CertificateRevocationList], child: x509.Certificate, issuer: x509.Certificate, when: _When
) -> tuple[x509.CertificateRevocationList, datetime]:
    """The newest list that tells about `child`, and when it ends; others may be of a CA with the same name."""
    usable = []
    problems = []
    for crl in crls:
        try:
            _check_issuer(crl, issuer)
            _check_scope(crl, child)
            usable.append((crl, _check_times(crl, when)))
        except CrlError as error:
            problems.append(error)
    if not usable:
        raise problems[0]
    return max(usable, key=lambda found: found[0].last_update_utc)


def _check_issuer(crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> None:
    usage = key_usage_of(issuer)
    if usage is not None and not usage.crl_sign:
        raise CrlError(f"the CA {grid_name(issuer.subject)} may not sign revocation lists", hint=_HINT)
    key = issuer.public_key()
    if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        raise CrlError(f"the key of the CA {grid_name(issuer.subject)} is neither RSA nor EC", hint=_HINT)
    if crl.issuer != issuer.subject or not crl.is_signature_valid(key):
        raise CrlError(f"a revocation list of {grid_name(crl.issuer)} is not signed by that CA", hint=_HINT)


def _check_times(crl: x509.CertificateRevocationList, when: _When) -> datetime:
    name = grid_name(crl.issuer)
    if crl.last_update_utc > when.now + SKEW:
        raise CrlError(
            f"the revocation list of {name} is of {crl.last_update_utc:%Y-%m-%d %H:%M} UTC, which is still to come",
            hint="check this computer's clock",
        )
    if crl.next_update_utc is None:
        raise CrlError(f"the revocation list of {name} does not say when it ends", hint=_HINT)
    if crl.next_update_utc <= when.judged - SKEW:
        raise CrlError(f"the revocation list of {name} ended at {crl.next_update_utc:%Y-%m-%d %H:%M} UTC", hint=_HINT)
    return crl.next_update_utc


def _check_scope(crl: x509.CertificateRevocationList, child: x509.Certificate) -> None:
    """See that the list is a whole one that covers `child`: no delta (section 5.2.4), not of other points (5.2.5)."""
    for extension in crl.extensions:
        if isinstance(extension.value, x509.IssuingDistributionPoint):
            if not _is_point_of(extension.value, child):
                raise CrlError(f"the revocation list of {grid_name(crl.issuer)} is one of several parts", hint=_HINT)
        elif isinstance(extension.value, x509.DeltaCRLIndicator):
            raise CrlError(f"the revocation list of {grid_name(crl.issuer)} has changes only", hint=_HINT)
        elif extension.critical and extension.oid not in _KNOWN_CRITICAL:
            name = extension.oid.dotted_string
            raise CrlError(
                f"the revocation list of {grid_name(crl.issuer)} has the unknown critical extension {name}", hint=_HINT
            )


def _is_point_of(point: x509.IssuingDistributionPoint, child: x509.Certificate) -> bool:
    if point.indirect_crl or point.only_some_reasons or point.only_contains_attribute_certs or point.relative_name:
        return False
    if point.only_contains_user_certs if is_ca(child) else point.only_contains_ca_certs:
        return False
    return not point.full_name or not set(point.full_name).isdisjoint(_points(child))


def _points(certificate: x509.Certificate) -> list[x509.GeneralName]:
    try:
        found = extensions_of(certificate).get_extension_for_class(x509.CRLDistributionPoints).value
    except x509.ExtensionNotFound:
        return []
    return [name for point in found if not point.reasons and not point.crl_issuer for name in point.full_name or ()]
