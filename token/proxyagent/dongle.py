"""The PKCS#11 module: finding the dongle, logging in, and signing session proxies. Runs in the helper process only."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import cast

import pkcs11
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from pkcs11 import Attribute, ObjectClass, TokenFlag

from proxyagent.errors import (
    ModuleError,
    NoCredentialError,
    NoDongleError,
    NoSessionError,
    PinLockedError,
    SeveralDonglesError,
    WrongPinError,
)
from proxyagent.pin import Secret
from proxyagent.proxy import Language, ProxyInfo, check_issuer, issue_proxy
from proxyagent.tokenkey import PrivateKeyObject, public_key_of, token_key
from proxyagent.uri import Uri

_REMOVED = (pkcs11.TokenNotPresent, pkcs11.DeviceRemoved, pkcs11.TokenNotRecognised, pkcs11.SlotIDInvalid)
_FLAGS = {
    "locked": TokenFlag.USER_PIN_LOCKED,
    "final": TokenFlag.USER_PIN_FINAL_TRY,
    "low": TokenFlag.USER_PIN_COUNT_LOW,
}


@dataclass(frozen=True, slots=True)
class Description:
    """What a dongle says about itself."""

    serial: str
    label: str
    pin_state: str
    """'ok', 'low' (a wrong one was entered), 'final' (one attempt left) or 'locked'."""


class Dongle:
    """The one token that `uri` means, behind one PKCS#11 module. Not for use from several threads.

    Every method may raise NoDongleError, SeveralDonglesError or ModuleError.
    """

    def __init__(self, module: str, uri: Uri) -> None:
        with module_errors():
            self._library = pkcs11.lib(module)
        self._uri = uri
        self._session: pkcs11.Session | None = None

    @property
    def logged_in(self) -> bool:
        """Whether a session can be signed without a PIN."""
        return self._session is not None

    def describe(self) -> Description:
        """What the dongle says of itself now. A dongle that went away takes our login with it."""
        return _description(self._token())

    def login(self, pin: Secret, serial: str) -> pkcs11.Session:
        """Log in, with exactly one C_Login.

        Raises:
            NoDongleError: the dongle is no longer the one with this `serial`; the PIN was not sent.
            PinLockedError: the PIN was not sent, because it is locked or a wrong one would lock it.
            WrongPinError: the dongle refused, whatever its reason: one attempt is used up.
        """
        self.logout()
        token = self._token()
        if _serial(token) != serial:
            raise NoDongleError("the dongle was exchanged meanwhile", hint="enter the PIN of the dongle that is in now")
        refuse_flags(token.flags)
        try:
            self._session = token.open(rw=True, user_pin=pin.buffer.decode())
        except pkcs11.PKCS11Error as error:
            # A failed login leaks the session that was opened for it (python-pkcs11 0.10): start the module afresh.
            self._reinitialise()
            raise _refused(error, serial) from error
        return self._session

    def session(self) -> pkcs11.Session:
        """The session that is logged in.

        Raises:
            NoSessionError: there is none.
        """
        if self._session is None:
            raise NoSessionError("not logged in to the dongle", hint="run `proxyagent renew`")
        return self._session

    def logout(self) -> None:
        """Give up the login, if there is one."""
        session, self._session = self._session, None
        if session is not None:
            with module_errors():
                session.close()

    def sign_session(self, public_key: rsa.RSAPublicKey, lifetime: timedelta) -> tuple[x509.Certificate, ...]:
        """A session proxy for `public_key`, and the certificate of the key that signed it.

        Raises:
            NoSessionError: not logged in.
            NoCredentialError: the dongle has no key with a certificate that may sign proxies now.
        """
        self._token()
        session = self.session()
        with module_errors():
            certificate, key = self._credential(session)
            info = ProxyInfo(Language.INHERIT_ALL)
            now = datetime.now(UTC)
            proxy = issue_proxy(certificate, key, public_key, info=info, lifetime=lifetime, now=now)
        return proxy, certificate

    def _credential(
        self, session: pkcs11.Session
    ) -> tuple[x509.Certificate, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey]:
        """The only certificate on the dongle that the URI means, and its key."""
        pairs = [
            (certificate, private)
            for private in self.private_keys(session)
            for certificate in certificates_of(session, private)
        ]
        if not pairs:
            raise NoCredentialError(
                "the dongle has no key with a certificate", hint="import it with `proxyagent init --certificate FILE`"
            )
        if len(pairs) > 1:
            names = ", ".join(f"object={private.label};id=%{private.id.hex('%')}" for _, private in pairs)
            raise SeveralDonglesError(
                f"the dongle has {len(pairs)} keys with certificates: {names}",
                hint="add the right object= or id= to the dongle's uri in the configuration",
            )
        certificate, private = pairs[0]
        check_issuer(certificate)
        public_key = certificate.public_key()
        if not isinstance(public_key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
            raise NoCredentialError("the certificate's key is neither RSA nor EC", hint="get one for an RSA key")
        return certificate, token_key(private, public_key)

    def private_keys(self, session: pkcs11.Session) -> list[PrivateKeyObject]:
        """The private keys on the dongle that the URI means."""
        found = cast("list[PrivateKeyObject]", list(session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY})))
        return [key for key in found if self._uri.matches_object(label=key.label, identifier=key.id)]

    def _token(self) -> pkcs11.Token:
        with module_errors():
            if self._session is not None:
                try:
                    return self._session.token.slot.get_token()
                except _REMOVED:
                    self._session = None
            self._reinitialise()
            found = [token for token in self._library.get_tokens() if self._is_meant(token)]
        if not found:
            raise NoDongleError(
                f"no dongle that matches {self._uri}", hint="plug it in, or correct the uri in the configuration"
            )
        if len(found) > 1:
            names = ", ".join(f"{token.label!r} (serial {_serial(token)})" for token in found)
            raise SeveralDonglesError(f"several dongles match: {names}", hint="add the right serial= to the uri")
        return found[0]

    def _reinitialise(self) -> None:
        # Slots stay as they were at C_Initialize; this is the only way to see a dongle that came or went.
        self._session = None
        self._library.reinitialize()

    def _is_meant(self, token: pkcs11.Token) -> bool:
        return TokenFlag.TOKEN_INITIALIZED in token.flags and self._uri.matches_token(
            serial=_serial(token), manufacturer=token.manufacturer_id, model=token.model, label=token.label
        )


def refuse_flags(flags: TokenFlag) -> None:
    """See that a wrong PIN would not lock the dongle.

    Raises:
        PinLockedError: it is locked, or this is the last attempt.
    """
    if TokenFlag.USER_PIN_LOCKED in flags:
        raise PinLockedError(
            "the dongle's PIN is locked", hint="unblock it with the PUK or SO PIN and the vendor's own tool"
        )
    if TokenFlag.USER_PIN_FINAL_TRY in flags:
        raise PinLockedError(
            "one more wrong PIN would lock the dongle, so none was sent",
            hint="log in once with the vendor's own tool and the right PIN; that resets the counter",
        )


def certificates_of(session: pkcs11.Session, private: PrivateKeyObject) -> list[x509.Certificate]:
    """The certificates on the dongle that belong to this key: the same CKA_ID, and really the same key."""
    template = {Attribute.CLASS: ObjectClass.CERTIFICATE, Attribute.ID: private.id}
    values = [bytes(found[Attribute.VALUE]) for found in session.get_objects(template)]
    try:
        certificates = [x509.load_der_x509_certificate(value) for value in values]
    except ValueError as error:
        raise NoCredentialError(
            f"the dongle has an unreadable certificate for key {private.label!r}",
            hint="import it again with `proxyagent init --certificate FILE`",
        ) from error
    return [each for each in certificates if _belongs(session, private, each)]


def _belongs(session: pkcs11.Session, private: PrivateKeyObject, certificate: x509.Certificate) -> bool:
    public_key = certificate.public_key()
    if isinstance(public_key, rsa.RSAPublicKey):
        if private.key_type is not pkcs11.KeyType.RSA:
            return False
        return int.from_bytes(private[Attribute.MODULUS], "big") == public_key.public_numbers().n
    # A private EC key does not tell its public point; the public key object of the same id does.
    return any(public_key_of(public) == public_key for public in public_keys_of(session, private))


def public_keys_of(session: pkcs11.Session, private: PrivateKeyObject) -> list[pkcs11.PublicKey]:
    """The public key objects with the CKA_ID of this private key: one, if the dongle is in order."""
    template = {Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.ID: private.id}
    return cast("list[pkcs11.PublicKey]", list(session.get_objects(template)))


def _description(token: pkcs11.Token) -> Description:
    state = next((name for name, flag in _FLAGS.items() if flag in token.flags), "ok")
    return Description(serial=_serial(token), label=token.label, pin_state=state)


def _serial(token: pkcs11.Token) -> str:
    return bytes(token.serial).decode("ascii", "replace").strip("\0 ")


def _refused(error: pkcs11.PKCS11Error, serial: str) -> WrongPinError | PinLockedError:
    if isinstance(error, pkcs11.PinLocked):
        return PinLockedError(
            f"the PIN of dongle {serial} is locked", hint="unblock it with the PUK or SO PIN and the vendor's own tool"
        )
    return WrongPinError(
        f"dongle {serial} refused the PIN ({type(error).__name__}); one attempt is used up",
        hint="enter the right PIN; the one that failed will not be sent again",
    )


@contextmanager
def module_errors() -> Iterator[None]:
    """Cryptoki errors as ours. Their messages are empty: the class is all there is to tell."""
    try:
        yield
    except _REMOVED as error:
        raise NoDongleError(f"the dongle was pulled ({type(error).__name__})", hint="plug it in again") from error
    except pkcs11.PKCS11Error as error:
        text = f": {error}" if str(error) else ""
        raise ModuleError(
            f"the PKCS#11 module answered {type(error).__name__}{text}",
            hint="try again, which loads the module afresh; "
            "if it still fails, replug the dongle and look whether `pkcs11-tool --module MODULE -L` works",
        ) from error
