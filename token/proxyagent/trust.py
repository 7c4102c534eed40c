"""Whether the robot's certificate is to be trusted now: its CA is known, and has not revoked it."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from proxyagent.chain import certificates_to_pem
from proxyagent.clock import SKEW, Clock
from proxyagent.crl import check_revocation
from proxyagent.errors import CrlError, ProxyAgentError
from proxyagent.policy import TrustSection
from proxyagent.verify import verify_chain

_LOOK_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class _Finding:
    certificate: x509.Certificate
    boot_seconds: float
    next_update: datetime | None
    problem: ProxyAgentError | None


class Trust:
    """Looks at the CA directory once a minute, so that a renewed or revoking CRL counts soon, and it costs little."""

    def __init__(self, section: TrustSection, clock: Clock, report: Callable[[ProxyAgentError | None], None]) -> None:
        """`report` is told of every new problem, and None when there is none any more."""
        self._section = section
        self._clock = clock
        self._report = report
        self._lock = threading.Lock()
        self._finding: _Finding | None = None

    def check(self, certificate: x509.Certificate) -> datetime | None:
        """See that the certificate may be used; until when the CRLs say so, or None if they are ignored.

        Raises:
            RevokedError: a CA has revoked it or a certificate above it.
            CrlError: a CRL is missing or has ended; it fails closed.
            ChainError: no CA in the directory has issued it.
        """
        with self._lock:
            found = self._finding
            if found is None or found.certificate != certificate or self._is_old(found):
                before = found.problem if found is not None else None
                found = self._finding = self._look(certificate)
                if (found.problem and found.problem.message) != (before and before.message):
                    self._report(found.problem)
        if found.problem is not None:
            raise type(found.problem)(found.problem.message, hint=found.problem.hint)
        if found.next_update is not None and self._clock.now() >= found.next_update + SKEW:
            raise CrlError(
                f"a revocation list of {self._section.ca_directory} ended at {found.next_update:%Y-%m-%d %H:%M} UTC",
                hint="run fetch-crl, and see why it did not run",
            )
        return found.next_update

    def _is_old(self, found: _Finding) -> bool:
        return self._clock.boot_seconds() - found.boot_seconds >= _LOOK_SECONDS

    def _look(self, certificate: x509.Certificate) -> _Finding:
        next_update = None
        problem = None
        now = self._clock.now()
        try:
            if self._section.crls == "require":
                next_update = check_revocation(certificate, self._section.ca_directory, now=now)
            else:
                verify_chain(certificates_to_pem([certificate]), self._section.ca_directory, now=now)
        except ProxyAgentError as error:
            problem = error
        return _Finding(certificate, self._clock.boot_seconds(), next_update, problem)
