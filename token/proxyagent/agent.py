"""The agent itself: one session proxy in memory, and client proxies issued below it. Knows nothing of sockets."""

import logging
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from proxyagent.chain import check_links, grid_name, not_after
from proxyagent.errors import (
    BusyError,
    NoDongleError,
    NoSessionError,
    PinLockedError,
    ProxyAgentError,
    SeveralDonglesError,
)
from proxyagent.hsm import DongleState, Helper
from proxyagent.messages import NOT_RENEWED
from proxyagent.pin import PinGuard, Secret
from proxyagent.policy import Config, Profile
from proxyagent.proxy import Language, ProxyInfo, issue_proxy
from proxyagent.request import check_request, new_key

_log = logging.getLogger(__name__)
_MIN_LEFT = timedelta(seconds=30)
_PIN_NOT_SENT = (BusyError, NoDongleError, PinLockedError, SeveralDonglesError)
_UNLOCK_HINT = "plug the dongle in and run `proxyagent renew`"


@dataclass(frozen=True, slots=True)
class Session:
    """A session proxy: its key, and its chain down to the end-entity certificate."""

    key: rsa.RSAPrivateKey
    chain: tuple[x509.Certificate, ...]

    @property
    def not_after(self) -> datetime:
        """When the session ends (UTC, aware)."""
        return not_after(self.chain)

    @property
    def identity(self) -> str:
        """The end-entity certificate's name in slash form."""
        return grid_name(self.chain[-1].subject)


class Agent:
    """Holds the session. Its methods may be called from several threads."""

    def __init__(self, config: Config) -> None:
        dongle = config.dongle
        self._lifetime = timedelta(seconds=config.agent.session_lifetime_seconds)
        self._helper = Helper(dongle.module, dongle.uri, timeout_seconds=config.agent.module_timeout_seconds)
        self._guard = PinGuard()
        self._unlocking = threading.Lock()
        self._session: Session | None = None

    @property
    def helper_pid(self) -> int | None:
        """The process id of the helper that holds the PKCS#11 module, while it runs."""
        return self._helper.pid

    @property
    def logged_in(self) -> bool:
        """Whether the session is renewed without a person while the dongle stays in."""
        return self._helper.logged_in

    @property
    def session(self) -> Session | None:
        """The session, unless it has ended."""
        session = self._session
        return session if session is not None and session.not_after > datetime.now(UTC) else None

    def dongle(self) -> DongleState:
        """The state of the dongle.

        Raises: as `hsm.Helper.describe`.
        """
        return self._helper.describe()

    def unlock(self, pin: Secret) -> Session:
        """Log in with `pin`, once, and make a new session.

        The old session stays if that fails. If the old login is lost, the error's message says what that means for it.

        Raises:
            PinNotSentError: the PIN is malformed or failed before.
            WrongPinError, PinLockedError: the dongle refused it, or is too close to being locked.
            ProxyAgentError: as `hsm.Helper`.
        """
        with self._unlocking:
            try:
                self._log_in(pin)
                return self._new_session()
            except ProxyAgentError as error:
                raise self._with_consequence(error) from error

    def issue(self, profile: Profile, request_pem: str, lifetime_seconds: int) -> tuple[x509.Certificate, ...]:
        """A client proxy for the key of a certificate request, with its chain down to the end-entity certificate.

        It ends after `lifetime_seconds`, the profile's longest lifetime, or with the session, whichever is first.

        Raises:
            NoSessionError: there is no session, or it ends within half a minute.
            RequestError: the request is not acceptable.
        """
        public_key = check_request(request_pem)
        now = datetime.now(UTC)
        session = self._session
        if session is None:
            raise NoSessionError("the agent has no session", hint=_UNLOCK_HINT)
        if session.not_after - now < _MIN_LEFT:
            raise NoSessionError(f"the session ended at {session.not_after:%Y-%m-%d %H:%M} UTC", hint=_UNLOCK_HINT)
        info = ProxyInfo(Language.LIMITED if profile.limited else Language.INHERIT_ALL, profile.path_length)
        lifetime = timedelta(seconds=min(lifetime_seconds, profile.max_lifetime_seconds))
        leaf = issue_proxy(session.chain[0], session.key, public_key, info=info, lifetime=lifetime, now=now)
        return (leaf, *session.chain)

    def renew_ahead(self) -> bool:
        """Make a new session without a person, when the old one is past its middle and the helper is logged in.

        Tells whether there is a new one; failures are logged, for the next try comes by itself.
        """
        session = self._session
        if session is None or not self._helper.logged_in:
            return False
        early = session.not_after - datetime.now(UTC) > self._lifetime / 2
        if early or session.not_after == session.chain[-1].not_valid_after_utc:
            return False  # there is time, or the certificate itself ends then
        with self._unlocking:
            try:
                self._new_session()
            except ProxyAgentError as error:
                _log.warning("cannot renew the session ahead of time: %s (%s)", error.message, error.hint)
                return False
        return True

    def close(self) -> None:
        """Forget the session and stop the helper."""
        self._session = None
        self._helper.close()

    def _log_in(self, pin: Secret) -> None:
        state = self._helper.describe()
        serial = state.serial
        if state.pin_state == "low":
            _log.warning("a wrong PIN was entered on dongle %s before; few attempts are left", serial)
        self._guard.check(serial, pin)
        try:
            self._helper.login(pin, serial)
        except _PIN_NOT_SENT:
            raise
        except ProxyAgentError:
            # Whatever went wrong once the PIN was on its way, it may have cost an attempt.
            self._guard.failed(serial, pin)
            raise

    def _with_consequence(self, error: ProxyAgentError) -> ProxyAgentError:
        session = self.session
        if session is None or self._helper.logged_in:
            return type(error)(error.message, hint=error.hint)
        text = f"the session stays until {session.not_after:%Y-%m-%d %H:%M:%S} UTC, but {NOT_RENEWED}"
        return type(error)(f"{error.message}; {text}", hint=error.hint)

    def _new_session(self) -> Session:
        key = new_key()
        chain = self._helper.sign_session(key.public_key(), self._lifetime)
        check_links(chain, key.public_key(), now=datetime.now(UTC))
        session = Session(key, chain)
        self._session = session
        _log.info("session for %s until %s", session.identity, session.not_after.isoformat())
        return session
