"""The CredentialSource backed by proxyagent: client proxies in memory, renewed ahead of their end; and its state."""

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mover.agentstate import AgentState, IdentityState, Urgency
from mover.errors import CredentialError
from proxyagent.client import ClientProxy, ProxyAgentError, agent_status, harden_process, obtain_proxy

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


def agent_state(socket: Path, *, timeout_seconds: float) -> AgentState:
    """What the agent behind `socket` says of its identities; that it does not answer is an answer too."""
    try:
        found = agent_status(socket, timeout_seconds=timeout_seconds)
    except ProxyAgentError as error:
        return AgentState(socket, problem=error.message, hint=error.hint)
    identities = tuple(
        IdentityState(one.name, Urgency(one.level), one.not_after, one.plug_before, one.advice)
        for one in found.identities
    )
    return AgentState(socket, identities)


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
