"""`mover top`, drawn: the alarms first, since a small terminal shows the beginning."""

from collections.abc import Iterator
from datetime import datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mover.agentstate import Urgency
from mover.alarms.alarm import Alarm, Severity
from mover.cli.tables import moment, printable, size, table
from mover.cli.topfacts import EndpointFacts, Facts
from mover.states import JobState, ReplicaState, RunState

_MOST_ALARMS = 12
_MOST_WORK = 12
_DOING = {
    ReplicaState.WANTED: "brought there",
    ReplicaState.COPIED: "verified",
    ReplicaState.VERIFIED: "asked whether it is on tape",
    ReplicaState.ARCHIVED: "looked at",
}
_STYLES = {Severity.CRITICAL: "bold white on red", Severity.WARNING: "bold yellow"}


def draw(facts: Facts) -> RenderableType:
    """One frame."""
    return Group(*_parts(facts))


def _parts(facts: Facts) -> Iterator[RenderableType]:
    yield Text(f"{facts.experiment}  {moment(facts.at)}", style="bold")
    yield Text(_runs(facts))
    yield Text(_disk(facts))
    yield from _credentials(facts)
    yield from _alarms(facts.alarms)
    if facts.work:
        yield _work(facts)
    yield table(("endpoint", "health", "waits", "for tape", "quarantined", "rate"), map(_endpoint, facts.endpoints))
    yield from _jobs(facts)


def _runs(facts: Facts) -> str:
    shown = [state for state in RunState if state not in {RunState.UNKNOWN, RunState.DISMISSED}]
    return "runs: " + ", ".join(f"{facts.runs.get(state, 0)} {state}" for state in shown)


def _disk(facts: Facts) -> str:
    if facts.fill_percent is None or facts.free_bytes is None:
        return "disk of the runs: cannot be looked at"
    return f"disk of the runs: {facts.fill_percent:.0f} % full, {size(facts.free_bytes)} free"


def _credentials(facts: Facts) -> Iterator[Text]:
    for agent in facts.agents:
        if agent.problem:
            yield Text(printable(f"credential agent: {agent.problem}"), style="red")
        for one in agent.identities:
            until = f" until {moment(one.not_after)}" if one.not_after else ""
            plug = f"; plug the dongle before {moment(one.plug_before)}" if one.plug_before else ""
            style = "" if one.urgency is Urgency.OK else "yellow"
            yield Text(printable(f"credential {one.name}: {one.urgency}{until}{plug}"), style=style)


def _alarms(alarms: tuple[Alarm, ...]) -> Iterator[RenderableType]:
    if not alarms:
        yield Text("no alarm", style="green")
        return
    yield Text(f"{len(alarms)} alarm{'' if len(alarms) == 1 else 's'}:", style=_STYLES[alarms[0].severity])
    for one in alarms[:_MOST_ALARMS]:
        yield Text.assemble(
            (printable(f"{'!!' if one.severity is Severity.CRITICAL else ' !'} {one.says}"), _STYLES[one.severity]),
            printable(f" — {one.remedy}"),
        )
    if len(alarms) > _MOST_ALARMS:
        yield Text(f"   and {len(alarms) - _MOST_ALARMS} more: `mover status`")


def _work(facts: Facts) -> Table:
    rows = [
        (str(one.run), one.kind.value, one.endpoint, _DOING.get(one.state, one.state.value), size(one.size_bytes))
        for one in facts.work[:_MOST_WORK]
    ]
    if len(facts.work) > _MOST_WORK:
        rows.append((f"and {len(facts.work) - _MOST_WORK} more", "", "", "", ""))
    return table(("run", "bundle", "endpoint", "is", "size"), rows)


def _endpoint(one: EndpointFacts) -> tuple[str, ...]:
    health = f"silent since {moment(one.sick.since)}" if one.sick else "well"
    waits = f"{one.waiting}, {size(one.waiting_bytes)}" if one.waiting else "0"
    return (one.name, health, waits, str(one.for_tape), str(one.quarantined), f"{size(int(one.bytes_per_second))}/s")


def _jobs(facts: Facts) -> Iterator[Text]:
    if any(facts.jobs.values()):
        yield Text("jobs: " + ", ".join(f"{facts.jobs.get(state, 0)} {state}" for state in JobState))
    for campaign, progress in facts.campaigns:
        end = f", ends about {_short(progress.ends_at)}" if progress.ends_at else ""
        done = progress.number(JobState.PROVEN)
        yield Text(printable(f"campaign {campaign.id}, {campaign.chosen}: {done} of {progress.total} proven{end}"))


def _short(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%MZ")
