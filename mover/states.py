"""The states of a run, of a replica, of a job and of a campaign, as tables: state, event, next state, effect.

Rows without a next state are forbidden and say why. docs/architecture.md shows these tables and the diagrams made from
them. In-flight work is a claim (catalogue.claims), never a state.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from mover.errors import StateError


class RunState(StrEnum):
    """What is known of a run that has ended."""

    UNKNOWN = "unknown"
    QUARANTINED = "quarantined"
    PLANNED = "planned"
    SAFE = "safe"
    RELEASED = "released"
    DISMISSED = "dismissed"


class RunEvent(StrEnum):
    """What can happen to a run."""

    COMPLETE = "found complete"
    INCOMPLETE = "found incomplete"
    FORCED = "forced by a person"
    POLICY_HOLDS = "replica policy holds"
    FILES_REMOVED = "local files removed"
    REPLICA_LOST = "replica lost"
    FOUND_STORED = "found on the storage only"
    FOUND_BOTH = "found on the storage and here"
    POLICY_CHANGED = "the policy asks for more"
    HELD = "quarantined by a person"
    LET_GO = "let go on by a person"
    DISMISSED = "dismissed by a person"


class ReplicaState(StrEnum):
    """What has been proven of a replica, in this order."""

    WANTED = "wanted"
    COPIED = "copied"
    VERIFIED = "verified"
    ARCHIVED = "archived"
    QUARANTINED = "quarantined"


class ReplicaEvent(StrEnum):
    """What can happen to a replica."""

    UPLOADED = "uploaded or adopted"
    CHECKED = "size and checksum agree"
    REJECTED = "size or checksum differ"
    MISSING = "file missing"
    ON_TAPE = "on tape"
    GAVE_UP = "needs a person"
    RETRIED = "retried by a person"


class JobState(StrEnum):
    """What has been proven of a job, in this order. That it ended well says nothing: its output counts."""

    WANTED = "wanted"
    SUBMITTED = "submitted"
    COLLECTED = "collected"
    PROVEN = "proven"
    QUARANTINED = "quarantined"
    CANCELLED = "cancelled"


#: The custody record with which a job begins.
JOB_WANTED = "job wanted"


class JobEvent(StrEnum):
    """What can happen to a job."""

    SUBMITTED = "job submitted"
    FAILED = "job failed for now"
    OUTPUT_TAKEN = "job output taken"
    OUTPUT_FOUND = "job output found"
    OUTPUT_PROVEN = "job output proven"
    GAVE_UP = "job needs a person"
    RETRIED = "job retried by a person"
    CANCELLED = "job cancelled by a person"


class CampaignState(StrEnum):
    """Where a campaign is: many jobs that a person wants."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    FINISHED = "finished"
    CANCELLED = "cancelled"


#: The record with which a campaign begins.
CAMPAIGN_CREATED = "created"


class CampaignEvent(StrEnum):
    """What can happen to a campaign."""

    STARTED = "started"
    PAUSED = "paused"
    RESUMED = "resumed"
    CANCELLED = "cancelled"
    FINISHED = "nothing left"
    TAKEN_UP = "taken up again"


