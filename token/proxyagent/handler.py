"""What the agent does for a peer: status, issue, unlock, and nothing else."""

import logging
import os
from typing import Any

from proxyagent.agent import Agent
from proxyagent.chain import certificates_to_pem
from proxyagent.errors import DeniedError, ProxyAgentError
from proxyagent.messages import (
    AgentStatus,
    DongleStatus,
    IssueAnswer,
    IssueRequest,
    StatusRequest,
    UnlockAnswer,
    parse_request,
    session_status,
)
from proxyagent.policy import Config
from proxyagent.protocol import Channel

_log = logging.getLogger(__name__)


class Handler:
    """Answers requests of peers that the kernel has named."""

    def __init__(self, config: Config, agent: Agent, *, memory_locked: bool) -> None:
        self._config = config
        self._agent = agent
        self._memory_locked = memory_locked

    def answer(self, channel: Channel, uid: int, gid: int, pid: int) -> dict[str, Any]:
        """Read one request from the channel and do it; the answer as a message.

        Raises:
            ProxyAgentError: for the peer to be told.
        """
        request = parse_request(channel.receive())
        if isinstance(request, IssueRequest):
            return self._issue(request, uid, gid, pid)
        if isinstance(request, StatusRequest):
            return self._status(uid, gid)
        return self._unlock(channel, uid, pid)

    def _issue(self, request: IssueRequest, uid: int, gid: int, pid: int) -> dict[str, Any]:
        profile = self._config.select(request.profile, uid, gid)
        chain = self._agent.issue(profile, request.csr, request.lifetime_seconds)
        leaf = chain[0]
        until = leaf.not_valid_after_utc.isoformat()
        _log.info(
            "issued %s to uid %d (pid %d), serial %x, until %s", profile.name, uid, pid, leaf.serial_number, until
        )
        return IssueAnswer(chain=certificates_to_pem(chain)).model_dump(mode="json")

    def _unlock(self, channel: Channel, uid: int, pid: int) -> dict[str, Any]:
        if not self._is_operator(uid):
            raise DeniedError(f"uid {uid} may not unlock the agent", hint="run this as root or as the agent's user")
        with channel.receive_secret() as pin:
            session = self._agent.unlock(pin)
        _log.info("unlocked by uid %d (pid %d)", uid, pid)
        answer = UnlockAnswer(session=session_status(session.identity, session.not_after))
        return answer.model_dump(mode="json")

    def _status(self, uid: int, gid: int) -> dict[str, Any]:
        profiles = self._config.profiles_of(uid, gid)
        if not profiles and not self._is_operator(uid):
            raise DeniedError(f"uid {uid} may not use this agent", hint="add it to a profile's uids")
        session = self._agent.session
        status = AgentStatus(
            session=session_status(session.identity, session.not_after) if session else None,
            dongle=self._dongle(),
            profiles=profiles,
            memory_locked=self._memory_locked,
        )
        return status.model_dump(mode="json")

    def _dongle(self) -> DongleStatus:
        try:
            state = self._agent.dongle()
        except ProxyAgentError as error:
            return DongleStatus(
                present=False,
                logged_in=self._agent.logged_in,  # one that is only busy still is
                kind=error.kind,
                problem=error.message,
                hint=error.hint,
            )
        return DongleStatus(
            present=True,
            serial=state.serial,
            label=state.label,
            pin_state=state.pin_state,
            logged_in=self._agent.logged_in,
        )

    @staticmethod
    def _is_operator(uid: int) -> bool:
        return uid in {0, os.geteuid()}
