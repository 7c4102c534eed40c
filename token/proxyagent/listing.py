"""What every dongle behind a module shows without a PIN. Runs in the helper process only."""

from typing import cast

import pkcs11
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from pkcs11 import Attribute, KeyType, ObjectClass, TokenFlag

from proxyagent.chain import grid_name
from proxyagent.description import ListedCertificate, ListedDongle, ListedKey
from proxyagent.dongle import Dongle, pin_state, serial_of
from proxyagent.errors import ProxyAgentError
from proxyagent.faults import module_errors
from proxyagent.objects import lenient_mapper, visible_certificates
from proxyagent.tokenkey import public_key_of

# One dongle must fit a frame, even if every character of every text is escaped.
_MAX_OBJECTS = 20
_MAX_TEXT = 160
_MAX_LABEL = 64

_Key = rsa.RSAPublicKey | ec.EllipticCurvePublicKey


def list_dongles(dongle: Dongle) -> list[ListedDongle]:
    """All dongles behind the module, whatever the URI. One that cannot be read is listed with the problem.

    Raises:
        ModuleError: the module cannot even tell which there are.
    """
    return [_listed(token) for token in dongle.tokens()]


def _listed(token: pkcs11.Token) -> ListedDongle:
    keys: list[ListedKey] = []
    certificates: list[ListedCertificate] = []
    problem = None
    initialised = TokenFlag.TOKEN_INITIALIZED in token.flags
    if initialised:
        try:
            with module_errors(), token.open(attribute_mapper=lenient_mapper()) as session:
                keys = _keys(session)
                certificates = [_certificate(*each) for each in visible_certificates(session)]
        except ProxyAgentError as error:
            problem = error.message
    if max(len(keys), len(certificates)) > _MAX_OBJECTS:
        problem = f"{len(keys)} keys and {len(certificates)} certificates; the first {_MAX_OBJECTS} are listed"
    return ListedDongle(
        label=token.label,
        serial=serial_of(token),
        manufacturer=token.manufacturer_id,
        model=token.model,
        initialised=initialised,
        pin_state=pin_state(token.flags),
        pin_pad=TokenFlag.PROTECTED_AUTHENTICATION_PATH in token.flags,
        keys=tuple(keys[:_MAX_OBJECTS]),
        certificates=tuple(certificates[:_MAX_OBJECTS]),
        problem=problem,
    )


def _keys(session: pkcs11.Session) -> list[ListedKey]:
    """The public keys, and those private ones that show themselves without a login."""
    found: dict[bytes, ListedKey] = {}
    for kind in (ObjectClass.PUBLIC_KEY, ObjectClass.PRIVATE_KEY):
        for key in cast("list[pkcs11.PublicKey]", list(session.get_objects({Attribute.CLASS: kind}))):
            if key.id not in found:
                found[key.id] = ListedKey(key.label[:_MAX_LABEL], key.id.hex()[:_MAX_LABEL], *_kind(key))
    return list(found.values())


def _kind(key: pkcs11.PublicKey) -> tuple[str, int | None]:
    name = key.key_type.name
    if isinstance(key, pkcs11.PublicKey) and key.key_type in {KeyType.RSA, KeyType.EC}:
        return name, public_key_of(key).key_size
    return name, None


def _certificate(label: str, identifier: bytes, certificate: x509.Certificate) -> ListedCertificate:
    return ListedCertificate(
        label=label[:_MAX_LABEL],
        id=identifier.hex()[:_MAX_LABEL],
        subject=grid_name(certificate.subject)[:_MAX_TEXT],
        issuer=grid_name(certificate.issuer)[:_MAX_TEXT],
        not_after=certificate.not_valid_after_utc,
        key=_kind_of(certificate),
    )


def _kind_of(certificate: x509.Certificate) -> str:
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size}"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"EC {key.key_size}"
    return "other"
