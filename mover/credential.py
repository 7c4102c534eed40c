"""The CredentialSource backed by proxyagent: client proxies in memory, renewed ahead of their end."""

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mover.errors import CredentialError
from proxyagent.client import ClientProxy, ProxyAgentError, harden_process, obtain_proxy

_ANSWER_SECONDS = 60.0


def protect_memory() -> None:
    """Forbid core dumps of this process, and others of our uid to look into its memory: it will hold proxies.

    Raises:
        CredentialError: the kernel refused.
    """
    try:
        harden_process(no_new_privileges=False)
    except ProxyAgentError as error:
        raise CredentialError(error.message, hint=error.hint) from error


class AgentCredentials:
    """Proxies of one profile of the agent behind `socket`.

    A proxy is used until a third of its life is left, so that a transfer that begins with it has time to end.
    """

    def __init__(self, socket: Path, profile: str, lifetime_seconds: int) -> None:
        self._socket = socket
        self._profile = profile
        self._lifetime_seconds = lifetime_seconds
        self._lock = threading.Lock()
        self._proxy: ClientProxy | None = None
        self._renew_at = datetime.min.replace(tzinfo=UTC)

    def proxy(self) -> ClientProxy:
        """The current proxy, another object after each renewal.

        Raises:
            CredentialError: the agent is not there, has no session, or refuses us, and the proxy at hand has ended.
        """
        with self._lock:
            now = datetime.now(UTC)
            if self._proxy is None or now >= self._renew_at:
                try:
                    self._proxy = self._obtain(now)
                except ProxyAgentError as error:
                    if self._proxy is None or now >= self._proxy.not_after:
                        raise CredentialError(f"no Grid proxy: {error.message}", hint=error.hint) from error
                    # The one at hand is still good; ask again soon.
                    self._renew_at = min(now + timedelta(minutes=1), self._proxy.not_after)
            return self._proxy

    def _obtain(self, now: datetime) -> ClientProxy:
        proxy = obtain_proxy(self._socket, self._profile, self._lifetime_seconds, timeout_seconds=_ANSWER_SECONDS)
        self._renew_at = now + (proxy.not_after - now) * 2 / 3
        return proxy