S = TypeVar("S", bound=StrEnum)
E = TypeVar("E", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class Row(Generic[S, E]):
    """One row of a state table; `after` is None where the event is forbidden and `note` says why."""

    before: S
    event: E
    after: S | None
    note: str


RUN_TABLE: tuple[Row[RunState, RunEvent], ...] = (
    Row(RunState.UNKNOWN, RunEvent.COMPLETE, RunState.PLANNED, "parts, bundle plan and wanted replicas are recorded"),
    Row(RunState.UNKNOWN, RunEvent.FORCED, RunState.PLANNED, "the findings go into the manifest"),
    Row(RunState.UNKNOWN, RunEvent.INCOMPLETE, RunState.QUARANTINED, "the reason is recorded; nothing is moved"),
    Row(RunState.QUARANTINED, RunEvent.COMPLETE, RunState.PLANNED, "closed again after a person mended it"),
    Row(RunState.QUARANTINED, RunEvent.FORCED, RunState.PLANNED, "the findings go into the manifest"),
    Row(RunState.QUARANTINED, RunEvent.INCOMPLETE, RunState.QUARANTINED, "the newer reason is recorded"),
    Row(RunState.PLANNED, RunEvent.POLICY_HOLDS, RunState.SAFE, "enough proven replicas at enough sites"),
    Row(RunState.SAFE, RunEvent.FILES_REMOVED, RunState.RELEASED, "after one more look at the storage itself"),
    Row(RunState.PLANNED, RunEvent.FORCED, RunState.PLANNED, "planned anew, while nothing of it is stored anywhere"),
    Row(RunState.SAFE, RunEvent.REPLICA_LOST, RunState.PLANNED, "until the policy holds again"),
    Row(RunState.SAFE, RunEvent.POLICY_CHANGED, RunState.PLANNED, "until the new policy holds"),
    Row(RunState.UNKNOWN, RunEvent.FOUND_STORED, RunState.RELEASED, "adopted or rebuilt: its files are not here"),
    Row(RunState.UNKNOWN, RunEvent.FOUND_BOTH, RunState.PLANNED, "rebuilt: its files are still here"),
    Row(RunState.PLANNED, RunEvent.HELD, RunState.QUARANTINED, "nothing more of it is moved, submitted or released"),
    Row(RunState.SAFE, RunEvent.HELD, RunState.QUARANTINED, "nothing more of it is moved, submitted or released"),
    Row(RunState.QUARANTINED, RunEvent.LET_GO, RunState.PLANNED, "if it was planned before"),
    Row(RunState.QUARANTINED, RunEvent.DISMISSED, RunState.DISMISSED, "it is no run: no file, and never planned"),
    Row(RunState.DISMISSED, RunEvent.COMPLETE, RunState.PLANNED, "there is a run of that number after all"),
    Row(RunState.DISMISSED, RunEvent.FORCED, RunState.PLANNED, "the findings go into the manifest"),
    Row(RunState.DISMISSED, RunEvent.INCOMPLETE, RunState.QUARANTINED, "the reason is recorded; nothing is moved"),
    Row(RunState.PLANNED, RunEvent.COMPLETE, None, "a run is planned once; other files need a person"),
    Row(RunState.PLANNED, RunEvent.FILES_REMOVED, None, "the local files are the only sure copy"),
    Row(RunState.RELEASED, RunEvent.HELD, None, "its files are gone: there is nothing to hold"),
    Row(RunState.QUARANTINED, RunEvent.POLICY_HOLDS, None, "a person is to look at it first"),
    Row(RunState.QUARANTINED, RunEvent.FILES_REMOVED, None, "a person is to look at it first"),
)

REPLICA_TABLE: tuple[Row[ReplicaState, ReplicaEvent], ...] = (
    Row(ReplicaState.WANTED, ReplicaEvent.UPLOADED, ReplicaState.COPIED, "the name written to is recorded"),
    Row(ReplicaState.WANTED, ReplicaEvent.GAVE_UP, ReplicaState.QUARANTINED, "the reason is recorded"),
    Row(ReplicaState.COPIED, ReplicaEvent.CHECKED, ReplicaState.VERIFIED, "disk: renamed to its final name before"),
    Row(ReplicaState.COPIED, ReplicaEvent.REJECTED, ReplicaState.WANTED, "our wrong file is removed before"),
    Row(ReplicaState.COPIED, ReplicaEvent.MISSING, ReplicaState.WANTED, "uploaded again"),
    Row(ReplicaState.COPIED, ReplicaEvent.GAVE_UP, ReplicaState.QUARANTINED, "the reason is recorded"),
    Row(ReplicaState.VERIFIED, ReplicaEvent.ON_TAPE, ReplicaState.ARCHIVED, "tape endpoints only; checked once more"),
    Row(ReplicaState.VERIFIED, ReplicaEvent.MISSING, ReplicaState.WANTED, "uploaded again"),
    Row(ReplicaState.VERIFIED, ReplicaEvent.GAVE_UP, ReplicaState.QUARANTINED, "the reason is recorded"),
    Row(
        ReplicaState.ARCHIVED,
        ReplicaEvent.MISSING,
        ReplicaState.WANTED,
        "uploaded or copied again",
    ),
    Row(ReplicaState.ARCHIVED, ReplicaEvent.GAVE_UP, ReplicaState.QUARANTINED, "the reason is recorded"),
    Row(ReplicaState.QUARANTINED, ReplicaEvent.RETRIED, ReplicaState.WANTED, "verify and adopt: what is right stays"),
    Row(ReplicaState.WANTED, ReplicaEvent.CHECKED, None, "nothing was written that could be checked"),
    Row(ReplicaState.WANTED, ReplicaEvent.ON_TAPE, None, "bytes on tape that nobody verified prove nothing"),
    Row(ReplicaState.COPIED, ReplicaEvent.ON_TAPE, None, "bytes on tape that nobody verified prove nothing"),
    Row(ReplicaState.VERIFIED, ReplicaEvent.REJECTED, None, "a verified file that changed is not ours to remove"),
    Row(ReplicaState.ARCHIVED, ReplicaEvent.REJECTED, None, "a file on tape is never removed by the mover"),
)

JOB_TABLE: tuple[Row[JobState, JobEvent], ...] = (
    Row(JobState.WANTED, JobEvent.SUBMITTED, JobState.SUBMITTED, "the attempt's name is recorded before it is sent"),
    Row(JobState.WANTED, JobEvent.OUTPUT_FOUND, JobState.COLLECTED, "a catalogue made again: its proof is made again"),
    Row(JobState.WANTED, JobEvent.GAVE_UP, JobState.QUARANTINED, "the reason is recorded"),
    Row(JobState.WANTED, JobEvent.CANCELLED, JobState.CANCELLED, "nothing runs"),
    Row(JobState.SUBMITTED, JobEvent.OUTPUT_TAKEN, JobState.COLLECTED, "its digests are recorded before any upload"),
    Row(JobState.SUBMITTED, JobEvent.FAILED, JobState.WANTED, "transient, vanished or timed out: again later"),
    Row(JobState.SUBMITTED, JobEvent.GAVE_UP, JobState.QUARANTINED, "the reason is recorded, the logs are kept"),
    Row(JobState.SUBMITTED, JobEvent.CANCELLED, JobState.CANCELLED, "it is ended in the batch system too"),
    Row(JobState.COLLECTED, JobEvent.OUTPUT_PROVEN, JobState.PROVEN, "the contract holds on the output as stored"),
    Row(JobState.COLLECTED, JobEvent.GAVE_UP, JobState.QUARANTINED, "what is stored is not what was asked for"),
    Row(JobState.QUARANTINED, JobEvent.RETRIED, JobState.WANTED, "while it has no output"),
    Row(JobState.CANCELLED, JobEvent.RETRIED, JobState.WANTED, "while it has no output"),
    Row(JobState.QUARANTINED, JobEvent.CANCELLED, JobState.CANCELLED, "a person looked at it"),
    Row(JobState.SUBMITTED, JobEvent.OUTPUT_PROVEN, None, "a job's word is no proof of its output"),
    Row(JobState.COLLECTED, JobEvent.CANCELLED, None, "its output is on its way to the storage"),
    Row(JobState.PROVEN, JobEvent.RETRIED, None, "done again, it is another iteration"),
)

_C, _E = CampaignState, CampaignEvent
CAMPAIGN_TABLE: tuple[Row[CampaignState, CampaignEvent], ...] = (
    Row(_C.CREATED, _E.STARTED, _C.RUNNING, "its jobs are submitted when their turn comes"),
    Row(_C.CREATED, _E.CANCELLED, _C.CANCELLED, "its wanted jobs are cancelled"),
    Row(_C.RUNNING, _E.PAUSED, _C.PAUSED, "nothing more is submitted; what runs goes on to its proof"),
    Row(_C.RUNNING, _E.CANCELLED, _C.CANCELLED, "what is wanted or submitted is cancelled"),
    Row(_C.RUNNING, _E.FINISHED, _C.FINISHED, "every job is proven, cancelled, or needs a person"),
    Row(_C.PAUSED, _E.RESUMED, _C.RUNNING, "as after its start"),
    Row(_C.PAUSED, _E.CANCELLED, _C.CANCELLED, "what is wanted or submitted is cancelled"),
    Row(_C.PAUSED, _E.FINISHED, _C.FINISHED, "what was submitted before has ended, and nothing else was left"),
    Row(_C.FINISHED, _E.TAKEN_UP, _C.RUNNING, "a person has retried a job of it"),
    Row(_C.PAUSED, _E.STARTED, None, "it was started before: resume it"),
    Row(_C.RUNNING, _E.STARTED, None, "it runs already"),
    Row(_C.CREATED, _E.PAUSED, None, "it was not started"),
    Row(_C.FINISHED, _E.CANCELLED, None, "nothing of it is left"),
    Row(_C.CANCELLED, _E.STARTED, None, "its jobs are cancelled: create another campaign"),
    Row(_C.CANCELLED, _E.RESUMED, None, "its jobs are cancelled: create another campaign"),
)

#: The command that shows the history of what has such a state, if it is not that of a run.
_SHOWN_BY: dict[type[StrEnum], str] = {CampaignState: "campaign status"}


def _next(table: Iterable[Row[S, E]], state: S, event: E, subject: str) -> S:
    row = next((one for one in table if one.before is state and one.event is event), None)
    if row is not None and row.after is not None:
        return row.after
    why = row.note if row else "the state table has no such row"
    raise StateError(
        f"{subject} is {state} and cannot become '{event}': {why}",
        hint=f"look at its history with `mover {_SHOWN_BY.get(type(state), 'run show')}`; "
        "if nobody acted on it, this is a bug",
    )


def next_run_state(state: RunState, event: RunEvent, *, subject: str) -> RunState:
    """The state after `event`.

    Raises:
        StateError: the table forbids it or does not have it.
    """
    return _next(RUN_TABLE, state, event, subject)


def next_replica_state(state: ReplicaState, event: ReplicaEvent, *, subject: str) -> ReplicaState:
    """The state after `event`.

    Raises:
        StateError: the table forbids it or does not have it.
    """
    return _next(REPLICA_TABLE, state, event, subject)


def next_job_state(state: JobState, event: JobEvent, *, subject: str) -> JobState:
    """The state after `event`.

    Raises:
        StateError: the table forbids it or does not have it.
    """
    return _next(JOB_TABLE, state, event, subject)


def next_campaign_state(state: CampaignState, event: CampaignEvent, *, subject: str) -> CampaignState:
    """The state after `event`.

    Raises:
        StateError: the table forbids it or does not have it.
    """
    return _next(CAMPAIGN_TABLE, state, event, subject)
