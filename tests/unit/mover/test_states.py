"""The state tables: complete, without contradictions, and the policy over their outcome."""

import itertools

import pytest

from mover.errors import CatalogueError
from mover.model import EndpointKind
from mover.policy import Policy, ProvenReplica, assess
from mover.states import (
    CAMPAIGN_TABLE,
    JOB_TABLE,
    REPLICA_TABLE,
    RUN_TABLE,
    CampaignState,
    JobState,
    ReplicaEvent,
    ReplicaState,
    RunEvent,
    RunState,
    next_replica_state,
    next_run_state,
)


def test_each_pair_of_state_and_event_has_at_most_one_row() -> None:
    for table in (RUN_TABLE, REPLICA_TABLE, JOB_TABLE, CAMPAIGN_TABLE):
        pairs = [(row.before, row.event) for row in table]
        assert len(pairs) == len(set(pairs))
        assert all(row.note for row in table)


def test_what_has_no_row_or_a_forbidden_one_is_refused() -> None:
    allowed = {(row.before, row.event) for row in REPLICA_TABLE if row.after}
    for state, event in itertools.product(ReplicaState, ReplicaEvent):
        if (state, event) not in allowed:
            with pytest.raises(CatalogueError, match="cannot become"):
                next_replica_state(state, event, subject="x")


def test_only_archived_or_verified_bytes_can_ever_make_a_run_releasable() -> None:
    into_released = {(row.before, row.event) for row in RUN_TABLE if row.after is RunState.RELEASED}
    # What is found on the storage only has no local files that could be removed.
    found = (RunState.UNKNOWN, RunEvent.FOUND_STORED)
    assert into_released == {(RunState.SAFE, RunEvent.FILES_REMOVED), found}
    into_archived = {row.before for row in REPLICA_TABLE if row.after is ReplicaState.ARCHIVED}
    assert into_archived == {ReplicaState.VERIFIED}
    into_verified = {row.before for row in REPLICA_TABLE if row.after is ReplicaState.VERIFIED}
    assert into_verified == {ReplicaState.COPIED}


def test_every_state_can_be_reached() -> None:
    for table, first, states in (
        (RUN_TABLE, RunState.UNKNOWN, set(RunState)),
        (REPLICA_TABLE, ReplicaState.WANTED, set(ReplicaState)),
        (JOB_TABLE, JobState.WANTED, set(JobState)),
        (CAMPAIGN_TABLE, CampaignState.CREATED, set(CampaignState)),
    ):
        reached = {first}
        while more := {row.after for row in table if row.before in reached and row.after} - reached:
            reached |= more
        assert reached == states


def test_a_planned_run_is_not_planned_again() -> None:
    with pytest.raises(CatalogueError, match="planned once"):
        next_run_state(RunState.PLANNED, RunEvent.COMPLETE, subject="run 1")


def _tape(site: str, state: ReplicaState = ReplicaState.ARCHIVED) -> ProvenReplica:
    return ProvenReplica(f"{site}-tape", EndpointKind.TAPE, site, state)


def _disk(state: ReplicaState = ReplicaState.VERIFIED) -> ProvenReplica:
    return ProvenReplica("disk", EndpointKind.DISK, "Brunel", state)


def test_policy_counts_proven_replicas_and_distinct_sites_only() -> None:
    policy = Policy(tapes=2, tape_sites=2, disks=1, endpoints=("RAL-tape", "IC-tape", "disk"))
    good = assess(policy, [_tape("RAL"), _tape("IC"), _disk()])
    assert good.holds
    assert str(good) == "safe: 2 tapes at 2 sites, 1 disk"
    for lacking in (
        [_tape("RAL"), _tape("RAL"), _disk()],
        [_tape("RAL"), _tape("IC", ReplicaState.VERIFIED), _disk()],
        [_tape("RAL"), _tape("IC"), _disk(ReplicaState.COPIED)],
        [_tape("RAL"), _tape("IC")],
        [_tape("RAL"), _tape("elsewhere"), _disk()],
    ):
        bad = assess(policy, lacking)
        assert not bad.holds
        assert str(bad).startswith("not safe: lacks 1 ")
