"""VOMS attribute certificates (RFC 5755): what makes one acceptable, and how a proxy carries it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from M2Crypto import X509

from proxyagent.chain import certificates_to_pem, grid_name
from proxyagent.clock import SKEW
from proxyagent.crl import check_revocation
from proxyagent.errors import ChainError, VomsError
from proxyagent.verify import verify_chain
from proxyagent.voms.asn1 import AC_SEQUENCE, Parts, acs_to_der, parts_of, rdns_of
from proxyagent.voms.lsc import check_lsc
from proxyagent.voms.names import printable, short_fqan

_TARGETS = "2.5.29.55"
_HINT = "ask the VO's manager what its VOMS server issues"

# asn1crypto's names. Not SHA-1 and MD5, for which signatures can be forged.
_RSA = {"sha256_rsa": hashes.SHA256(), "sha384_rsa": hashes.SHA384(), "sha512_rsa": hashes.SHA512()}
_EC = {"sha256_ecdsa": hashes.SHA256(), "sha384_ecdsa": hashes.SHA384(), "sha512_ecdsa": hashes.SHA512()}


@dataclass(frozen=True, slots=True)
class AttributeCertificate:
    """An attribute certificate that has been checked."""

    vo: str
    fqans: tuple[str, ...]
    """All that it grants, in their shortest form: /mice/Role=production, /mice."""
    not_before: datetime
    not_after: datetime
    der: bytes = field(repr=False)
    issuer: str
    """The VOMS server's name in slash form."""


def check_ac(
    der: bytes,
    *,
    holder: x509.Certificate,
    vo: str,
    fqans: Sequence[str],
    vomsdir: Path,
    ca_directory: Path,
    now: datetime,
    check_crls: bool = False,
) -> AttributeCertificate:
    """See that an attribute certificate is genuine and grants what was asked for (RFC 5755 section 5).

    Args:
        holder: the end-entity certificate that it must be for.
        fqans: what must be in it: the first one first, and no other role than these.
        vomsdir: has the names of the VO's servers in ``<vo>/*.lsc``.
        check_crls: whether the server's CAs must have current CRLs, in which it is not revoked.

    Raises:
        VomsError: it is not acceptable, for the reason in the message.
    """
    # 1. It is of bounded size and of the shape that VOMS gives it.
    parts = parts_of(der)
    # 2. Nothing in it must be understood that we do not understand (RFC 5755 sections 4.1, 4.3).
    _check_understood(parts)
    # 3. It is signed by one of the certificates that it carries, which bears the issuer's name.
    chain = _signer_chain(parts)
    # 4. That is a certificate of one of the VO's servers, by name and by its CA's name.
    check_lsc(vomsdir, vo, chain)
    # 5. A CA that is trusted has issued it.
    _check_chain(chain, ca_directory, now=now, check_crls=check_crls)
    # 6. It is for our certificate.
    _check_holder(parts, holder)
    # 7. It is valid now.
    _check_times(parts, now)
    # 8. It is of the VO, and so are all FQANs.
    granted = _granted(parts, vo)
    # 9. It grants what was asked for, in that order, and no role besides.
    _check_asked(granted, tuple(map(short_fqan, fqans)))
    return AttributeCertificate(vo, granted, parts.not_before, parts.not_after, der, grid_name(chain[0].subject))


def ac_extension(acs: Sequence[bytes]) -> x509.UnrecognizedExtension:
    """The extension, not critical, by which a proxy carries attribute certificates (DER)."""
    return x509.UnrecognizedExtension(AC_SEQUENCE, acs_to_der(acs))


def _check_understood(parts: Parts) -> None:
    if parts.version != "v2":
        raise VomsError("an attribute certificate of another version than 2", hint=_HINT)
    # Targets narrow where it counts, which is for those to judge to whom it is shown.
    unknown = parts.critical - {_TARGETS}
    if unknown:
        raise VomsError(f"an attribute certificate with the unknown critical extension {min(unknown)}", hint=_HINT)


