"""What is on a dongle: keys, their certificates, and the one pair of them that an identity means."""

from datetime import datetime
from typing import TypeVar, cast

import pkcs11
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from pkcs11 import Attribute, ObjectClass
from pkcs11.attributes import AttributeMapper

from proxyagent.chain import grid_name
from proxyagent.errors import NoCredentialError, SeveralDonglesError
from proxyagent.proxy import IssuerKey, check_issuer
from proxyagent.tokenkey import PrivateKeyObject, public_key_of, token_key
from proxyagent.uri import Uri

_MAX_NAMED = 8
_T = TypeVar("_T")


def lenient_mapper() -> AttributeMapper:
    """How python-pkcs11 reads attributes, but for labels: one that is not UTF-8 shall not hide what it is on."""
    mapper = AttributeMapper()
    mapper.register_handler(Attribute.LABEL, str.encode, lambda value: value.decode("utf-8", "replace"))
    return mapper


def credential(session: pkcs11.Session, uri: Uri, *, now: datetime) -> tuple[x509.Certificate, IssuerKey]:
    """The only certificate on the dongle that the URI means, and its key. The user is logged in.

    Raises:
        NoCredentialError: there is none, or it cannot sign proxies now.
        SeveralDonglesError: there are several.
    """
    pairs = [(each, key) for key in private_keys(session, uri) for each in certificates_of(session, key)]
    if not pairs:
        raise NoCredentialError(
            "the dongle has no key with a certificate", hint="import it with `proxyagent init --certificate FILE`"
        )
    if len(pairs) > 1:
        raise _several(pairs)
    certificate, private = pairs[0]
    check_issuer(certificate, now=now)
    public_key = certificate.public_key()
    if not isinstance(public_key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        raise NoCredentialError("the certificate's key is neither RSA nor EC", hint="get one for an RSA key")
    _check_usable(private)
    return certificate, token_key(private, public_key, session.token.slot.get_mechanisms())


def public_certificates(session: pkcs11.Session, uri: Uri) -> tuple[x509.Certificate, ...]:
    """The end-entity certificates that the URI can mean, as far as they are seen; a login is not needed."""
    labels = _labels_of_keys(session)
    found = (
        certificate
        for label, identifier, certificate in visible_certificates(session)
        if not _is_ca(certificate)
        and any(uri.matches_object(label=each, identifier=identifier) for each in {label, *labels.get(identifier, ())})
    )
    return tuple(dict.fromkeys(found))


def visible_certificates(session: pkcs11.Session) -> list[tuple[str, bytes, x509.Certificate]]:
    """Label, CKA_ID and certificate, of all that are readable."""
    found = []
    for each in list(session.get_objects({Attribute.CLASS: ObjectClass.CERTIFICATE})):
        try:
            certificate = x509.load_der_x509_certificate(bytes(each[Attribute.VALUE]))
        except ValueError:
            continue  # dongles hold other things in X.509's place; `credential` names those that matter
        found.append((_read(each, Attribute.LABEL, ""), _read(each, Attribute.ID, b""), certificate))
    return found


def private_keys(session: pkcs11.Session, uri: Uri) -> list[PrivateKeyObject]:
    """The private keys that the URI means."""
    found = cast("list[PrivateKeyObject]", list(session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY})))
    return [key for key in found if uri.matches_object(label=key.label, identifier=key.id)]


def public_keys_of(session: pkcs11.Session, private: PrivateKeyObject) -> list[pkcs11.PublicKey]:
    """The public key objects with the CKA_ID of this private key: one, if the dongle is in order."""
    template = {Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.ID: private.id}
    return cast("list[pkcs11.PublicKey]", list(session.get_objects(template)))


def certificates_of(session: pkcs11.Session, private: PrivateKeyObject) -> list[x509.Certificate]:
    """The certificates with the CKA_ID of this key, but for those of other keys.

    Raises:
        NoCredentialError: one of them is unreadable.
    """
    template = {Attribute.CLASS: ObjectClass.CERTIFICATE, Attribute.ID: private.id}
    values = [bytes(found[Attribute.VALUE]) for found in list(session.get_objects(template))]
    try:
        certificates = [x509.load_der_x509_certificate(value) for value in values]
    except ValueError as error:
        raise NoCredentialError(
            f"the dongle has an unreadable certificate for key {private.label!r}",
            hint="import it again with `proxyagent init --certificate FILE`",
        ) from error
    return [each for each in certificates if _may_belong(session, private, each)]


def _may_belong(session: pkcs11.Session, private: PrivateKeyObject, certificate: x509.Certificate) -> bool:
    """Whether nothing that the dongle tells of the key speaks against it; the signature is the proof."""
    public_key = certificate.public_key()
    if isinstance(public_key, rsa.RSAPublicKey) != (private.key_type is pkcs11.KeyType.RSA):
        return False
    if isinstance(public_key, rsa.RSAPublicKey):
        try:
            return int.from_bytes(private[Attribute.MODULUS], "big") == public_key.public_numbers().n
        except (pkcs11.AttributeTypeInvalid, pkcs11.AttributeSensitive):
            pass  # some modules tell nothing of a private key; the public key object does
    # A private EC key does not tell its public point.
    public = public_keys_of(session, private)
    return not public or any(public_key_of(each) == public_key for each in public)


def _check_usable(private: PrivateKeyObject) -> None:
    if not hasattr(private, "sign"):  # python-pkcs11 gives it to keys with CKA_SIGN
        raise NoCredentialError(
            f"key {private.label!r} on the dongle is not for signing", hint="make one that is, with `proxyagent init`"
        )
    try:
        always = bool(private[Attribute.ALWAYS_AUTHENTICATE])
    except (pkcs11.AttributeTypeInvalid, pkcs11.FunctionFailed):
        always = False  # modules of PKCS#11 2.11 do not know it
    if always:
        raise NoCredentialError(
            f"key {private.label!r} on the dongle wants the PIN for every signature",
            hint="use a key that does not (on a PIV card, slot 9a rather than 9c): the agent keeps no PIN",
        )


def _labels_of_keys(session: pkcs11.Session) -> dict[bytes, set[str]]:
    labels: dict[bytes, set[str]] = {}
    for key in cast("list[pkcs11.PublicKey]", list(session.get_objects({Attribute.CLASS: ObjectClass.PUBLIC_KEY}))):
        labels.setdefault(key.id, set()).add(key.label)
    return labels


def _read(found: pkcs11.Object, attribute: Attribute, default: _T) -> _T:
    try:
        return cast("_T", found[attribute])
    except pkcs11.AttributeTypeInvalid:
        return default


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False  # `check_issuer` judges what is to be used


def _several(pairs: list[tuple[x509.Certificate, PrivateKeyObject]]) -> SeveralDonglesError:
    names = [
        f"{str(Uri(object=key.label, id=key.id)).removeprefix('pkcs11:')} "
        f"({grid_name(each.subject)} until {each.not_valid_after_utc:%Y-%m-%d})"
        for each, key in pairs[:_MAX_NAMED]
    ]
    if len({key.id for _, key in pairs}) == 1:
        hint = "remove all but one: `proxyagent init --certificate FILE` puts it in the place of the others"
    else:
        hint = "add the right object= or id= to the dongle's uri in the configuration"
    return SeveralDonglesError(f"the dongle has {len(pairs)} keys with certificates: {', '.join(names)}", hint=hint)
