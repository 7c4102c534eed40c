"""What the agent does for a peer: one function a verb, and nothing else."""

import base64
import logging
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from proxyagent.agent import Agent
from proxyagent.attributes import Want
from proxyagent.audit import AuditLog
from proxyagent.chain import certificates_to_pem
from proxyagent.clock import Clock
from proxyagent.errors import DeniedError, ProtocolError, ProxyAgentError, VomsError, VomsRefusedError
from proxyagent.messages import (
    AgentStatus,
    AnyRequest,
    IssueAnswer,
    IssueRequest,
    PinRetryAnswer,
    PinRetryRequest,
    StatusRequest,
    StrangerStatus,
    UnlockAnswer,
    UnlockRequest,
    VomsDeliverAnswer,
    VomsDeliverRequest,
    VomsProxyRequest,
    VomsWaitAnswer,
    VomsWaitRequest,
    WantedAttributes,
    parse_request,
    session_status,
)
from proxyagent.peer import Peer
from proxyagent.policy import Config, VomsSection
from proxyagent.protocol import Channel
from proxyagent.report import identity_status
from proxyagent.voms.names import printable

_log = logging.getLogger(__name__)
_VOMS_WAIT_SECONDS = 20.0

Unit = Callable[[], str | None]


class Handler:
    """Answers requests of peers that the kernel has named."""

    def __init__(
        self,
        config: Config,
        agent: Agent,
        clock: Clock,
        audit: AuditLog,
        *,
        operators: frozenset[int],
        memory_locked: bool,
    ) -> None:
        """`operators` are the uids that may unlock the agent."""
        self._operators = operators
        self._config = config
        self._agent = agent
        self._clock = clock
        self._audit = audit
        self._memory_locked = memory_locked

    def is_operator(self, peer: Peer) -> bool:
        """Whether the peer may unlock the agent."""
        return peer.uid in self._operators

    def answer(self, channel: Channel, peer: Peer, unit: Unit) -> dict[str, Any]:
        """Read one request from the channel and do it; the answer as a message.

        `unit` looks up the peer's systemd unit. Every refusal is audited.

        Raises:
            ProxyAgentError: for the peer to be told.
        """
        request = parse_request(channel.receive())
        try:
            return self._answer(request, channel, peer, unit).model_dump(mode="json")
        except ProxyAgentError as error:
            if not isinstance(request, StatusRequest):
                self._audit.record("refused", verb=request.verb, uid=peer.uid, pid=peer.pid, error=error.kind)
            raise

    def _answer(  # noqa: PLR0911 - one for each verb
        self, request: AnyRequest, channel: Channel, peer: Peer, unit: Unit
    ) -> BaseModel:
        match request:
            case StatusRequest():
                return self._status(peer)
            case IssueRequest():
                return self._issue(request, peer, unit)
            case UnlockRequest():
                return self._unlock(request, channel, peer)
            case PinRetryRequest():
                return self._pin_retry(request, peer)
            case VomsWaitRequest():
                return self._voms_wait(peer)
            case VomsProxyRequest():
                return self._voms_proxy(request, peer)
            case VomsDeliverRequest():
                return self._voms_deliver(request, peer)

    def _status(self, peer: Peer) -> AgentStatus:
        profiles = self._config.profiles_of(peer.uid, peer.groups)
        visible = {self._config.identity_of(profile) for profile in profiles}
        if self.is_operator(peer):
            visible = set(self._agent.identities)
        if not visible:
            raise DeniedError(f"uid {peer.uid} may not use this agent", hint="add it to a profile's uids")
        return AgentStatus(
            identities=tuple(
                identity_status(identity, self._agent, self._config, self._clock)
                for name, identity in self._agent.identities.items()
                if name in visible
            ),
            profiles=tuple(profile.name for profile in profiles),
            memory_locked=self._memory_locked,
            audit_problem=self._audit.problem,
            strangers=tuple(StrangerStatus(serial=each.serial, label=each.label) for each in self._agent.strangers()),
        )

    def _issue(self, request: IssueRequest, peer: Peer, unit: Unit) -> IssueAnswer:
        profile = self._config.select(request.profile, peer.uid, peer.groups, unit)
        chain = self._agent.issue(profile, request.csr, request.lifetime_seconds)
        until = chain[0].not_valid_after_utc.isoformat()
        serial = f"{chain[0].serial_number:x}"
        self._audit.record(
            "issued", profile=profile.name, uid=peer.uid, pid=peer.pid, proxy_serial=serial, not_after=until
        )
        _log.info("issued %s to uid %d (pid %d), serial %s, until %s", profile.name, peer.uid, peer.pid, serial, until)
        return IssueAnswer(chain=certificates_to_pem(chain))

    def _unlock(self, request: UnlockRequest, channel: Channel, peer: Peer) -> UnlockAnswer:
        self._check_operator(peer, "unlock the agent")
        identity = self._agent.identity(request.identity)
        if request.pin_pad:
            session = identity.unlock(None, request.serial)
        else:
            with channel.receive_secret() as pin:
                session = identity.unlock(pin, request.serial)
        self._audit.record("unlocked", identity=identity.name, uid=peer.uid, pid=peer.pid, pin_pad=request.pin_pad)
        _log.info("%s: unlocked by uid %d (pid %d)", identity.name, peer.uid, peer.pid)
        return UnlockAnswer(session=session_status(session.identity, session.not_after))

    def _pin_retry(self, request: PinRetryRequest, peer: Peer) -> PinRetryAnswer:
        self._check_operator(peer, "let a PIN be tried again")
        identity = self._agent.identity(request.identity)
        waited = identity.allow_unattended()
        self._audit.record("pin-retry", identity=identity.name, uid=peer.uid, pid=peer.pid, waited=waited)
        return PinRetryAnswer(waited=waited)

    def _voms_wait(self, peer: Peer) -> VomsWaitAnswer:
        voms = self._fetcher_section(peer)
        due = self._agent.attributes.take_due(wait_seconds=_VOMS_WAIT_SECONDS)
        wants = tuple(WantedAttributes(identity=want.identity, vo=want.vo, fqans=want.fqans) for want in due)
        return VomsWaitAnswer(wants=wants, lifetime_seconds=voms.lifetime_seconds)

    def _voms_proxy(self, request: VomsProxyRequest, peer: Peer) -> IssueAnswer:
        self._fetcher_section(peer)
        chain = self._agent.issue_for_voms(request.identity, request.csr)
        serial = f"{chain[0].serial_number:x}"
        self._audit.record(
            "issued-for-voms", identity=request.identity, uid=peer.uid, pid=peer.pid, proxy_serial=serial
        )
        return IssueAnswer(chain=certificates_to_pem(chain))

    def _voms_deliver(self, request: VomsDeliverRequest, peer: Peer) -> VomsDeliverAnswer:
        self._fetcher_section(peer)
        want = Want(request.want.identity, request.want.vo, request.want.fqans)
        if request.ac is None:
            error = VomsRefusedError if request.kind == VomsRefusedError.kind else VomsError
            reason, hint = printable(request.problem or ""), printable(request.hint or "")
            problem = error(reason or "no reason was given", hint=hint or "look into its log")
            self._agent.deliver_failure(want, problem)
            return VomsDeliverAnswer()
        try:
            der = base64.b64decode(request.ac, validate=True)
        except ValueError as error:  # binascii.Error, or letters beyond ASCII
            raise ProtocolError("an attribute certificate that is not base64", hint="update both sides") from error
        try:
            self._agent.deliver(want, der)
        except VomsError as error:
            self._agent.deliver_failure(want, error)
            raise
        return VomsDeliverAnswer()

    def _fetcher_section(self, peer: Peer) -> VomsSection:
        voms = self._config.voms
        if voms is None or peer.uid != voms.uid:
            raise DeniedError(
                f"uid {peer.uid} may not deliver VOMS attributes", hint="run `proxyagent voms` as the uid of [voms]"
            )
        return voms

    def _check_operator(self, peer: Peer, what: str) -> None:
        if not self.is_operator(peer):
            raise DeniedError(f"uid {peer.uid} may not {what}", hint="run this as root")
