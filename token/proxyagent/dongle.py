"""The PKCS#11 module: finding the dongle, logging in, and signing session proxies. Runs in the helper process only."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta

import pkcs11
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from pkcs11 import TokenFlag

from proxyagent import cryptoki
from proxyagent.description import DongleState, OtherDongle
from proxyagent.errors import (
    NoDongleError,
    NoSessionError,
    PinExpiredError,
    PinNotSentError,
    ProxyAgentError,
    RequestError,
    SeveralDonglesError,
    WrongDongleError,
)
from proxyagent.faults import REMOVED, login_error, module_errors
from proxyagent.objects import credential, lenient_mapper, public_certificates
from proxyagent.pin import Secret, check_at_no_risk
from proxyagent.proxy import IssuerKey, Language, ProxyInfo, issue_proxy
from proxyagent.uri import Uri

_FLAGS = {
    "locked": TokenFlag.USER_PIN_LOCKED,
    "final": TokenFlag.USER_PIN_FINAL_TRY,
    "low": TokenFlag.USER_PIN_COUNT_LOW,
}
_LONGEST = timedelta(days=7)
_MAX_CLOCK_DIFFERENCE = timedelta(days=2)
_MAX_OTHERS = 16


class Dongle:
    """The one token that `uri` means, behind one PKCS#11 module. Not for use from several threads.

    Every method may raise NoDongleError, SeveralDonglesError or ModuleError.
    """

    def __init__(self, module: str, uri: Uri, *, writable: bool = False) -> None:
        """Load the module. Only with `writable` can what is on the dongle be changed."""
        with module_errors():
            self._library = pkcs11.lib(module)
        self._module = module
        self._uri = uri
        self._writable = writable
        self._session: pkcs11.Session | None = None
        self._serial = ""
        self._certificate: x509.Certificate | None = None

    @property
    def uri(self) -> Uri:
        """Which dongle, and which object on it."""
        return self._uri

    @property
    def logged_in(self) -> bool:
        """Whether a session can be signed without a PIN."""
        return self._session is not None

    def describe(self) -> DongleState:
        """The dongle as it is now. One that went away, or was exchanged, takes our login with it."""
        token = self._token()
        if self._session is not None:
            with suppress(NoSessionError), self._losing_login(), module_errors():
                return _state(token, public_certificates(self._session, self._uri))
            token = self._token()
        with module_errors(), token.open(attribute_mapper=lenient_mapper()) as session:
            return _state(token, public_certificates(session, self._uri))

    def tokens(self) -> list[pkcs11.Token]:
        """All tokens behind the module, whatever the URI, blank ones too."""
        with module_errors():
            if self._session is None:
                self._reinitialise()
            return list(self._present())

    def others(self) -> tuple[OtherDongle, ...]:
        """The tokens behind the module, as of the last `describe`, that the URI does not mean."""
        with module_errors():
            return tuple(
                OtherDongle(serial_of(token), token.label, token.manufacturer_id, token.model)
                for token in self._present()
                if TokenFlag.TOKEN_INITIALIZED in token.flags and not self._is_meant(token)
            )[:_MAX_OTHERS]

    def login(self, pin: Secret | None, serial: str) -> None:
        """Log in, with exactly one C_Login; without a PIN, at the reader's pin pad.

        Raises:
            WrongDongleError: the dongle is no longer the one with this `serial`; no PIN was sent.
            PinNotSentError: it has no pin pad.
            PinAtRiskError: no PIN was sent, because it is locked or a wrong one would lock it.
            PinLockedError, WrongPinError, PinExpiredError, PinCancelledError, LoginFailedError: what C_Login answered;
                see `faults.login_error`. All other errors are from before it was called.
        """
        self._forget()  # which makes `_token` start the module anew, and that logs out
        token = self._token()
        if serial_of(token) != serial:
            raise WrongDongleError(
                f"dongle {serial} was exchanged for {serial_of(token)} meanwhile",
                hint="enter the PIN of the dongle that is in now",
            )
        check_at_no_risk(pin_state(token.flags))
        if pin is None and TokenFlag.PROTECTED_AUTHENTICATION_PATH not in token.flags:
            raise PinNotSentError(f"the reader of dongle {serial} has no pin pad", hint="enter the PIN at the keyboard")
        with module_errors():
            session = token.open(rw=self._writable, attribute_mapper=lenient_mapper())
        code = cryptoki.log_in(self._module, session, pin)
        if code != cryptoki.CKR_OK:
            with suppress(pkcs11.PKCS11Error):  # the answer to the PIN is what counts
                session.close()
            raise login_error(code, serial)
        self._session, self._serial = session, serial
        with suppress(ProxyAgentError):  # signing tells what is wrong
            self._certificate, _ = self._credential(session, datetime.now(UTC))

    def session(self) -> pkcs11.Session:
        """The session that is logged in.

        Raises:
            NoSessionError: there is none.
        """
        if self._session is None:
            raise NoSessionError("not logged in to the dongle", hint="run `proxyagent renew`")
        return self._session

    def sign_session(
        self, public_key: rsa.RSAPublicKey, lifetime: timedelta, *, now: datetime
    ) -> tuple[x509.Certificate, x509.Certificate]:
        """A session proxy for `public_key`, and the certificate of the key that signed it.

        Raises:
            RequestError: `lifetime` is longer than a week, or `now` is more than two days from our own clock:
                whoever takes the agent over must not make the dongle sign for later.
            NoSessionError: not logged in, or no longer.
            WrongDongleError: it is not the dongle, or not the certificate, that was there at the login.
            NoCredentialError: the dongle has no key with a certificate that may sign proxies now.
            PinExpiredError: the dongle wants a new PIN first.
        """
        if not timedelta(0) < lifetime <= _LONGEST or abs(now - datetime.now(UTC)) > _MAX_CLOCK_DIFFERENCE:
            raise RequestError("a session of absurd times", hint="check this computer's clock and the configuration")
        session = self.session()
        with self._losing_login():
            self._check_same(session)
            certificate, key = self._credential(session, now)
            if self._certificate not in {None, certificate}:
                raise WrongDongleError(
                    f"the certificate on dongle {self._serial} was exchanged since the login; nothing was signed",
                    hint="run `proxyagent renew` if that was meant",
                )
            self._certificate = certificate
            info = ProxyInfo(Language.INHERIT_ALL)
            with module_errors():
                proxy = issue_proxy(certificate, key, public_key, info=info, lifetime=lifetime, now=now)
        return proxy, certificate

    def expect(self, certificate: x509.Certificate) -> None:
        """From now on, sign with this certificate's key only: it was put in the place of the earlier one."""
        self._certificate = certificate

    def _credential(self, session: pkcs11.Session, now: datetime) -> tuple[x509.Certificate, IssuerKey]:
        with module_errors():
            return credential(session, self._uri, now=now)

    def _check_same(self, session: pkcs11.Session) -> None:
        with module_errors():
            found = serial_of(session.token.slot.get_token())
        if found != self._serial:
            raise WrongDongleError(
                f"dongle {self._serial} was exchanged for {found} since the login; nothing was signed",
                hint="plug the right one in and run `proxyagent renew`",
            )

    @contextmanager
    def _losing_login(self) -> Iterator[None]:
        """What shows that the login is gone, or is not to be used, ends it on our side too."""
        try:
            yield
        except (NoDongleError, NoSessionError, PinExpiredError, WrongDongleError):
            self._forget()
            raise

    def _token(self) -> pkcs11.Token:
        with module_errors():
            if self._session is not None:
                with suppress(*REMOVED):
                    token = self._session.token.slot.get_token()
                    if serial_of(token) == self._serial:
                        return token
            self._reinitialise()
            found = [token for token in self._present() if self._is_meant(token)]
        if not found:
            raise NoDongleError(
                f"no dongle that matches {self._uri}", hint="plug it in, or correct the uri in the configuration"
            )
        if len(found) > 1:
            names = ", ".join(f"{token.label!r} (serial {serial_of(token)})" for token in found)
            raise SeveralDonglesError(f"several dongles match: {names}", hint="add the right serial= to the uri")
        return found[0]

    def _present(self) -> Iterator[pkcs11.Token]:
        for slot in self._library.get_slots():
            with suppress(pkcs11.TokenNotPresent, pkcs11.TokenNotRecognised):
                yield slot.get_token()

    def _reinitialise(self) -> None:
        # Slots stay as they were at C_Initialize; this is the only way to see a dongle that came or went.
        self._forget()
        self._library.reinitialize()

    def _forget(self) -> None:
        self._session = None
        self._serial = ""
        self._certificate = None

    def _is_meant(self, token: pkcs11.Token) -> bool:
        return TokenFlag.TOKEN_INITIALIZED in token.flags and self._uri.matches_token(
            serial=serial_of(token), manufacturer=token.manufacturer_id, model=token.model, label=token.label
        )


def _state(token: pkcs11.Token, certificates: tuple[x509.Certificate, ...]) -> DongleState:
    return DongleState(
        serial=serial_of(token),
        label=token.label,
        manufacturer=token.manufacturer_id,
        model=token.model,
        pin_state=pin_state(token.flags),
        pin_pad=TokenFlag.PROTECTED_AUTHENTICATION_PATH in token.flags,
        certificates=certificates,
    )


def pin_state(flags: TokenFlag) -> str:
    """'ok', 'low', 'final' or 'locked'."""
    return next((name for name, flag in _FLAGS.items() if flag in flags), "ok")


def serial_of(token: pkcs11.Token) -> str:
    """The serial number that the module tells."""
    return bytes(token.serial).decode("ascii", "replace").strip("\0 ")
