"""What a run as a whole waits for."""

from collections.abc import Iterator

from mover.catalogue.runs import RunRecord
from mover.policy import Assessment, ProvenReplica, assess
from mover.states import ReplicaState, RunState
from mover.steps.retention import kept_until, why_due
from mover.steps.standing import final_state
from mover.why.replica import is_open
from mover.why.sentence import Needs, Sentence, moment, sentence
from mover.why.situation import ENGINE, Situation


def explain_run(situation: Situation) -> Iterator[Sentence]:
    """What the run's own state means, and what comes next."""
    run = situation.run
    if run is None:
        yield _unknown(situation)
        return
    if run.problem and run.state is not RunState.QUARANTINED:
        yield Sentence("run", sentence(run.problem), f"{sentence(run.hint or 'look at its files')}", Needs.PERSON)
    match run.state:
        case RunState.QUARANTINED:
            yield _quarantined(situation, run)
        case RunState.PLANNED:
            yield _planned(situation)
        case RunState.SAFE:
            yield from _safe(situation, run)
        case RunState.RELEASED:
            yield _released(situation)
        case _:
            yield Sentence(
                "run",
                f"It was dismissed at {moment(run.since)}: it is no run, and nothing of it is moved.",
                f"If it is one after all, put its files into {situation.config.runs.directory} and "
                f"`mover run close {run.number}`.",
                Needs.NOTHING,
            )


def _unknown(situation: Situation) -> Sentence:
    runs = situation.config.runs
    marker = runs.naming().marker_name(situation.number)
    return Sentence(
        "run",
        "It was never closed here: either it has not ended, or nobody has said so.",
        f"The engine closes it once the DAQ has written {marker} into {runs.directory}; "
        f"`mover run close {situation.number}` does so at once.",
        Needs.TIME,
    )


def _quarantined(situation: Situation, run: RunRecord) -> Sentence:
    said = f"It is quarantined since {moment(run.since)}: {run.problem or 'nobody knows why'}."
    hint = sentence(run.hint or "look at its files")
    if situation.raw is not None:
        return Sentence("run", f"{said} Nothing of it is moved, submitted or released meanwhile.", hint, Needs.PERSON)
    return Sentence(
        "run",
        said,
        f"{hint} Then `mover run close {run.number}`, or with --force as it is; if it is no run at all, "
        f"`mover run unquarantine {run.number} --reason …` dismisses it.",
        Needs.PERSON,
    )


def _planned(situation: Situation) -> Sentence:
    found = _standing(situation)
    if found.holds:
        return Sentence(
            "run",
            f"Enough of it is proven ({found}).",
            "The engine calls it safe at its next look.",
            Needs.TIME,
        )
    lacks = f"It is not safe yet: it lacks {', '.join(found.lacking)}."
    replicas = situation.raw[1] if situation.raw else ()
    # What could still come, if everything goes well.
    places = situation.config.places
    hoped = _assess(
        situation,
        [(one.endpoint, final_state(places[one.endpoint].kind)) for one in replicas if one.endpoint in places],
    )
    if not hoped.holds:
        return Sentence(
            "run",
            f"{lacks} Even all the replicas that are wanted would lack {', '.join(hoped.lacking)}.",
            "`mover policy plan` shows what the policy wants beside them, and `mover policy apply` wants it.",
            Needs.PERSON,
        )
    return Sentence(
        "run",
        lacks,
        "It is safe when enough of its replicas are proven; what each of them waits for is said of it.",
        Needs.TIME,
    )


def _safe(situation: Situation, run: RunRecord) -> Iterator[Sentence]:
    config, policy = situation.config, situation.config.raw_policy()
    needed = set(policy.endpoints) - policy.optional
    raw = situation.raw
    unfinished = [one.endpoint for one in (raw[1] if raw else ()) if one.endpoint in needed and is_open(situation, one)]
    if unfinished:
        yield Sentence(
            "run",
            f"It is safe, but {', '.join(unfinished)} may still need its local files.",
            "They stay until that is done.",
            Needs.TIME,
        )
        return
    limits = config.release
    due = why_due(run, limits, now=situation.now, fill_percent=situation.fill_percent or 0.0)
    until = moment(kept_until(run, limits))
    if not limits.automatic:
        wait = f"after {until}" if due is None else "now"
        yield Sentence(
            "run",
            "It is safe, and its local files are here; removing them is left to people.",
            f"`mover release {run.number}` asks the storage once more, and removes them {wait}.",
            Needs.PERSON if due else Needs.TIME,
        )
    elif due is None:
        yield Sentence(
            "run",
            f"It is safe, and its local files are kept until {until}.",
            f"Then the engine asks the storage once more, and removes them; earlier if the disk is "
            f"{limits.hurry_at_percent:g} % full.",
            Needs.TIME,
        )
    else:
        yield Sentence(
            "run",
            f"It is safe, and its local files are due to go: {due}.",
            f"The engine asks the storage once more, and removes them; `mover release {run.number} --dry-run` says "
            "what would keep them.",
            Needs.TIME,
        )


def _released(situation: Situation) -> Sentence:
    raw = situation.raw
    where = [one.endpoint for one in (raw[1] if raw else ()) if one.state in _PROVEN]
    return Sentence(
        "run",
        f"It is released: its local files are gone, its raw data is at {', '.join(where) or 'no endpoint'}.",
        "Nothing is left to do for its raw data."
        if where
        else f"`mover run retry {situation.number} --look` asks the storage what is left of it.",
        Needs.NOTHING if where else Needs.PERSON,
    )


_PROVEN = {ReplicaState.VERIFIED, ReplicaState.ARCHIVED}


def explain_engine(situation: Situation, name: str) -> Iterator[Sentence]:
    """That the daemon which has to go on with it does not run, or goes by another configuration."""
    services, unit = situation.services, "mover" if name == ENGINE else "mover-reco"
    if name in services.outdated:
        until = " Until then it calls no run safe and releases nothing." if name == ENGINE else ""
        yield Sentence(
            name, f"The {name} goes by another configuration than the file has now.", f"Restart it.{until}",
            Needs.PERSON,
        )  # fmt: skip
    if name in services.here:
        return
    if host := (services.elsewhere or {}).get(name):
        yield Sentence(
            name,
            f"No {name} runs on this machine; one was started on {host}, of which nothing can be seen from here.",
            "If none runs there either, start one: nothing goes on before.",
            Needs.TIME,
        )
        return
    command = "mover engine" if name == ENGINE else "mover reco agent"
    yield Sentence(
        name,
        f"No {name} runs.",
        f"Start it (`systemctl start {unit}`, or `{command}`): nothing goes on before.",
        Needs.PERSON,
    )


def _standing(situation: Situation) -> Assessment:
    return _assess(situation, [(one.endpoint, one.state) for one in (situation.raw[1] if situation.raw else ())])


def _assess(situation: Situation, states: list[tuple[str, ReplicaState]]) -> Assessment:
    places = situation.config.places
    return assess(
        situation.config.raw_policy(),
        [ProvenReplica(name, places[name].kind, places[name].site, state) for name, state in states if name in places],
    )
