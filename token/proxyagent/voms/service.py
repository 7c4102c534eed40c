"""The process with a network: it fetches VOMS attribute certificates that the agent wants, and hands them over.

It gets short, limited proxies by certificate request like any client, and returns nothing but attribute certificates,
which the agent checks for itself.
"""

import base64
import logging
import random
import time
from collections.abc import Callable
from typing import NoReturn

from proxyagent.client import ClientProxy
from proxyagent.connection import ask
from proxyagent.errors import NoSessionError, ProxyAgentError, VomsError
from proxyagent.messages import (
    IssueAnswer,
    VomsDeliverAnswer,
    VomsDeliverRequest,
    VomsProxyRequest,
    VomsWaitAnswer,
    VomsWaitRequest,
    WantedAttributes,
    parse_answer,
)
from proxyagent.policy import Config, VomsSection
from proxyagent.protocol import Message
from proxyagent.request import make_request, new_key
from proxyagent.voms.fetch import FetchedAc, fetch_ac
from proxyagent.voms.vomses import servers_of
from proxyagent.voms.workers import VoWorkers

_log = logging.getLogger(__name__)
_ASK_SECONDS = 60.0
_FETCH_SECONDS = 60.0
_PAUSE_SECONDS = 5.0
_MAX_VOS = 8
# Longer than a proxy, all servers of a VO and the delivery may take together.
_STUCK_SECONDS = 2 * _ASK_SECONDS + _FETCH_SECONDS + 30.0


class VomsFetcher:
    """Serves the agent until the process is ended; it has nothing to tidy up."""

    def __init__(self, config: Config, voms: VomsSection) -> None:
        self._config = config
        self._voms = voms
        self._workers = VoWorkers(self._serve, max_threads=_MAX_VOS)

    def run(self, alive: Callable[[], object]) -> NoReturn:
        """Ask the agent what it wants, fetch it, hand it over; again and again.

        `alive` is called at least every minute or so, unless a fetch has passed all of its deadlines.
        """
        told = ""
        while True:
            if self._workers.longest_seconds() < _STUCK_SECONDS:
                alive()
            try:
                self.serve_once()
                told = ""
            except ProxyAgentError as error:
                if error.message != told:
                    _log.warning("%s (%s)", error.message, error.hint)
                    told = error.message
                time.sleep(_PAUSE_SECONDS * (1 + random.random()))  # noqa: S311 - not a secret

    def serve_once(self) -> int:
        """Wait for what is wanted, some seconds at most, and begin to fetch it; how many were wanted.

        Raises:
            ProxyAgentError: the agent is not there, or does not take us for its fetcher.
        """
        answer = parse_answer(VomsWaitAnswer, self._ask(VomsWaitRequest().model_dump()))
        for want in answer.wants:
            try:
                self._workers.submit(want, answer.lifetime_seconds)
            except RuntimeError as error:
                raise ProxyAgentError("there is no thread for a VO", hint="see TasksMax= of the unit") from error
        return len(answer.wants)

    def wait(self, timeout_seconds: float) -> bool:
        """Wait until all that was wanted is fetched and handed over, or could not be; tell whether it is so."""
        return self._workers.wait(timeout_seconds)

    def _serve(self, want: WantedAttributes, lifetime_seconds: int) -> None:
        try:
            self._fetch_and_deliver(want, lifetime_seconds)
        except (NoSessionError, VomsError) as error:
            _log.warning("%s: the agent refused what came: %s (%s)", want.vo, error.message, error.hint)
        except ProxyAgentError as error:
            _log.warning("%s: not handed over: %s (%s)", want.vo, error.message, error.hint)

    def _fetch_and_deliver(self, want: WantedAttributes, lifetime_seconds: int) -> None:
        try:
            found = self._fetch(want, lifetime_seconds)
        except ProxyAgentError as error:
            _log.warning("%s: %s (%s)", " ".join(want.fqans), error.message, error.hint)
            delivery = VomsDeliverRequest(
                want=want, kind=error.kind, problem=error.message[:2000], hint=error.hint[:2000]
            )
        else:
            if found.warning:
                _log.warning("%s: the server says: %s", " ".join(want.fqans), found.warning)
            delivery = VomsDeliverRequest(want=want, ac=base64.b64encode(found.der).decode())
        parse_answer(VomsDeliverAnswer, self._ask(delivery.model_dump()))

    def _fetch(self, want: WantedAttributes, lifetime_seconds: int) -> FetchedAc:
        key = new_key()
        request = VomsProxyRequest(identity=want.identity, csr=make_request(key))
        with ClientProxy.from_answer(parse_answer(IssueAnswer, self._ask(request.model_dump())), key) as proxy:
            return fetch_ac(
                servers_of(self._voms.vomses, want.vo),
                credential_path=proxy.path,
                ca_directory=self._config.trust.ca_directory,
                fqans=want.fqans,
                lifetime_seconds=lifetime_seconds,
                timeout_seconds=_FETCH_SECONDS,
            )

    def _ask(self, request: Message) -> Message:
        return ask(self._config.agent.socket, request, None, _ASK_SECONDS)
