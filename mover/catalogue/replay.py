"""What the custody records of a run say by themselves: its state, its bundles, their digests and replicas.

The catalogue's tables must say the same (`mover.catalogue.agreement`), and a certificate is made from this alone.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from mover.catalogue.custody import CustodyRecord
from mover.errors import CatalogueError, StateError
from mover.model import BundleKind
from mover.states import (
    JOB_WANTED,
    JobEvent,
    JobState,
    ReplicaEvent,
    ReplicaState,
    RunEvent,
    RunState,
    next_job_state,
    next_replica_state,
    next_run_state,
)

_PROVEN = (ReplicaState.COPIED, ReplicaState.VERIFIED, ReplicaState.ARCHIVED)
_REPLICA_EVENTS = {event.value: event for event in ReplicaEvent}
_RUN_EVENTS = {event.value: event for event in RunEvent}
_JOB_EVENTS = {event.value: event for event in JobEvent}
_KINDS = {kind.value: kind for kind in BundleKind}

Members = dict[str, dict[str, str]]
"""Digests by algorithm, by member name."""


@dataclass(slots=True)
class ReplicaStory:
    """A replica as the records have it; `proofs` are the records on which its state rests, by the state they gave."""

    endpoint: str
    state: ReplicaState = ReplicaState.WANTED
    url: str | None = None
    proofs: dict[ReplicaState, CustodyRecord] = field(default_factory=dict)

    @property
    def proven(self) -> bool:
        """Whether its bytes were verified, and nothing since says otherwise."""
        return ReplicaState.VERIFIED in self.proofs

    def apply(self, record: CustodyRecord, event: ReplicaEvent) -> None:
        """Go on with the next record of this replica."""
        self.state = next_replica_state(self.state, event, subject=f"the replica at {self.endpoint}")
        if self.state in _PROVEN:
            self.proofs[self.state] = record
            self.url = _optional_text(record, "url") or self.url
        else:
            self.proofs, self.url = {}, None


@dataclass(slots=True)
class BundleStory:
    """A bundle as the records have it. `adler32` and `members` are None until its digests are recorded."""

    lfn: str
    kind: BundleKind
    size_bytes: int
    adler32: str | None = None
    members: Members | None = None
    replicas: dict[str, ReplicaStory] = field(default_factory=dict)


@dataclass(slots=True)
class RunStory:
    """A run as the records have it: `safe` and `released` are the records on which that rests."""

    run: int
    state: RunState = RunState.UNKNOWN
    bundles: dict[str, BundleStory] = field(default_factory=dict)
    jobs: dict[str, JobState] = field(default_factory=dict)
    safe: CustodyRecord | None = None
    released: CustodyRecord | None = None
    unproven_release: bool = False

    def want(self, lfn: str, endpoint: str) -> None:
        """Take note of a replica that is wanted: no record need speak of it yet.

        Raises:
            KeyError: the records do not have the bundle.
        """
        self.bundles[lfn].replicas.setdefault(endpoint, ReplicaStory(endpoint))

    def apply(self, record: CustodyRecord) -> None:
        """Go on with the next record."""
        facts = record.facts
        if "endpoint" in facts:
            if event := _REPLICA_EVENTS.get(record.event):
                self._replica(record).apply(record, event)
            return
        if "job" in facts:
            self._job(record)
        if "lfn" in facts and "size_bytes" in facts:
            self._plan(record)
        if "members" in facts and "adler32" in facts:
            bundle = self._bundle(record)
            bundle.adler32, bundle.members = _text(record, "adler32"), _members(record)
        if run_event := _RUN_EVENTS.get(record.event):
            self.state = next_run_state(self.state, run_event, subject=f"run {self.run}")
            if run_event is RunEvent.POLICY_HOLDS:
                self.safe = record
            elif self.state is RunState.PLANNED:
                self.safe = None
            elif run_event is RunEvent.FILES_REMOVED:
                self.released = record
                self.unproven_release = not any(
                    replica.proven for bundle in self.bundles.values() for replica in bundle.replicas.values()
                )

    def _job(self, record: CustodyRecord) -> None:
        job = _text(record, "job")
        if record.event == JOB_WANTED:
            self.jobs[job] = JobState.WANTED
        elif event := _JOB_EVENTS.get(record.event):
            if job not in self.jobs:
                raise _strange(record, "a job that was never wanted")
            self.jobs[job] = next_job_state(self.jobs[job], event, subject=f"the {job}")

    def _plan(self, record: CustodyRecord) -> None:
        kind = _KINDS.get(_optional_text(record, "kind") or BundleKind.RAW)
        size_bytes = record.facts["size_bytes"]
        if kind is None or not isinstance(size_bytes, int) or isinstance(size_bytes, bool):
            raise _strange(record, "kind or size_bytes")
        if kind is BundleKind.RAW:
            # Planned anew, while nothing of the earlier plan was stored.
            self.bundles = {lfn: one for lfn, one in self.bundles.items() if one.kind is not BundleKind.RAW}
        lfn = _text(record, "lfn")
        self.bundles[lfn] = BundleStory(lfn, kind, size_bytes)

    def _bundle(self, record: CustodyRecord) -> BundleStory:
        lfn = _optional_text(record, "lfn")
        for bundle in self.bundles.values():
            if bundle.lfn == lfn or (lfn is None and bundle.kind is BundleKind.RAW):
                return bundle
        raise _strange(record, "a bundle that was never planned")

    def _replica(self, record: CustodyRecord) -> ReplicaStory:
        endpoint = _text(record, "endpoint")
        return self._bundle(record).replicas.setdefault(endpoint, ReplicaStory(endpoint))


def replay(run: int, records: Iterable[CustodyRecord]) -> RunStory:
    """The run as its records, oldest first, have it.

    Raises:
        CatalogueError: a record says what the state table forbids, or lacks what it must have.
    """
    story = RunStory(run)
    for record in records:
        try:
            story.apply(record)
        except StateError as error:
            raise CatalogueError(
                f"custody record {record.seq}: {error.message}",
                hint="the catalogue was changed outside the mover, or this is a bug: please report it",
            ) from error
    return story


def _text(record: CustodyRecord, name: str) -> str:
    value = record.facts.get(name)
    if not isinstance(value, str):
        raise _strange(record, name)
    return value


def _optional_text(record: CustodyRecord, name: str) -> str | None:
    return None if record.facts.get(name) is None else _text(record, name)


def _members(record: CustodyRecord) -> Members:
    members = record.facts["members"]
    if not isinstance(members, dict):
        raise _strange(record, "members")
    for digests in members.values():
        if not isinstance(digests, dict) or not all(isinstance(value, str) for value in digests.values()):
            raise _strange(record, "members")
    return members


def _strange(record: CustodyRecord, what: str) -> CatalogueError:
    return CatalogueError(
        f"custody record {record.seq} ('{record.event}') speaks of {what} in a way that the mover does not write",
        hint="the catalogue was changed outside the mover, or written by another release",
    )
