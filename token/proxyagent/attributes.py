"""VOMS attribute certificates: which are wanted, which are at hand, and when to fetch them again."""

import random
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from proxyagent.clock import Clock
from proxyagent.errors import ProxyAgentError, VomsError
from proxyagent.voms.ac import AttributeCertificate

_MIN_LEFT = timedelta(seconds=60)
_IN_HAND_SECONDS = 120.0
_FIRST_RETRY_SECONDS = 10.0
_LONGEST_RETRY_SECONDS = 600.0
_HINT = "see whether `proxyagent voms` runs and reaches the VO's servers, in its log and in `proxyagent status`"


@dataclass(frozen=True, slots=True)
class Want:
    """An attribute certificate that some profile needs."""

    identity: str
    vo: str
    fqans: tuple[str, ...]


@dataclass(slots=True)
class _Entry:
    certificate: AttributeCertificate | None = None
    due_boot_seconds: float = 0.0
    failures: int = 0
    problem: ProxyAgentError | None = None


@dataclass(frozen=True, slots=True)
class AttributeState:
    """What is known of one wanted attribute certificate."""

    want: Want
    not_after: datetime | None
    problem: ProxyAgentError | None


@dataclass(slots=True)
class AttributeStore:
    """Keeps the attribute certificates of all identities, in memory. Its methods may be called from several threads.

    One that is at hand is fetched again past the middle of its life, as granted, which may be shorter than was asked
    for. A failure is tried again after ever longer times, ten minutes at most.
    """

    wants: Iterable[Want]
    clock: Clock
    has_session: Callable[[str], bool]
    """Whether an identity could get one now."""
    _entries: dict[Want, _Entry] = field(init=False)
    _changed: threading.Condition = field(init=False, default_factory=threading.Condition)
    _closed: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self._entries = {want: _Entry() for want in self.wants}

    def get(self, want: Want, *, wait_seconds: float) -> AttributeCertificate:
        """The attribute certificate, waited for if it has not been fetched yet and nothing has gone wrong so far.

        Raises:
            VomsError: there is none.
        """
        with self._changed:
            self._changed.notify_all()  # it may be due, and the fetcher be asleep
            self._changed.wait_for(lambda: self._closed or self._is_decided(want), wait_seconds)
            entry = self._entries[want]
            if entry.certificate is not None and self._is_valid(entry.certificate):
                return entry.certificate
            if entry.problem is not None:
                message = f"no VOMS attributes {' '.join(want.fqans)}: {entry.problem.message}"
                raise type(entry.problem)(message, hint=entry.problem.hint)
        raise VomsError(f"there is no VOMS attribute certificate for {' '.join(want.fqans)} yet", hint=_HINT)

    def take_due(self, *, wait_seconds: float) -> tuple[Want, ...]:
        """The wants that should be fetched now, waited for; they are not named again for two minutes."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or bool(self._due()), wait_seconds)
            due = self._due()
            for want in due:
                self._entries[want].due_boot_seconds = self.clock.boot_seconds() + _IN_HAND_SECONDS
            return due

    def deliver(self, want: Want, certificate: AttributeCertificate) -> None:
        """Take a certificate that has been checked."""
        with self._changed:
            entry = self._entries[want]
            left = (certificate.not_after - self.clock.now()).total_seconds()
            part = 0.5 + 0.1 * random.random()  # noqa: S311 - not a secret
            entry.certificate, entry.problem, entry.failures = certificate, None, 0
            entry.due_boot_seconds = self.clock.boot_seconds() + left * part
            self._changed.notify_all()

    def failed(self, want: Want, problem: ProxyAgentError) -> None:
        """Take note that it could not be fetched."""
        with self._changed:
            entry = self._entries[want]
            pause = min(_FIRST_RETRY_SECONDS * 2**entry.failures, _LONGEST_RETRY_SECONDS)
            entry.failures = min(entry.failures + 1, 16)
            entry.problem = problem
            entry.due_boot_seconds = self.clock.boot_seconds() + pause
            self._changed.notify_all()

    def forget(self, identity: str) -> None:
        """Drop what was fetched for an identity, whose certificate has changed or whose session is wiped."""
        with self._changed:
            for want in self._entries:
                if want.identity == identity:
                    self._entries[want] = _Entry()
            self._changed.notify_all()

    def look(self) -> None:
        """Let waiting threads look again: a session has begun, or time has passed."""
        with self._changed:
            self._changed.notify_all()

    def refetch(self) -> None:
        """Fetch all of them again: the clock was set, and nobody knows how long they really last."""
        with self._changed:
            for entry in self._entries.values():
                entry.due_boot_seconds = 0.0
            self._changed.notify_all()

    def close(self) -> None:
        """Let all waiting threads go."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def states(self, identity: str) -> tuple[AttributeState, ...]:
        """What is at hand for an identity."""
        with self._changed:
            return tuple(
                AttributeState(want, entry.certificate.not_after if entry.certificate else None, entry.problem)
                for want, entry in self._entries.items()
                if want.identity == identity
            )

    def _due(self) -> tuple[Want, ...]:
        now = self.clock.boot_seconds()
        return tuple(
            want
            for want, entry in self._entries.items()
            if entry.due_boot_seconds <= now and self.has_session(want.identity)
        )

    def _is_decided(self, want: Want) -> bool:
        entry = self._entries[want]
        return entry.problem is not None or (entry.certificate is not None and self._is_valid(entry.certificate))

    def _is_valid(self, certificate: AttributeCertificate) -> bool:
        return certificate.not_after - self.clock.now() > _MIN_LEFT
