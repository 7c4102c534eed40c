"""Setting up a dongle: a key that is made on it and stays there, a request for the CA, and the CA's answer."""

import secrets

import pkcs11
from asn1crypto.core import Integer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from pkcs11 import Attribute, CertificateType, KeyType, MechanismFlag, ObjectClass

from proxyagent.dongle import Dongle, certificates_of, module_errors, public_keys_of
from proxyagent.errors import NoCredentialError, SeveralDonglesError
from proxyagent.proxy import check_issuer
from proxyagent.tokenkey import PrivateKeyObject, public_key_of, token_key

_KEY_SIZE_BITS = 2048


def generate_key(dongle: Dongle, *, label: str) -> bool:
    """Make an RSA key pair on the dongle, unless there is one that the URI means; tell whether it was made.

    The private key is sensitive and not extractable, and signs only.
    """
    session = dongle.session()
    with module_errors():
        if dongle.private_keys(session):
            return False
        private = {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False, Attribute.PRIVATE: True}
        session.generate_keypair(
            KeyType.RSA,
            _KEY_SIZE_BITS,
            id=secrets.token_bytes(8),
            label=label,
            store=True,
            capabilities=MechanismFlag.SIGN | MechanismFlag.VERIFY,
            private_template=private,
        )
    return True


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
        key = token_key(private, public_key_of(public[0]))
        request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def import_certificate(dongle: Dongle, certificate: x509.Certificate) -> None:
    """Store the certificate beside its key, in place of an earlier one for that key.

    Raises:
        NoCredentialError: it is not for the dongle's key, or may not sign proxies now.
    """
    check_issuer(certificate)
    session = dongle.session()
    with module_errors():
        private = _only_key(dongle, session)
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
                "the certificate is not for the dongle's key",
                hint="import the certificate that the CA made from this dongle's request",
            )
        for old in earlier:
            old.destroy()


def _only_key(dongle: Dongle, session: pkcs11.Session) -> PrivateKeyObject:
    keys = dongle.private_keys(session)
    if not keys:
        raise NoCredentialError("the dongle has no key", hint="make one with `proxyagent init`")
    if len(keys) > 1:
        names = ", ".join(f"object={key.label}" for key in keys)
        raise SeveralDonglesError(f"the dongle has several keys: {names}", hint="add the right object= to the uri")
    return keys[0]
