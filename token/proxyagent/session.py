"""A session proxy: what the dongle signs, and what client proxies are issued below."""

import random
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from proxyagent.chain import grid_name, not_after
from proxyagent.clock import Clock


@dataclass(frozen=True, slots=True)
class Session:
    """The key of a session proxy, and its chain down to the end-entity certificate."""

    key: rsa.RSAPrivateKey
    chain: tuple[x509.Certificate, ...]
    ends_boot_seconds: float
    """When it ends at the latest, however the time of day is set."""
    renew_boot_seconds: float
    """When to make the next one if no person is needed for it: past the middle, and not all at once."""

    @classmethod
    def begin(cls, key: rsa.RSAPrivateKey, chain: tuple[x509.Certificate, ...], clock: Clock) -> "Session":
        """A session that begins now."""
        left = (not_after(chain) - clock.now()).total_seconds()
        boot = clock.boot_seconds()
        part = 0.5 + 0.1 * random.random()  # noqa: S311 - not a secret
        return cls(key, chain, boot + left, boot + left * part)

    @property
    def certificate(self) -> x509.Certificate:
        """The end-entity certificate."""
        return self.chain[-1]

    @property
    def not_after(self) -> datetime:
        """When it ends by the time of day (UTC, aware)."""
        return not_after(self.chain)

    @property
    def identity(self) -> str:
        """The end-entity certificate's name in slash form."""
        return grid_name(self.certificate.subject)

    def left(self, clock: Clock) -> timedelta:
        """How long it still lasts, by the stricter of the two clocks; negative when it has ended."""
        return min(self.not_after - clock.now(), timedelta(seconds=self.ends_boot_seconds - clock.boot_seconds()))

    def has_begun(self, clock: Clock) -> bool:
        """Whether the time of day is past its beginning; not so after the clock was set back."""
        return self.chain[0].not_valid_before_utc <= clock.now()

    def is_due(self, clock: Clock) -> bool:
        """Whether it is time for the next one, and the next one could end later than this."""
        if self.not_after >= self.certificate.not_valid_after_utc:
            return False
        past_the_middle = self.not_after - clock.now() < (self.not_after - self.chain[0].not_valid_before_utc) * 0.4
        return past_the_middle or clock.boot_seconds() >= self.renew_boot_seconds
