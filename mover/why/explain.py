"""Why a run is not further: everything that it waits for, as sentences, the most urgent first."""

from collections.abc import Iterator

from mover.agentstate import Urgency
from mover.model import BundleKind
from mover.states import JobState, RunState
from mover.why.job import explain_jobs
from mover.why.replica import explain_replica, is_open
from mover.why.run import explain_engine, explain_run
from mover.why.sentence import Needs, Sentence
from mover.why.situation import ENGINE, RECO_AGENT, Situation

_SETTLED = {JobState.PROVEN, JobState.CANCELLED, JobState.QUARANTINED}


def explain(situation: Situation) -> tuple[Sentence, ...]:
    """All that is to be said of the run: first of itself, then what needs a person, then what time brings.

    There is always something, and each sentence says what comes next.
    """
    first, *rest = explain_run(situation)
    if situation.run is not None and not _is_held(situation):
        for bundle, replicas in situation.bundles:
            for replica in replicas:
                if is_open(situation, replica):
                    rest += explain_replica(situation, bundle, replica)
        rest += explain_jobs(situation)
        for service in sorted(_needed(situation)):
            rest += explain_engine(situation, service)
        if _needed(situation):
            rest += _credentials(situation)
    order = list(Needs)
    return first, *sorted(rest, key=lambda one: order.index(one.needs))


def _is_held(situation: Situation) -> bool:
    """Whether a person is to look at the run before anything else of it matters."""
    return situation.run is not None and situation.run.state is RunState.QUARANTINED


def _needed(situation: Situation) -> set[str]:
    """The daemons that have something to do for the run."""
    run, config = situation.run, situation.config
    needed = set()
    if run is not None and (run.state is RunState.PLANNED or (run.state is RunState.SAFE and config.release.automatic)):
        needed.add(ENGINE)
    for bundle, replicas in situation.bundles:
        if any(is_open(situation, one) and one.endpoint in config.places for one in replicas):
            needed.add(ENGINE if bundle.kind is BundleKind.RAW or config.reco is None else RECO_AGENT)
    if any(job.state not in _SETTLED for job in situation.jobs):
        needed.add(RECO_AGENT)
    return needed


def _credentials(situation: Situation) -> Iterator[Sentence]:
    """What the credential agents want of a person."""
    for agent in situation.agents or ():
        if agent.problem:
            yield Sentence(
                "credential",
                f"The agent that issues Grid proxies does not answer at {agent.socket}: {agent.problem}.",
                f"{agent.hint or 'start it'}; nothing can be moved without a proxy.",
                Needs.PERSON,
            )
        for one in agent.identities:
            if one.urgency is Urgency.OK:
                continue
            state = "issues no proxies, or not all," if one.urgency is Urgency.EXPIRED else "will need a person soon"
            yield Sentence(
                "credential",
                f"The agent {state} for {one.name}.",
                "; ".join(one.advice) + "." if one.advice else "`proxyagent status` says what to do.",
                Needs.PERSON,
            )
