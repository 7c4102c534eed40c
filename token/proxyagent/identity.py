"""One robot: its dongle, its session proxy, and what keeps them going. Knows nothing of sockets."""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from proxyagent.audit import AuditLog
from proxyagent.chain import check_links
from proxyagent.clock import Clock
from proxyagent.errors import (
    BusyError,
    ChainError,
    ModuleError,
    NoDongleError,
    NoSessionError,
    ProxyAgentError,
    WrongDongleError,
)
from proxyagent.hsm import DongleState, Helper
from proxyagent.login import WRONG_DONGLE_HINT, Login
from proxyagent.messages import NOT_RENEWED
from proxyagent.pin import Secret
from proxyagent.policy import Config, IdentitySection, OnRemoval
from proxyagent.proxy import ProxyInfo, issue_proxy
from proxyagent.request import new_key
from proxyagent.session import Session
from proxyagent.trust import Trust

_log = logging.getLogger(__name__)
_MIN_LEFT = timedelta(seconds=30)
_FIRST_RETRY_SECONDS = 15.0
_LONGEST_RETRY_SECONDS = 300.0
_UNLOCK_HINT = "plug the dongle in and run `proxyagent renew`"


class Identity:
    """Holds one identity's session. Its methods may be called from several threads."""

    def __init__(
        self,
        section: IdentitySection,
        config: Config,
        clock: Clock,
        audit: AuditLog,
        on_session: Callable[[Session | None, Session | None], None],
    ) -> None:
        """`on_session` is told the old and the new session whenever it changes."""
        self.name = section.name
        self._agent = config.agent
        self._clock = clock
        self._audit = audit
        self._on_session = on_session
        self._helper = Helper(
            section.module,
            section.uri,
            timeout_seconds=config.agent.module_timeout_seconds,
            allowed_modules=config.agent.modules,
        )
        self.login = Login(section, config.agent, self._helper, clock, audit)
        self._trust = Trust(config.trust, clock, self._report_trust)
        self._unattended = section.pin_credential is not None
        self._turn = threading.Lock()
        self._session: Session | None = None
        self._subject = section.subject
        self._closed = False
        self._retry_boot_seconds = 0.0
        self._failures = 0
        self.problem: ProxyAgentError | None = None
        """Why the last try to go on without a person failed."""

    @property
    def helper_pid(self) -> int | None:
        """The process id of the helper that holds the PKCS#11 module, while it runs."""
        return self._helper.pid

    @property
    def logged_in(self) -> bool:
        """Whether the session is renewed without a person while the dongle stays in."""
        return self._helper.logged_in

    @property
    def confined(self) -> bool | None:
        """Whether the helper runs behind a system call filter; None if none has run yet."""
        return self._helper.confined

    @property
    def renews_itself(self) -> bool:
        """Whether the next session needs no person, as far as is known."""
        return self.logged_in or (self._unattended and self.login.last_seen is not None and self.problem is None)

    @property
    def unattended(self) -> Literal["no", "ready", "waits"]:
        """Whether the PIN is sealed for this robot, and whether it waits for a person's word."""
        if not self._unattended:
            return "no"
        try:
            return "ready" if self.login.waiting() is None else "waits"
        except ProxyAgentError:
            return "waits"  # the record of attempts is unreadable: the tick says so

    @property
    def session(self) -> Session | None:
        """The session, unless it has ended, or has not begun by a clock that was set back."""
        session = self._session
        if session is None or session.left(self._clock) <= timedelta(0) or not session.has_begun(self._clock):
            return None
        return session

    def look(self) -> DongleState:
        """The state of the dongle; as of the last look while somebody is logging in.

        Raises: as `login.Login.look`.
        """
        last = self.login.last_seen
        if last is not None and self._turn.locked():
            return last
        with self._taking_turn():
            return self._look()

    def unlock(self, pin: Secret | None, serial: str | None) -> Session:
        """Log in as a person asks, once, and make a new session; see `login.Login.by_person`.

        The old session stays if that fails. If the old login is lost, the error's message says what that means for it.

        Raises:
            BusyError: somebody else is logging in.
            ProxyAgentError: as `login.Login.by_person` and `hsm.Helper.sign_session`.
        """
        with self._taking_turn():
            try:
                self._look()
                self.login.by_person(pin, serial, self._subject)
                return self._new_session()
            except ProxyAgentError as error:
                raise self._with_consequence(error) from error

    def allow_unattended(self) -> bool:
        """Let the sealed PIN be tried again, at the next tick; tell whether it had to wait.

        Raises: as `look`.
        """
        with self._taking_turn():
            waited = self.login.allow_unattended(self._subject)
            self._retry_boot_seconds = 0.0
            return waited

    def issue(
        self,
        public_key: rsa.RSAPublicKey,
        info: ProxyInfo,
        lifetime: timedelta,
        extensions: Sequence[x509.UnrecognizedExtension] = (),
    ) -> tuple[x509.Certificate, ...]:
        """A client proxy for a public key, with its chain down to the end-entity certificate.

        It ends with the session, if that is earlier.

        Raises:
            NoSessionError: there is no session, or it ends within half a minute.
            ChainError: the certificate is not to be trusted now; see `trust.Trust.check`.
        """
        session = self.usable_session()
        self._trust.check(session.certificate)
        leaf = issue_proxy(
            session.chain[0],
            session.key,
            public_key,
            info=info,
            lifetime=min(lifetime, session.left(self._clock)),
            now=self._clock.now(),
            extensions=extensions,
        )
        return (leaf, *session.chain)

    def usable_session(self) -> Session:
        """The session, if it lasts for half a minute more.

        Raises:
            NoSessionError: it does not.
        """
        session = self._session
        if session is None:
            raise NoSessionError("the agent has no session", hint=_UNLOCK_HINT)
        if session.left(self._clock) < _MIN_LEFT:
            raise NoSessionError(f"the session ended at {session.not_after:%Y-%m-%d %H:%M} UTC", hint=_UNLOCK_HINT)
        if not session.has_begun(self._clock):
            raise NoSessionError("the session has not begun, by a clock that was set back", hint=_UNLOCK_HINT)
        return session

    def is_of(self, certificate: x509.Certificate) -> bool:
        """Whether there is a session below this end-entity certificate."""
        session = self._session
        return session is not None and session.certificate == certificate

    def trusted_until(self) -> datetime | None:
        """Until when the CRLs vouch for the certificate; None if nobody asked them.

        Raises:
            ChainError: they do not; see `trust.Trust.check`.
        """
        session = self._session
        return self._trust.check(session.certificate) if session is not None else None

    def tick(self) -> None:
        """Go on without a person: see what was plugged or pulled, log in if the PIN is sealed, renew ahead.

        Failures are kept in `problem` and tried again after ever longer times, five minutes at most; at once when
        the dongle was away meanwhile. Somebody who is logging in is not disturbed.
        """
        with contextlib.suppress(ChainError):
            self.trusted_until()  # a new problem is reported at once
        with contextlib.suppress(BusyError), self._taking_turn():
            self._go_on(waits=self._clock.boot_seconds() < self._retry_boot_seconds)

    def close(self) -> None:
        """Forget the session and stop the helper, for good."""
        self._closed = True
        self._session = None
        self._helper.close()

    def _go_on(self, *, waits: bool) -> None:
        if waits and isinstance(self.problem, ModuleError):
            return  # it would hang or crash again
        try:
            self._look()  # even while the next try waits: whether the dongle is in matters by itself
            if waits:
                return
            self._renew()
        except NoDongleError:
            self._note(None)  # nothing is wrong with that: it is plugged to renew
        except BusyError:
            raise
        except ProxyAgentError as error:
            if not waits:
                self._note(error)
        else:
            self._note(None)

    def _renew(self) -> None:
        if not self.logged_in and not self.login.unattended(self._subject):
            return
        session = self.session
        if session is None or session.is_due(self._clock):
            self._new_session()

    def _look(self) -> DongleState:
        was_logged_in = self.logged_in
        try:
            state = self.login.look(self._subject)
        except (NoDongleError, WrongDongleError) as error:
            self._removed(error.kind)
            raise
        if was_logged_in and not self.logged_in:
            self._removed("login-lost")  # pulled and plugged between two looks, as far as anybody knows
        return state

    def _removed(self, kind: str) -> None:
        if self._agent.on_removal is OnRemoval.WIPE and self._session is not None:
            self._change_session(None)
            self._audit.record("session-wiped", identity=self.name, error=kind)
            _log.warning("%s: the dongle was removed, and the session with it", self.name)

    def _note(self, problem: ProxyAgentError | None) -> None:
        if problem is None:
            self._failures = 0
            self._retry_boot_seconds = 0.0
        else:
            pause = min(_FIRST_RETRY_SECONDS * 2**self._failures, _LONGEST_RETRY_SECONDS)
            self._retry_boot_seconds = self._clock.boot_seconds() + pause
            self._failures = min(self._failures + 1, 16)
            if self.problem is None or self.problem.message != problem.message:
                _log.warning("%s: cannot go on without a person: %s (%s)", self.name, problem.message, problem.hint)
                self._audit.record("renewal-failed", identity=self.name, error=problem.kind)
        self.problem = problem

    def _new_session(self) -> Session:
        key = new_key()
        now = self._clock.now()
        lifetime = timedelta(seconds=self._agent.session_lifetime_seconds)
        chain = self._helper.sign_session(key.public_key(), lifetime, now=now)
        check_links(chain, key.public_key(), now=now)
        session = Session.begin(key, chain, self._clock)
        if self._subject not in {None, session.identity}:  # seen only now, where certificates are hidden before login
            self._helper.close()
            raise WrongDongleError(
                f"the dongle signs as {session.identity}, not as {self._subject}; that was thrown away",
                hint=WRONG_DONGLE_HINT,
            )
        # From now on, and when it has ended, another robot's dongle that the URI fits as well is asked for nothing.
        self._subject = session.identity
        self._change_session(session)
        self._note(None)
        self._audit.record(
            "session",
            identity=self.name,
            subject=session.identity,
            proxy_serial=f"{chain[0].serial_number:x}",
            not_after=session.not_after.isoformat(),
        )
        _log.info("%s: session for %s until %s", self.name, session.identity, session.not_after.isoformat())
        return session

    def _change_session(self, session: Session | None) -> None:
        before, self._session = self._session, session
        self._on_session(before, session)

    def _report_trust(self, problem: ProxyAgentError | None) -> None:
        if problem is None:
            _log.info("%s: the certificate is trusted again", self.name)
        else:
            _log.error("%s: no proxies are issued: %s (%s)", self.name, problem.message, problem.hint)
        self._audit.record("trust", identity=self.name, error=problem.kind if problem else None)

    def _with_consequence(self, error: ProxyAgentError) -> ProxyAgentError:
        session = self.session
        if session is None or self.logged_in or self.unattended == "ready":
            return error
        text = f"the session stays until {session.not_after:%Y-%m-%d %H:%M:%S} UTC, but {NOT_RENEWED}"
        return type(error)(f"{error.message}; {text}", hint=error.hint)

    @contextlib.contextmanager
    def _taking_turn(self) -> Iterator[None]:
        seconds = self._agent.module_timeout_seconds
        if not self._turn.acquire(timeout=seconds):
            raise BusyError("somebody else is using the dongle", hint="try again in a minute")
        try:
            if self._closed:  # no PIN is sent, and no helper started, for an agent that ends
                raise BusyError("the agent is stopping", hint="try again when it runs")
            yield
        finally:
            self._turn.release()
