"""What a job waits for."""

from collections.abc import Iterator

from mover.catalogue.campaigns import Campaign
from mover.catalogue.jobs import JobRecord
from mover.model import BundleKind
from mover.ports import JobPhase
from mover.recoconfig import RecoConfig
from mover.states import CampaignState, JobState, ReplicaState
from mover.why.sentence import Needs, Sentence, moment, sentence
from mover.why.situation import Situation

_PROVEN = {ReplicaState.VERIFIED, ReplicaState.ARCHIVED}
_HELD = {CampaignState.CREATED: "start", CampaignState.PAUSED: "resume"}


def explain_jobs(situation: Situation) -> Iterator[Sentence]:
    """What the run's jobs wait for; what keeps jobs from being wanted at all."""
    for job in situation.jobs:
        yield from explain_job(situation, job)
    reco, run = situation.config.reco, situation.run
    if reco is None or run is None or situation.raw is None or run.number < reco.first_run:
        return
    have = {job.key.kind for job in situation.jobs}
    for kind in reco.kinds:
        if kind not in have:
            yield _unwanted(situation, reco, kind)


def explain_job(situation: Situation, job: JobRecord) -> Iterator[Sentence]:
    """What a job waits for; nothing if it is settled."""
    match job.state:
        case JobState.WANTED:
            yield _wanted(situation, job)
        case JobState.SUBMITTED:
            yield _in_work(situation, job) or _submitted(job)
        case JobState.COLLECTED:
            yield _in_work(situation, job) or _collected(situation, job)
        case JobState.QUARANTINED:
            if not _is_done_again(situation, job):
                yield Sentence(
                    _about(job),
                    f"It is quarantined since {moment(job.since)}: {job.problem or 'nobody knows why'}.",
                    f"{sentence(job.hint or 'look at its logs')} Then `mover reco retry {job.key.run}` has it done "
                    f"again, or `mover reco cancel {job.key.run}` gives it up.",
                    Needs.PERSON,
                )
        case _:
            return


def _in_work(situation: Situation, job: JobRecord) -> Sentence | None:
    """An agent has claimed it; None if none has."""
    holder = situation.job_claims.get(job.id)
    if holder is None:
        return None
    doing, after = _DOING[job.state]
    if holder.lives is False:
        return Sentence(
            _about(job),
            f"The reco agent on {holder.host} that {doing} has died and still holds its claim on it.",
            "The next agent of that machine frees it as soon as it looks around, and goes on.",
            Needs.TIME,
        )
    if holder.lives is None:
        return Sentence(
            _about(job),
            f"A reco agent on {holder.host} {doing}; whether it still runs cannot be seen from here.",
            f"If it does not say so again by {moment(holder.lease_until)}, any agent may take it over.",
            Needs.TIME,
        )
    return Sentence(_about(job), f"The reco agent {doing} just now.", after, Needs.TIME)


_DOING = {
    JobState.WANTED: ("submits it", "Then the batch system runs it when it likes."),
    JobState.SUBMITTED: ("takes its output", "Then the output is stored, and looked into there."),
    JobState.COLLECTED: ("reads its output back", "It counts if the output contract holds on it as stored."),
}


def _unwanted(situation: Situation, reco: RecoConfig, kind: BundleKind) -> Sentence:
    raw = situation.raw
    at = [one for one in raw[1] if one.endpoint == reco.endpoint] if raw else []
    if any(one.state in _PROVEN for one in at):
        return Sentence(
            str(kind),
            f"Its raw data is proven at {reco.endpoint}, and no {kind} job is wanted yet.",
            "The reco agent wants one at its next look, if a software release is approved and there; its log says "
            "what is missing, and `mover reco approve RELEASE` approves one.",
            Needs.TIME,
        )
    return Sentence(
        str(kind),
        f"Its {kind} job waits for the raw data at {reco.endpoint}.",
        f"It is wanted as soon as the replica at {reco.endpoint} is proven"
        + ("." if at else ", but none is wanted there: `mover policy apply` wants it."),
        Needs.TIME if at else Needs.PERSON,
    )


