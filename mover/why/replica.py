"""What a replica waits for."""

from collections.abc import Iterator

from mover.catalogue.replicas import ReplicaRecord
from mover.catalogue.runs import BundleRecord
from mover.config import EndpointConfig
from mover.states import ReplicaState
from mover.steps.standing import final_state
from mover.why.sentence import Needs, Sentence, moment, sentence
from mover.why.situation import Holder, Situation

_COMING = {ReplicaState.WANTED, ReplicaState.COPIED}


def is_open(situation: Situation, replica: ReplicaRecord) -> bool:
    """Whether anything is left to do for it. What is at an endpoint that is not configured any more is left alone."""
    place = situation.config.places.get(replica.endpoint)
    return place is None or replica.state is not final_state(place.kind)


def explain_replica(situation: Situation, bundle: BundleRecord, replica: ReplicaRecord) -> Iterator[Sentence]:
    """What a replica for which something is left to do waits for."""
    about = f"{bundle.kind} at {replica.endpoint}"
    place = situation.config.places.get(replica.endpoint)
    if place is None:
        if replica.state in _COMING or replica.state is ReplicaState.QUARANTINED:
            yield Sentence(
                about,
                f"{replica.endpoint} is not in the configuration any more; the replica there is {replica.state}.",
                "Nothing is done for it, and it counts for nothing: put the endpoint back, or leave it at that.",
                Needs.NOTHING,
            )
        return
    if replica.state is ReplicaState.QUARANTINED:
        yield Sentence(
            about,
            f"It is quarantined since {moment(replica.since)}: {replica.problem or 'nobody knows why'}.",
            f"{sentence(replica.hint or 'look at the endpoint')} Then `mover run retry {replica.run}` takes it up.",
            Needs.PERSON,
        )
        return
    yield _in_work(situation, about, replica) or _waiting(situation, about, place, bundle, replica)


def _in_work(situation: Situation, about: str, replica: ReplicaRecord) -> Sentence | None:
    """Somebody has claimed it; None if nobody has."""
    holder: Holder | None = situation.claims.get(replica.id)
    if holder is None or holder.lease_until < situation.now:
        return None
    if overlong := situation.overlong.get(replica.id):
        return Sentence(
            about,
            sentence(overlong),
            f"See that no engine runs on {holder.host}, then `mover run retry {replica.run}` takes it up.",
            Needs.PERSON,
        )
    doing = _DOING[replica.state]
    if holder.lives is False:
        return Sentence(
            about,
            f"The engine on {holder.host} that {doing} has died and still holds its claim on it.",
            "The next engine of that machine frees it as soon as it looks around; the replica is then looked at anew.",
            Needs.TIME,
        )
    if holder.lives is None:
        return Sentence(
            about,
            f"An engine on {holder.host} {doing}; whether it still runs cannot be seen from here.",
            f"If it does not say so again by {moment(holder.lease_until)}, any engine may take it over.",
            Needs.TIME,
        )
    return Sentence(about, f"The engine {doing} just now.", _AFTER[replica.state], Needs.TIME)


def _waiting(
    situation: Situation, about: str, place: EndpointConfig, bundle: BundleRecord, replica: ReplicaRecord
) -> Sentence:
    health = situation.sick.get(replica.endpoint)
    if health is not None:
        return Sentence(
            about,
            f"{replica.endpoint} has not answered since {moment(health.since)}: {health.problem}.",
            f"One piece of work tries it again at {moment(health.probe_at)}; once it answers, this goes on by itself. "
            + sentence(health.hint),
            Needs.TIME,
        )
    if replica.problem:
        times = "once" if replica.failures <= 1 else f"{replica.failures} times in a row"
        return Sentence(
            about,
            f"It is {replica.state}, and what comes next failed {times}: {replica.problem}.",
            f"It is tried again at {moment(replica.next_attempt_at)} by itself; "
            f"`mover run retry {replica.run}` does so at once. {sentence(replica.hint or '')}",
            Needs.TIME,
        )
    if replica.state is ReplicaState.VERIFIED:
        return Sentence(
            about,
            f"It is stored and verified since {moment(replica.since)}, and not on tape yet.",
            f"The storage writes it to tape when it likes; it is asked again at {moment(replica.next_attempt_at)}.",
            Needs.TIME,
        )
    if replica.state is ReplicaState.WANTED and (source := _source_to_come(situation, place, bundle, replica)):
        return Sentence(
            about,
            f"It is wanted since {moment(replica.since)}, and waits for a third-party copy from {source}.",
            f"As soon as {source} has a proven copy, the storage copies it; if {source} fails, it goes another way.",
            Needs.TIME,
        )
    kind = ", as backlog after all live runs" if replica.backlog else ""
    due = "" if replica.next_attempt_at <= situation.now else f" at {moment(replica.next_attempt_at)}"
    return Sentence(
        about,
        f"It is {replica.state} since {moment(replica.since)}{kind}.",
        f"{_NEXT[replica.state]}{due} when a stream to {replica.endpoint} is free ({place.streams} at a time).",
        Needs.TIME,
    )


def _source_to_come(
    situation: Situation, place: EndpointConfig, bundle: BundleRecord, replica: ReplicaRecord
) -> str | None:
    """The endpoint before it in the order of the policy that it will be copied from, as `steps.route` decides."""
    policy = situation.config.policy_of(bundle.kind)
    if place.source != "tpc" or not place.third_party_copy or policy is None or place.scheme == "file":
        return None
    others = {one.endpoint: one for known, all_ in situation.bundles if known.id == bundle.id for one in all_}
    order = policy.endpoints
    for name in order[: order.index(replica.endpoint)] if replica.endpoint in order else order:
        other, its_place = others.get(name), situation.config.places[name]
        if (
            other is not None
            and name not in situation.sick
            and its_place.third_party_copy
            and its_place.scheme == place.scheme
            and other.state in _COMING
            and other.failures == 0
        ):
            return name
    return None


_DOING = {
    ReplicaState.WANTED: "brings it there",
    ReplicaState.COPIED: "verifies it",
    ReplicaState.VERIFIED: "asks whether it is on tape",
    ReplicaState.ARCHIVED: "looks at it",
}
_AFTER = {
    ReplicaState.WANTED: "When all of it is there, size and checksum are asked of the storage.",
    ReplicaState.COPIED: "It counts when size and checksum agree.",
    ReplicaState.VERIFIED: "It counts when the storage says so.",
    ReplicaState.ARCHIVED: "Nothing is left to do for it.",
}
_NEXT = {
    ReplicaState.WANTED: "It is brought there",
    ReplicaState.COPIED: "Size and checksum are asked of the storage",
    ReplicaState.ARCHIVED: "It is looked at",
}
