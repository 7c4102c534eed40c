"""Setting up a dongle: a key that is made on it and stays there, a request for the CA, and the CA's answer."""

import secrets

import pkcs11
from asn1crypto.core import Integer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from pkcs11 import Attribute, CertificateType, KeyType, MechanismFlag, ObjectClass
from pkcs11.util.ec import encode_named_curve_parameters

from proxyagent.description import CURVES, KEY_KINDS, RSA_BITS
from proxyagent.dongle import Dongle
from proxyagent.errors import NoCredentialError, RequestError, SeveralDonglesError
from proxyagent.faults import module_errors
from proxyagent.objects import certificates_of, private_keys, public_keys_of
from proxyagent.proxy import check_issuer
from proxyagent.tokenkey import PrivateKeyObject, public_key_of, token_key


def generate_key(dongle: Dongle, *, label: str, kind: str) -> bool:
    """Make a key pair on the dongle, unless there is one that the URI means; tell whether it was made.

    The private key is sensitive and not extractable, and signs only.

    Raises:
        RequestError: `kind` is not one of KEY_KINDS, or the URI would not mean the new key.
        NoCredentialError: the dongle did not make it so.
    """
    if kind not in KEY_KINDS:
        raise RequestError(f"there is no kind of key {kind!r}", hint=f"use one of {', '.join(KEY_KINDS)}")
    session = dongle.session()
    with module_errors():
        if private_keys(session, dongle.uri):
            return False
        identifier = dongle.uri.id or secrets.token_bytes(8)
        if not dongle.uri.matches_object(label=label, identifier=identifier):
            raise RequestError(
                f"the dongle's uri does not mean a key of label {label!r}",
                hint="give the label that the uri has in object=, or correct the uri",
            )
        public, private = _generate(session, kind, identifier, label)
        flags = [private[name] for name in (Attribute.SENSITIVE, Attribute.EXTRACTABLE)]
        if flags != [True, False]:
            private.destroy()
            public.destroy()
            raise NoCredentialError(
                "the dongle made a key that could be taken from it, so it was removed again",
                hint="see whether the vendor's tool can make one that cannot",
            )
    return True


def _generate(
    session: pkcs11.Session, kind: str, identifier: bytes, label: str
) -> tuple[pkcs11.PublicKey, pkcs11.PrivateKey]:
    flags = {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False, Attribute.PRIVATE: True}
    capabilities = MechanismFlag.SIGN | MechanismFlag.VERIFY
    if kind in RSA_BITS:
        return session.generate_keypair(
            KeyType.RSA,
            RSA_BITS[kind],
            id=identifier,
            label=label,
            store=True,
            capabilities=capabilities,
            private_template=flags,
        )
    curve = {Attribute.EC_PARAMS: encode_named_curve_parameters(CURVES[kind])}
    return session.create_domain_parameters(KeyType.EC, curve, local=True).generate_keypair(
        id=identifier, label=label, store=True, capabilities=capabilities, private_template=flags
    )


def make_token_request(dongle: Dongle, subject: x509.Name) -> str:
    """A certificate request (PEM) for the dongle's key, to be signed by the CA.

    Raises:
        NoCredentialError: there is no key.
        SeveralDonglesError: the URI means several keys.
    """
    session = dongle.session()
    with module_errors():
        private = _only_key(dongle, session)
        public = public_keys_of(session, private)
        if len(public) != 1:
            raise NoCredentialError(
                f"the dongle has {len(public)} public keys for its private key",
                hint="remove what does not belong with `pkcs11-tool`",
            )
        request = _request(session, private, public_key_of(public[0]), subject)
    return request.public_bytes(serialization.Encoding.PEM).decode()


def import_certificate(dongle: Dongle, certificate: x509.Certificate) -> None:
    """Store the certificate beside its key, in place of earlier ones for that key, which go only afterwards.

    Raises:
        NoCredentialError: it is not for the dongle's key, or may not sign proxies now.
    """
    check_issuer(certificate)
    session = dongle.session()
    with module_errors():
        private = _only_key(dongle, session)
        _check_owner(session, private, certificate)
        template = {Attribute.CLASS: ObjectClass.CERTIFICATE, Attribute.ID: private.id}
        earlier = list(session.get_objects(template))
        new = session.create_object(
            {
                **template,
                Attribute.CERTIFICATE_TYPE: CertificateType.X_509,
                Attribute.TOKEN: True,
                Attribute.PRIVATE: False,
                Attribute.LABEL: private.label,
                Attribute.SUBJECT: certificate.subject.public_bytes(),
                Attribute.ISSUER: certificate.issuer.public_bytes(),
                Attribute.SERIAL_NUMBER: Integer(certificate.serial_number).dump(),
                Attribute.VALUE: certificate.public_bytes(serialization.Encoding.DER),
            }
        )
        if certificate not in certificates_of(session, private):
            new.destroy()
            raise NoCredentialError(
                "the dongle did not keep the certificate as it is", hint="see whether it is full with `pkcs11-tool -O`"
            )
        for old in earlier:
            old.destroy()
    dongle.expect(certificate)


def _check_owner(session: pkcs11.Session, private: PrivateKeyObject, certificate: x509.Certificate) -> None:
    """See that it is the key's, by a signature: some dongles tell nothing of a key but its name."""
    public_key = certificate.public_key()
    wanted = rsa.RSAPublicKey if private.key_type is KeyType.RSA else ec.EllipticCurvePublicKey
    if (
        isinstance(public_key, wanted)
        and _request(session, private, public_key, certificate.subject).is_signature_valid
    ):
        return
    raise NoCredentialError(
        "the certificate is not for the dongle's key",
        hint="import the certificate that the CA made from this dongle's request",
    )


def _request(
    session: pkcs11.Session,
    private: PrivateKeyObject,
    public_key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey,
    subject: x509.Name,
) -> x509.CertificateSigningRequest:
    key = token_key(private, public_key, session.token.slot.get_mechanisms())
    return x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())


def _only_key(dongle: Dongle, session: pkcs11.Session) -> PrivateKeyObject:
    keys = private_keys(session, dongle.uri)
    if not keys:
        raise NoCredentialError("the dongle has no key", hint="make one with `proxyagent init`")
    if len(keys) > 1:
        names = ", ".join(f"object={key.label}" for key in keys)
        raise SeveralDonglesError(f"the dongle has several keys: {names}", hint="add the right object= to the uri")
    return keys[0]
