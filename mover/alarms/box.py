"""Alarms about the box itself: endpoints that do not answer, its disks, daemons and credentials."""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from mover.agentstate import AgentState, Urgency
from mover.alarms.alarm import Alarm, AlarmKind, Severity
from mover.catalogue.database import Database
from mover.catalogue.endpoints import sick_endpoints
from mover.catalogue.services import services_elsewhere, services_here
from mover.config import Config

_ENGINE, _RECO = "engine", "reco agent"


def silent_endpoints(database: Database, config: Config, *, now: datetime) -> Iterator[Alarm]:
    """Endpoints that have not answered for longer than a moment."""
    patience = timedelta(minutes=config.alarms.endpoint_minutes)
    for health in sick_endpoints(database).values():
        if health.name in config.places and now - health.since >= patience:
            yield Alarm(
                AlarmKind.ENDPOINT,
                health.name,
                Severity.WARNING,
                f"{health.name} has not answered for {patience / timedelta(minutes=1):g} min: {health.problem}",
                f"ask the site; nothing is lost meanwhile, and it is tried by itself ({health.hint})",
                health.since,
            )


def disk(config: Config, fill_percent: float | None) -> Iterator[Alarm]:
    """The disk that the DAQ writes to. None: it could not be looked at."""
    if fill_percent is None:
        yield Alarm(
            AlarmKind.DISK,
            "runs",
            Severity.CRITICAL,
            f"the run directory {config.runs.directory} cannot be looked at",
            "check its mount and its rights",
            None,
        )
    elif fill_percent >= config.release.hurry_at_percent:
        full = fill_percent >= config.alarms.full_percent
        release = "the engine releases what is safe by itself" if config.release.automatic else "`mover release`"
        yield Alarm(
            AlarmKind.DISK,
            "runs",
            Severity.CRITICAL if full else Severity.WARNING,
            f"the disk of {config.runs.directory} is {fill_percent:.0f} % full",
            f"make room: {release}; what is not safe must stay",
            None,
        )


def daemons(database: Database, config: Config) -> Iterator[Alarm]:
    """Daemons that should run here and do not, or go by another configuration than the file has now."""
    here = services_here(database)
    known = {one.name for one in (*here, *services_elsewhere(database))}
    for name, command in ((_ENGINE, "mover engine"), (_RECO, "mover reco agent")):
        if name not in known and (name == _ENGINE or config.reco is not None):
            says = f"no {name} runs: nothing goes on"
            yield Alarm(AlarmKind.SERVICE, name, Severity.CRITICAL, says, f"start it: `{command}`, or its unit", None)
    digest = config.digest()
    for one in here:
        if one.config != digest:
            stops = ", calls no run safe and releases nothing" if one.name == _ENGINE else ""
            says = f"the {one.name} goes by another configuration than the file has now{stops}"
            yield Alarm(AlarmKind.CONFIG, one.name, Severity.WARNING, says, "restart it", one.started_at)


def credentials(agents: Iterable[AgentState]) -> Iterator[Alarm]:
    """What the agents that issue Grid proxies need."""
    for agent in agents:
        if agent.problem:
            yield Alarm(
                AlarmKind.CREDENTIAL,
                str(agent.socket),
                Severity.CRITICAL,
                f"the credential agent does not answer: {agent.problem}",
                agent.hint or "start it",
                None,
            )
        for one in agent.identities:
            if one.urgency is Urgency.OK:
                continue
            expired = one.urgency is Urgency.EXPIRED
            until = one.not_after.strftime("%Y-%m-%d %H:%M:%SZ") if one.not_after else "now"
            state = "issues no proxies, or not all" if expired else f"issues proxies until {until} only"
            yield Alarm(
                AlarmKind.CREDENTIAL,
                one.name,
                Severity.CRITICAL if expired else Severity.WARNING,
                f"the credential agent {state} for {one.name}",
                "; ".join(one.advice) or "`proxyagent status` says what to do",
                None,
            )
