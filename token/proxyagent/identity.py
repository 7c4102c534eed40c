"""One robot: its dongle, and what keeps its session going. Knows nothing of sockets."""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Literal

from cryptography import x509

from proxyagent.audit import AuditLog
from proxyagent.chain import check_links, grid_name
from proxyagent.clock import Clock
from proxyagent.errors import (
    BusyError,
    ChainError,
    ModuleError,
    NoDongleError,
    ProxyAgentError,
    WrongDongleError,
)
from proxyagent.hsm import DongleState, Helper, OtherDongle
from proxyagent.issuer import Issuer
from proxyagent.login import WRONG_DONGLE_HINT, Login
from proxyagent.messages import NOT_RENEWED
from proxyagent.pin import Secret
from proxyagent.policy import Config, IdentitySection, OnRemoval
from proxyagent.request import new_key
from proxyagent.session import Session

_log = logging.getLogger(__name__)
_FIRST_RETRY_SECONDS = 15.0
_LONGEST_RETRY_SECONDS = 300.0


class Identity:
    """One identity. Its methods may be called from several threads."""

    def __init__(
        self,
        section: IdentitySection,
        config: Config,
        clock: Clock,
        audit: AuditLog,
        on_session: Callable[[Session | None, Session | None], None],
    ) -> None:
        """`on_session` is as in `issuer.Issuer`."""
        self.name = section.name
        self._agent = config.agent
        self._clock = clock
        self._audit = audit
        self._helper = Helper(
            section.module,
            section.uri,
            timeout_seconds=config.agent.module_timeout_seconds,
            allowed_modules=config.agent.modules,
        )
        self.login = Login(section, config.agent, self._helper, clock, audit)
        self.issuer = Issuer(section.name, config.trust, clock, audit, on_session)
        self._unattended = section.pin_credential is not None
        self._turn = threading.Lock()
        self._subject = section.subject
        self._closed = False
        self._retry_boot_seconds = 0.0
        self._failures = 0
        self.problem: ProxyAgentError | None = None
        """Why the last try to go on without a person failed."""
        self.others: tuple[OtherDongle, ...] = ()
        """What else was plugged in behind the module, as of the last look."""

    @property
    def certificate(self) -> x509.Certificate | None:
        """The robot's certificate, as far as it is known: the session's, else what the dongle showed last."""
        session = self.issuer.session
        if session is not None:
            return session.certificate
        state = self.login.last_seen
        shown = [
            each
            for each in (state.certificates if state is not None else ())
            if self._subject in {None, grid_name(each.subject)}
        ]
        return shown[0] if len(shown) == 1 else self.issuer.last_certificate

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
                self.login.by_person(pin, serial, self._look())
                return self._new_session()
            except ProxyAgentError as error:
                raise self._with_consequence(error) from error

    def allow_unattended(self) -> bool:
        """Let the sealed PIN be tried again, at the next tick; tell whether it had to wait.

        Raises: as `look`.
        """
        with self._taking_turn():
            waited = self.login.allow_unattended(self._look().serial)
            self._retry_boot_seconds = 0.0
            return waited

    def tick(self) -> None:
        """Go on without a person: see what was plugged or pulled, log in if the PIN is sealed, renew ahead.

        Failures are kept in `problem` and tried again after ever longer times, five minutes at most; at once when
        the dongle was away meanwhile. Somebody who is logging in is not disturbed.
        """
        with contextlib.suppress(ChainError):
            self.issuer.trusted_until()  # a new problem is reported at once
        with contextlib.suppress(BusyError), self._taking_turn():
            self._go_on(waits=self._clock.boot_seconds() < self._retry_boot_seconds)

    def close(self) -> None:
        """Forget the session and stop the helper, for good."""
        self._closed = True
        self.issuer.change(None)
        self._helper.close()

    def _go_on(self, *, waits: bool) -> None:
        if waits and isinstance(self.problem, ModuleError):
            return  # it would hang or crash again
        try:
            state = self._look()  # even while the next try waits: whether the dongle is in matters by itself
            if waits:
                return
            self._renew(state)
        except NoDongleError:
            self._note(None)  # nothing is wrong with that: it is plugged to renew
        except BusyError:
            raise
        except ProxyAgentError as error:
            if not waits:
                self._note(error)
        else:
            self._note(None)

    def _renew(self, state: DongleState) -> None:
        if not self.logged_in and not self.login.unattended(state):
            return
        session = self.issuer.session
        if session is None or session.is_due(self._clock):
            self._new_session()

    def _look(self) -> DongleState:
        was_logged_in = self.logged_in
        try:
            state = self.login.look(self._subject)
        except (NoDongleError, WrongDongleError) as error:
            self._removed(error.kind)
            self.others = self._helper.others()
            raise
        self.others = self._helper.others()
        if was_logged_in and not self.logged_in:
            self._removed("login-lost")  # pulled and plugged between two looks, as far as anybody knows
        return state

    def _removed(self, kind: str) -> None:
        if self._agent.on_removal is OnRemoval.WIPE and self.issuer.change(None):
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
        self.issuer.change(session)
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

    def _with_consequence(self, error: ProxyAgentError) -> ProxyAgentError:
        session = self.issuer.session
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
