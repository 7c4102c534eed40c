"""The agent's side of the PKCS#11 helper process: what it can be asked."""

import contextlib
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from proxyagent.chain import certificates_from_pem
from proxyagent.description import DongleState, ListedCertificate, ListedDongle, ListedKey, OtherDongle
from proxyagent.errors import ModuleCrashedError, ModuleError, ModuleTimeoutError, PinCancelledError
from proxyagent.helperprocess import HelperProcess
from proxyagent.modules import DEFAULT_ALLOWED
from proxyagent.pin import Secret
from proxyagent.protocol import Message
from proxyagent.uri import Uri

__all__ = ["DongleState", "Helper", "ListedCertificate", "ListedDongle", "ListedKey", "OtherDongle"]

_MAX_DONGLES = 64


class Helper:
    """A PKCS#11 module in a process of its own, started when it is first needed and again after it died or failed.

    No PIN outlives the call that it was given to: a helper that replaces another is not logged in.
    It may be used from several threads; they take turns. Every method may raise

    * ConfigError: the module is not one that may be loaded; see `modules.check_module`.
    * ModuleTimeoutError: the module did not answer within `timeout_seconds`; its process was killed.
    * ModuleCrashedError: the module took its process down.
    * ModuleError: the module answered with an error; its process was killed, for some stay broken (SoftHSM does).
    * BusyError: another thread's call took so long that this one had no turn.
    * the errors of `proxyagent.dongle.Dongle`.
    """

    def __init__(
        self,
        module: Path,
        uri: Uri,
        *,
        timeout_seconds: float,
        allowed_modules: Sequence[str] = DEFAULT_ALLOWED,
        setup: bool = False,
    ) -> None:
        """With `setup`, it also offers what changes the dongle. `allowed_modules` are for `modules.check_module`."""
        self._process = HelperProcess(
            module, uri, timeout_seconds=timeout_seconds, allowed_modules=allowed_modules, setup=setup
        )

    @property
    def pid(self) -> int | None:
        """The helper's process id while it runs."""
        return self._process.pid

    @property
    def logged_in(self) -> bool:
        """Whether the helper can sign without a PIN, as of its last answer."""
        return self._process.logged_in

    @property
    def confined(self) -> bool | None:
        """Whether the helper runs behind a system call filter, as of its last answer; None if it never answered."""
        return self._process.confined

    def describe(self) -> DongleState:
        """The dongle as it is now."""
        answer = self.call({"verb": "describe"})
        with _readable():
            return DongleState.from_message(answer)

    def others(self) -> tuple[OtherDongle, ...]:
        """The dongles behind the module, as of the last `describe`, that the URI does not mean."""
        answer = self.call({"verb": "others"})
        with _readable():
            return tuple(OtherDongle.from_message(each) for each in answer["others"])

    def list_dongles(self) -> tuple[ListedDongle, ...]:
        """Every dongle behind the module, whatever the URI, and what it shows without a PIN."""
        found: list[ListedDongle] = []
        while len(found) < _MAX_DONGLES:
            answer = self.call({"verb": "list-dongles", "index": len(found)})
            with _readable():
                if answer["dongle"] is None:
                    break
                found.append(ListedDongle.from_message(answer["dongle"]))
        return tuple(found)

    def login(self, pin: Secret | None, serial: str, *, timeout_seconds: float | None = None) -> None:
        """Log in to the dongle with this serial number; see `Dongle.login`. It stays logged in.

        Args:
            pin: None if a person enters it at the reader's pin pad.
            serial: what `describe` told.
            timeout_seconds: longer than usual, for that person.

        Raises:
            WrongPinError, PinLockedError, PinExpiredError, PinCancelledError, LoginFailedError: the PIN was sent.
            ModuleTimeoutError, ModuleCrashedError: it may have been sent.
            ProxyAgentError: it was not sent; PinAtRiskError (a PinLockedError) and ModuleError itself are among these.
        """
        request: Message = {"verb": "login", "serial": serial, "pin": pin is not None}
        try:
            self.call(request, pin, timeout_seconds=timeout_seconds)
        except ModuleTimeoutError as error:
            if pin is None:
                raise PinCancelledError(
                    "nobody entered the PIN at the reader in time",
                    hint="run `proxyagent renew` and enter the PIN while the reader asks for it",
                ) from error
            raise ModuleTimeoutError(f"{error.message}; {_MAYBE_USED}", hint=_LOOK_FIRST) from error
        except ModuleCrashedError as error:
            raise ModuleCrashedError(f"{error.message}; {_MAYBE_USED}", hint=_LOOK_FIRST) from error

    def sign_session(
        self, public_key: rsa.RSAPublicKey, lifetime: timedelta, *, now: datetime
    ) -> tuple[x509.Certificate, ...]:
        """A session proxy for `public_key`, and its issuer's certificate; see `Dongle.sign_session`."""
        spki = public_key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        answer = self.call(
            {
                "verb": "sign-session",
                "public_key": spki.decode(),
                "lifetime_seconds": int(lifetime.total_seconds()),
                "now": now.isoformat(),
            }
        )
        with _readable():
            return certificates_from_pem(str(answer["chain"]))

    def call(self, request: Message, pin: Secret | None = None, *, timeout_seconds: float | None = None) -> Message:
        """Send one request, with a PIN if it takes one, and return the answer or raise its error."""
        return self._process.call(request, pin, timeout_seconds=timeout_seconds)

    def close(self) -> None:
        """Stop the helper, whatever it is doing. The object may be used again; then another starts."""
        self._process.close()


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    """What a module can have written into its process's answers."""
    try:
        yield
    except (LookupError, TypeError, ValueError) as error:
        raise ModuleError(
            f"the process of the PKCS#11 module gave an answer that makes no sense ({type(error).__name__})",
            hint="look for another version of the vendor's PKCS#11 module",
        ) from error


_MAYBE_USED = "an attempt of the PIN may be used up"
_LOOK_FIRST = (
    "replug the dongle and look at its PIN with `proxyagent status` before you enter it again; "
    "another helper starts by itself"
)
