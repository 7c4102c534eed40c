"""Client proxies below an identity's session proxy, while its certificate is trusted. Needs no dongle."""

import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from proxyagent.audit import AuditLog
from proxyagent.clock import Clock
from proxyagent.errors import NoSessionError, ProxyAgentError
from proxyagent.policy import TrustSection
from proxyagent.proxy import ProxyInfo, issue_proxy
from proxyagent.session import Session
from proxyagent.trust import Trust

_log = logging.getLogger(__name__)
_MIN_LEFT = timedelta(seconds=30)
_UNLOCK_HINT = "plug the dongle in and run `proxyagent renew`"


class Issuer:
    """Holds one identity's session, and signs with its key. Its methods may be called from several threads."""

    def __init__(
        self,
        name: str,
        section: TrustSection,
        clock: Clock,
        audit: AuditLog,
        on_session: Callable[[Session | None, Session | None], None],
    ) -> None:
        """`name` is the identity's; `on_session` is told the old and the new session whenever it changes."""
        self._name = name
        self._clock = clock
        self._audit = audit
        self._on_session = on_session
        self._trust = Trust(section, clock, self._report_trust)
        self._session: Session | None = None

    @property
    def session(self) -> Session | None:
        """The session, unless it has ended, or has not begun by a clock that was set back."""
        session = self._session
        if session is None or session.left(self._clock) <= timedelta(0) or not session.has_begun(self._clock):
            return None
        return session

    @property
    def last_certificate(self) -> x509.Certificate | None:
        """The end-entity certificate of the last session, even of one that has ended."""
        return self._session.certificate if self._session is not None else None

    def change(self, session: Session | None) -> bool:
        """Take a new session, or drop the one that there is; tell whether there was one, even one that has ended."""
        before, self._session = self._session, session
        if before is not None or session is not None:
            self._on_session(before, session)
        return before is not None

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

    def _report_trust(self, problem: ProxyAgentError | None) -> None:
        if problem is None:
            _log.info("%s: the certificate is trusted again", self._name)
        else:
            _log.error("%s: no proxies are issued: %s (%s)", self._name, problem.message, problem.hint)
        self._audit.record("trust", identity=self._name, error=problem.kind if problem else None)
