"""What a person has to do, and by when: pure arithmetic over what is known of one identity."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from proxyagent.errors import ProxyAgentError, WrongDongleError

_CERTIFICATE_WARNING = timedelta(days=30)  # a CA may take weeks
_CRL_WARNING = timedelta(days=1)  # CAs renew them days ahead; fetch-crl runs every six hours
_ATTRIBUTES_WARNING = timedelta(hours=1)


class Level(StrEnum):
    """How urgent it is."""

    OK = "ok"
    SOON = "soon"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Attributes:
    """A wanted VOMS attribute certificate."""

    name: str
    not_after: datetime | None
    problem: ProxyAgentError | None


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one identity. Times are UTC and aware; None means that there is no such thing."""

    session_not_after: datetime | None
    renews_itself: bool
    """Whether the next session needs no person: the dongle is in and logged in, or will log itself in."""
    unattended: bool
    """Whether the PIN is sealed, so that plugging is all that a person has to do."""
    renewal_problem: ProxyAgentError | None
    """Why the last try to go on without a person failed."""
    certificate_not_after: datetime | None
    crl_next_update: datetime | None
    trust_problem: ProxyAgentError | None
    attributes: Sequence[Attributes]


@dataclass(frozen=True, slots=True)
class Forecast:
    """The summary for the person on shift."""

    level: Level
    not_after: datetime | None
    """When the first of session, certificate, attribute certificates and CRLs ends, if nobody does anything."""
    plug_before: datetime | None
    """When the dongle and its PIN are needed; None if no person is needed for that."""
    advice: tuple[str, ...]
    """What to do, the most urgent first."""


def forecast(facts: Facts, now: datetime, warning: timedelta) -> Forecast:
    """What has to be done. `warning` is how long before its end a session that needs a person is called 'soon'."""
    findings = [
        *_session(facts, now, warning),
        *_certificate(facts, now),
        *_trust(facts, now),
        *_attributes(facts, now),
    ]
    order = list(Level)
    findings.sort(key=lambda finding: order.index(finding[0]), reverse=True)
    ends = [
        facts.session_not_after,
        facts.certificate_not_after,
        facts.crl_next_update,
        *(each.not_after for each in facts.attributes),
    ]
    needs_plug = facts.session_not_after is not None and not facts.renews_itself and not _ends_with_certificate(facts)
    return Forecast(
        level=findings[0][0] if findings else Level.OK,
        not_after=min((end for end in ends if end is not None), default=None),
        plug_before=facts.session_not_after if needs_plug else None,
        advice=tuple(advice for _, advice in findings),
    )


def moment(when: datetime, now: datetime) -> str:
    """A time for people: 18:40 UTC, with the date unless it is today."""
    return f"{when:%H:%M} UTC" if when.date() == now.date() else f"{when:%Y-%m-%d %H:%M} UTC"


def _session(facts: Facts, now: datetime, warning: timedelta) -> Iterator[tuple[Level, str]]:
    end, certificate_end = facts.session_not_after, facts.certificate_not_after
    if _ends_with_certificate(facts) or (certificate_end is not None and certificate_end <= now):
        return  # plugging would not help; the certificate's own line says what does
    problem = facts.renewal_problem
    why = f": {problem.message} ({problem.hint})" if problem is not None else ""
    if end is None or end <= now:
        if not facts.renews_itself:
            yield Level.EXPIRED, f"plug the dongle now{'' if facts.unattended else ' and run `proxyagent renew`'}{why}"
        else:
            yield Level.EXPIRED, f"no session{why or '; the agent makes one by itself while the dongle is in'}"
    elif not facts.renews_itself:
        alarm = isinstance(problem, WrongDongleError)  # somebody must see to that now, however long the session lasts
        yield (
            (Level.SOON if alarm or end - now <= warning else Level.OK),
            f"plug the dongle before {moment(end, now)}{why}",
        )
    elif end - now <= warning / 4:
        why = why or "; see the agent's log"
        yield Level.SOON, f"the session ends at {moment(end, now)} and was not renewed{why}"


def _ends_with_certificate(facts: Facts) -> bool:
    return facts.session_not_after is not None and facts.session_not_after == facts.certificate_not_after


def _certificate(facts: Facts, now: datetime) -> Iterator[tuple[Level, str]]:
    end = facts.certificate_not_after
    if end is not None and end - now <= _CERTIFICATE_WARNING:
        level = Level.SOON if end > now else Level.EXPIRED
        when = f"get a new certificate before {moment(end, now)}" if end > now else "get a new certificate"
        yield level, f"{when} from the CA and import it with `proxyagent init --certificate`"


def _trust(facts: Facts, now: datetime) -> Iterator[tuple[Level, str]]:
    if facts.trust_problem is not None:
        yield Level.EXPIRED, f"{facts.trust_problem.message}: {facts.trust_problem.hint}"
    elif facts.crl_next_update is not None and facts.crl_next_update - now <= _CRL_WARNING:
        yield Level.SOON, f"run fetch-crl before {moment(facts.crl_next_update, now)}: a revocation list ends then"


def _attributes(facts: Facts, now: datetime) -> Iterator[tuple[Level, str]]:
    for each in facts.attributes:
        left = each.not_after - now if each.not_after is not None else timedelta(0)
        why = f"{each.problem.message}: {each.problem.hint}" if each.problem else "it has not been fetched yet"
        if left <= timedelta(0):
            yield Level.EXPIRED, f"no VOMS attributes for {each.name}: {why}"
        elif each.problem is not None and left <= _ATTRIBUTES_WARNING:
            yield Level.SOON, f"VOMS attributes for {each.name} end in {int(left.total_seconds() // 60)} min: {why}"
