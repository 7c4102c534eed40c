"""`mover top --json`."""

from mover.cli.jsonout import time_or_none
from mover.cli.topfacts import RATE_OVER, Facts
from mover.states import JobState, RunState


def document(facts: Facts) -> dict[str, object]:
    """The facts of one moment, with the keys of docs/cli-json.md."""
    return {
        "at": facts.at.isoformat(),
        "experiment": facts.experiment,
        "runs": {state.value: facts.runs.get(state, 0) for state in RunState if state is not RunState.UNKNOWN},
        "jobs": {state.value: facts.jobs.get(state, 0) for state in JobState},
        "work": [
            {
                "run": one.run,
                "kind": one.kind.value,
                "endpoint": one.endpoint,
                "state": one.state.value,
                "size_bytes": one.size_bytes,
                "host": one.host,
            }
            for one in facts.work
        ],
        "endpoints": [
            {
                "endpoint": one.name,
                "kind": one.kind.value,
                "silent_since": time_or_none(one.sick.since if one.sick else None),
                "waiting": one.waiting,
                "waiting_bytes": one.waiting_bytes,
                "for_tape": one.for_tape,
                "quarantined": one.quarantined,
                "proven_bytes": one.proven_bytes,
            }
            for one in facts.endpoints
        ],
        "proven_over_seconds": RATE_OVER.total_seconds(),
        "campaigns": [
            {
                "campaign": campaign.id,
                "chosen": campaign.chosen,
                "jobs": progress.total,
                "proven": progress.number(JobState.PROVEN),
                "ends_at": time_or_none(progress.ends_at),
            }
            for campaign, progress in facts.campaigns
        ],
        "credentials": [
            {
                "identity": one.name,
                "urgency": one.urgency.value,
                "not_after": time_or_none(one.not_after),
                "plug_before": time_or_none(one.plug_before),
                "advice": list(one.advice),
            }
            for agent in facts.agents
            for one in agent.identities
        ],
        "alarms": [
            {
                "kind": one.kind.value,
                "subject": one.subject,
                "severity": one.severity.value,
                "says": one.says,
                "remedy": one.remedy,
                "since": time_or_none(one.since),
            }
            for one in facts.alarms
        ],
        "disk": {"fill_percent": facts.fill_percent, "free_bytes": facts.free_bytes},
    }