def _wanted(situation: Situation, job: JobRecord) -> Sentence:
    campaign = situation.campaigns.get(job.campaign_id) if job.campaign_id is not None else None
    if campaign is not None and (command := _HELD.get(campaign.state)):
        return Sentence(
            _about(job),
            f"It is one of campaign {campaign.id}, which is {campaign.state}.",
            f"`mover campaign {command} {campaign.id}` lets its jobs have their turn.",
            Needs.PERSON,
        )
    if job.lives:
        return Sentence(
            _about(job),
            f"It is wanted again, but an earlier attempt, {job.name}, may still be at {job.batch}.",
            "The reco agent ends that first, then it is submitted anew.",
            Needs.TIME,
        )
    if found := _in_work(situation, job):
        return found
    again = f"It is tried again at {moment(job.next_attempt_at)} by itself."
    if job.problem:
        times = f"{job.failures} times in a row" if job.failures > 1 else "once"
        return Sentence(
            _about(job),
            f"It is not submitted: what was tried failed {times}, {job.problem}.",
            f"{again} {sentence(job.hint or '')}",
            Needs.TIME,
        )
    if job.status and job.next_attempt_at > situation.now:
        return Sentence(_about(job), sentence(f"it is not submitted yet: {job.status}"), again, Needs.TIME)
    return Sentence(
        _about(job), f"It is wanted since {moment(job.since)}{_turn(situation, campaign)}.", _IN_TURN, Needs.TIME
    )


_IN_TURN = "It is submitted in its turn: live runs first, then campaigns, what failed last."


def _turn(situation: Situation, campaign: Campaign | None) -> str:
    reco = situation.config.reco
    limits = [one for one in (reco.most_jobs if reco else None, campaign.most_jobs if campaign else None) if one]
    most = f" of at most {min(limits)}" if limits else ""
    return f"; {situation.jobs_under_way} jobs{most} are under way"


def _submitted(job: JobRecord) -> Sentence:
    batch = job.batch or "the batch system"
    if job.ended:
        said = job.status or job.phase or "ended"
        return Sentence(
            _about(job),
            f"{batch} says that it has ended: {said}.",
            "The reco agent takes its output, and looks into it; what the batch system says counts for nothing.",
            Needs.TIME,
        )
    if job.missing_since is not None:
        return Sentence(
            _about(job),
            f"{batch} does not know it since {moment(job.missing_since)}.",
            "If it stays so, it counts as vanished, and is submitted again.",
            Needs.TIME,
        )
    if job.problem:
        return Sentence(_about(job), sentence(job.problem), sentence(job.hint or "it is looked at again"), Needs.TIME)
    if job.batch_id is None:
        return Sentence(
            _about(job),
            f"It was handed to {batch} as {job.name}, whose answer has not come.",
            "The reco agent looks for it there by that name.",
            Needs.TIME,
        )
    if job.phase == JobPhase.RUNNING:
        sign = f"; its last sign of life is of {moment(job.heartbeat_at)}" if job.heartbeat_at else ""
        return Sentence(
            _about(job),
            f"It runs at {batch} as {job.batch_id}{sign}.",
            "When it has ended, its output is taken and looked into.",
            Needs.TIME,
        )
    return Sentence(
        _about(job),
        f"It waits in the queue of {batch} as {job.batch_id} since {moment(job.since)}.",
        "The batch system runs it when it likes.",
        Needs.TIME,
    )


def _collected(situation: Situation, job: JobRecord) -> Sentence:
    if job.problem:
        return Sentence(
            _about(job),
            f"Its output is stored, but was not looked into: {job.problem}.",
            f"It is tried again at {moment(job.next_attempt_at)} by itself. {sentence(job.hint or '')}",
            Needs.TIME,
        )
    replicas = [one for bundle, all_ in situation.bundles if bundle.id == job.bundle_id for one in all_]
    if any(one.state in _PROVEN for one in replicas):
        return Sentence(
            _about(job),
            "Its output is stored.",
            "The reco agent reads it back from the storage and holds it against the output contract.",
            Needs.TIME,
        )
    return Sentence(
        _about(job),
        "Its output is there, and is not verified at any endpoint yet.",
        "Once it is, it is read back and held against the output contract.",
        Needs.TIME,
    )


def _is_done_again(situation: Situation, job: JobRecord) -> bool:
    """Whether a later iteration was wanted since: the quarantined one is only history then."""
    key = job.key
    return any(
        (one.key.kind, one.key.release) == (key.kind, key.release) and one.key.iteration > key.iteration
        for one in situation.jobs
    )


def _about(job: JobRecord) -> str:
    again = f", iteration {job.key.iteration}" if job.key.iteration > 1 else ""
    return f"{job.key.kind} with {job.key.release}{again}"
