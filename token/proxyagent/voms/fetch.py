"""Attribute certificates from the servers of a VO: each asked in turn, over REST, and in the legacy protocol of old."""

import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from proxyagent.errors import VomsError, VomsRefusedError
from proxyagent.voms.answer import FetchedAc, NoRestError, legacy_answer, rest_answer
from proxyagent.voms.names import short_fqan
from proxyagent.voms.tls import ClosedError, Deadline, exchange, tls_context
from proxyagent.voms.vomses import VomsServer

__all__ = ["FetchedAc", "fetch_ac"]

_MAX_FQANS = 64
# Goes into a URL and into XML as it is: the REST interface does not decode percent signs.
_FQAN = re.compile(r"(/[A-Za-z0-9._-]{1,255})+(/Role=[A-Za-z0-9._-]{1,255})?")


@dataclass(frozen=True, slots=True)
class _Question:
    fqans: tuple[str, ...]
    lifetime_seconds: int

    def rest(self, server: VomsServer) -> list[bytes]:
        """The HTTP request of the REST interface."""
        path = f"/generate-ac?fqans={','.join(self.fqans)}&lifetime={self.lifetime_seconds}"
        lines = (f"GET {path} HTTP/1.1", f"Host: {server}", "User-Agent: proxyagent", "Connection: close", "", "")
        return ["\r\n".join(lines).encode()]

    def legacy(self) -> list[bytes]:
        """The request of the legacy protocol; the zero before it says that nothing is delegated, as GSI wants it."""
        pairs = [fqan.partition("/Role=")[::2] for fqan in self.fqans]
        commands = (f"B{group}:{role}" if role else f"G{group}" for group, role in pairs)
        order = ",".join(f"{group}:{role}" if role else group for group, role in pairs)
        xml = (
            '<?xml version="1.0" encoding="US-ASCII"?><voms>'
            + "".join(f"<command>{command}</command>" for command in commands)
            + f"<order>{order}</order><base64>1</base64><version>4</version>"
            + f"<lifetime>{self.lifetime_seconds}</lifetime></voms>"
        )
        return [b"0", xml.encode()]


def fetch_ac(
    servers: Sequence[VomsServer],
    *,
    credential_path: str,
    ca_directory: Path,
    fqans: Sequence[str],
    lifetime_seconds: int,
    timeout_seconds: float,
) -> FetchedAc:
    """An attribute certificate with these FQANs, the first one first, from the first server that grants it.

    A server that refuses does not end it: replicas of a VO's database lag behind, and a VO that moves to another
    service has two of them for years. Asking the next one costs milliseconds and counts nowhere.

    Args:
        credential_path: PEM of a proxy without attributes (where a proxy has some, a server may grant no others).
        lifetime_seconds: how long it is to last; servers may grant less.
        timeout_seconds: for all servers together; each has its share, and what others have left of theirs.

    Raises:
        VomsRefusedError: no server granted it, and one that answered refused.
        VomsError: no server granted it, for the reasons in the message.
    """
    question = _question(fqans, lifetime_seconds)
    context = tls_context(credential_path, ca_directory)
    whole = Deadline(timeout_seconds)
    failures: list[tuple[VomsServer, VomsError]] = []
    for count, server in zip(range(len(servers), 0, -1), servers, strict=True):
        try:
            return _fetch_from(server, context, question, Deadline(whole.left() / count))
        except VomsError as error:
            failures.append((server, error))
        except TimeoutError:
            break
    raise _no_server(failures, timeout_seconds)


def _fetch_from(server: VomsServer, context: ssl.SSLContext, question: _Question, deadline: Deadline) -> FetchedAc:
    try:
        return rest_answer(exchange(server, context, question.rest(server), deadline))
    except (ClosedError, NoRestError):
        # As servers do that have no REST: Debian 12's hangs up.
        return legacy_answer(exchange(server, context, question.legacy(), deadline))


def _question(fqans: Sequence[str], lifetime_seconds: int) -> _Question:
    short = tuple(dict.fromkeys(short_fqan(fqan) for fqan in fqans))
    if not 0 < len(short) <= _MAX_FQANS or not all(_FQAN.fullmatch(fqan) for fqan in short):
        raise VomsError("these are no FQANs to ask a VOMS server for", hint="write them as /mice/Role=reco")
    if lifetime_seconds <= 0:
        raise VomsError(f"an attribute certificate cannot last {lifetime_seconds} s", hint="ask for a longer life")
    return _Question(short, lifetime_seconds)


def _no_server(failures: list[tuple[VomsServer, VomsError]], timeout_seconds: float) -> VomsError:
    if not failures:
        return VomsError(f"no VOMS server was asked within {timeout_seconds:g} s", hint="name a server in vomses")
    words = "; ".join(f"{server}: {error.message}" for server, error in failures)
    refusals = [error for _, error in failures if isinstance(error, VomsRefusedError)]
    if refusals:
        return VomsRefusedError(f"VOMS refuses: {words}", hint=refusals[0].hint)
    return VomsError(f"no VOMS server answers as it should: {words}", hint=failures[0][1].hint)
