"""What is not further than it was longer ago than it should take: nothing waits in silence."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from mover.alarms.alarm import Alarm, AlarmKind, Severity
from mover.catalogue.database import Database
from mover.config import Config, EndpointConfig
from mover.model import EndpointKind
from mover.states import JobState, ReplicaState

#: A batch system may take a while to say that a job has ended.
_BATCH_MARGIN = timedelta(hours=1)

_NOT_HELD = "NOT EXISTS (SELECT 1 FROM run WHERE run.number = {run} AND run.state = 'quarantined')"
_REPLICAS = (
    "FROM replica JOIN bundle ON bundle.id = replica.bundle_id "
    "WHERE replica.endpoint = ? AND replica.state = ? AND replica.backlog = ? AND replica.since < ? AND "
) + _NOT_HELD.format(run="bundle.run")
_RUNS = "FROM run WHERE state = ? AND since < ?"
# Those of a campaign that is not under way wait because somebody says so.
_JOBS = (
    "FROM job LEFT JOIN campaign ON campaign.id = job.campaign_id WHERE job.state = ? AND job.kind = ? "
    "AND (job.campaign_id NOTNULL) = ? AND job.since < ? "
    "AND (campaign.state IS NULL OR campaign.state NOT IN ('created', 'paused')) AND "
) + _NOT_HELD.format(run="job.run")


@dataclass(frozen=True, slots=True)
class _Stage:
    """Where things may be stuck: which rows of which run, for how long they may be there, and what it is in words."""

    subject: str
    words: str
    source: str
    values: tuple[object, ...]
    expected: timedelta
    run: str = "run"
    since: str = "since"


def find_stuck(database: Database, config: Config, *, now: datetime) -> Iterator[Alarm]:
    """An alarm for each stage in which something is for longer than expected, with the run that is so for longest."""
    for stage in (*_replicas(config), *_runs(config), *_jobs(config)):
        # The texts are those above.
        rows = database.query(
            f"SELECT count(*) AS number, {stage.run} AS run, min({stage.since}) AS since {stage.source}",
            *stage.values,
            (now - stage.expected).isoformat(),
        )
        number, run, since = rows[0]["number"], rows[0]["run"], rows[0]["since"]
        if not number:
            continue
        hours = stage.expected / timedelta(hours=1)
        more = f" and {number - 1} more" if number > 1 else ""
        yield Alarm(
            AlarmKind.STUCK,
            stage.subject,
            Severity.WARNING,
            f"run {run}{more}: {stage.words} for more than {hours:g} h",
            f"`mover why {run}` says what it waits for",
            datetime.fromisoformat(since) + stage.expected,
        )


def _replicas(config: Config) -> Iterator[_Stage]:
    limits = config.alarms
    for place in config.endpoint:
        for state, backlog, hours in (
            (ReplicaState.WANTED, False, limits.move_hours),
            (ReplicaState.WANTED, True, limits.backlog_hours),
            (ReplicaState.COPIED, False, limits.move_hours),
            (ReplicaState.COPIED, True, limits.backlog_hours),
            *((ReplicaState.VERIFIED, backlog, limits.tape_hours) for backlog in _tape_only(place)),
        ):
            also = " (backlog)" if backlog else ""
            yield _Stage(
                f"{_STAGES[state]} {place.name}{also}",
                f"{_WORDS[state].format(place=place.name)}{also}",
                _REPLICAS,
                (place.name, state, backlog),
                timedelta(hours=hours),
                run="bundle.run",
                since="replica.since",
            )


def _tape_only(place: EndpointConfig) -> tuple[bool, ...]:
    """On a disk, what is verified is done."""
    return (False, True) if place.kind is EndpointKind.TAPE else ()


_STAGES = {ReplicaState.WANTED: "to", ReplicaState.COPIED: "check at", ReplicaState.VERIFIED: "tape at"}
_WORDS = {
    ReplicaState.WANTED: "to be brought to {place}",
    ReplicaState.COPIED: "stored at {place}, and not verified",
    ReplicaState.VERIFIED: "stored at {place}, and not on tape",
}


def _runs(config: Config) -> Iterator[_Stage]:
    limits, release = config.alarms, config.release
    whole = timedelta(hours=limits.move_hours + limits.tape_hours)
    yield _Stage("safe", "closed, and not safe", _RUNS, ("planned",), whole, run="number")
    if release.automatic:
        kept = timedelta(hours=release.retention_hours + limits.release_hours)
        yield _Stage("release", "safe, and its local files are not released", _RUNS, ("safe",), kept, run="number")


def _jobs(config: Config) -> Iterator[_Stage]:
    limits, reco = config.alarms, config.reco
    if reco is None:
        return
    for kind in reco.kinds:
        job = config.job.of(kind)
        at_work = timedelta(seconds=reco.queue_seconds + (job.wall_seconds if job else 0)) + _BATCH_MARGIN
        for of_campaign in (False, True):
            also = " of campaigns" if of_campaign else ""
            wanted = limits.backlog_hours if of_campaign else limits.job_hours
            for state, words, expected in (
                (JobState.WANTED, "to be submitted", timedelta(hours=wanted)),
                (JobState.SUBMITTED, "at the batch system", at_work),
                (JobState.COLLECTED, "done, and its output not proven", timedelta(hours=limits.job_hours)),
            ):
                yield _Stage(
                    f"{kind} {state}{also}",
                    f"its {kind} job{also} is {words}",
                    _JOBS,
                    (state, kind, of_campaign),
                    expected,
                    run="job.run",
                    since="job.since",
                )