def _signer_chain(parts: Parts) -> tuple[x509.Certificate, ...]:
    """The issuer's certificate, and those above it as far as they are there."""
    named = [each for each in parts.certificates if rdns_of(each.subject) == parts.issuer_name]
    signer = next((each for each in named if _has_signed(each, parts)), None)
    if signer is None:
        raise VomsError("an attribute certificate that is not signed by a certificate that it carries", hint=_HINT)
    chain = [signer]
    while len(chain) < len(parts.certificates):
        above = (each for each in parts.certificates if each.subject == chain[-1].issuer and each not in chain)
        found = next(above, None)
        if found is None:
            break
        chain.append(found)
    return tuple(chain)


def _has_signed(signer: x509.Certificate, parts: Parts) -> bool:
    try:
        key = signer.public_key()
        if isinstance(key, rsa.RSAPublicKey) and parts.algorithm in _RSA:
            key.verify(parts.signature, parts.signed, padding.PKCS1v15(), _RSA[parts.algorithm])
        elif isinstance(key, ec.EllipticCurvePublicKey) and parts.algorithm in _EC:
            key.verify(parts.signature, parts.signed, ec.ECDSA(_EC[parts.algorithm]))
        else:
            raise VomsError(f"an attribute certificate that is signed with {parts.algorithm}", hint=_HINT)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        return False
    return True


def _check_chain(chain: Sequence[x509.Certificate], ca_directory: Path, *, now: datetime, check_crls: bool) -> None:
    try:
        verify_chain(certificates_to_pem(chain), ca_directory, now=now)
        if check_crls:
            check_revocation(chain[0], ca_directory, now=now)
    except (ChainError, X509.X509Error) as error:
        raise VomsError(
            f"the VOMS server's certificate is not trusted: {error}",
            hint=f"see that {ca_directory} has the CA of {grid_name(chain[0].subject)}, and its current CRL",
        ) from error


def _check_holder(parts: Parts, holder: x509.Certificate) -> None:
    # VOMS servers in C give the subject where RFC 5755 section 4.2.2 wants the issuer, unless they are told otherwise;
    # those in Java give the issuer. A subject that is no CA's issues nothing, so neither is ambiguous.
    names = (rdns_of(holder.issuer), rdns_of(holder.subject))
    if parts.holder_serial != holder.serial_number or parts.holder_name not in names:
        raise VomsError(
            "an attribute certificate for another holder than the robot's certificate",
            hint="if the robot's certificate was renewed just now, this mends itself; else tell the VO's manager",
        )


def _check_times(parts: Parts, now: datetime) -> None:
    clock = "check this computer's clock, and tell the VO's manager if it is right"
    if now + SKEW < parts.not_before:
        raise VomsError(f"an attribute certificate that is not valid before {parts.not_before}", hint=clock)
    if now - SKEW >= parts.not_after:
        raise VomsError(f"an attribute certificate that ended at {parts.not_after}", hint=clock)


def _granted(parts: Parts, vo: str) -> tuple[str, ...]:
    if parts.authority.partition("://")[0] != vo:
        raise VomsError(f"an attribute certificate of {printable(parts.authority)}, not of VO {vo!r}", hint=_HINT)
    granted = tuple(map(short_fqan, parts.fqans))
    foreign = [fqan for fqan in granted if not f"{fqan}/".startswith(f"/{vo}/")]
    if foreign:
        raise VomsError(f"an attribute certificate of VO {vo!r} with {printable(foreign[0])}", hint=_HINT)
    return granted


def _check_asked(granted: tuple[str, ...], asked: tuple[str, ...]) -> None:
    missing = [fqan for fqan in asked if fqan not in granted]
    if missing or not asked:
        raise VomsError(f"an attribute certificate without {' '.join(missing)}", hint=_HINT)
    # The first FQAN decides what many services map the proxy to.
    if granted[0] != asked[0]:
        raise VomsError(f"an attribute certificate with {printable(granted[0])} before {asked[0]}", hint=_HINT)
    # Servers add groups by themselves, but never roles. More rights than the profile's are nobody's to have.
    extra = [fqan for fqan in granted if "/Role=" in fqan and fqan not in asked]
    if extra:
        raise VomsError(f"an attribute certificate with {printable(extra[0])}, which was not asked for", hint=_HINT)
