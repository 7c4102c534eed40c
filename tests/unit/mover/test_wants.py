"""A policy that changes later: what it wants of old runs, and nothing that it takes away."""

import pytest

from mover.catalogue.replicas import replicas_of
from mover.config import Config
from mover.states import ReplicaState, RunState
from mover.steps.release import release_run
from mover.steps.transfer import transfer
from mover.steps.verify import verify
from mover.steps.wants import NewWants, apply_policy, plan_policy
from mover.storage.memory import MemoryEndpoint
from tests.unit.mover.bench import LFN, NOW, RUN, Bench, FixedClock
from tests.unit.mover.running import events, known


def _with_another_disk(config: Config, **policy: object) -> Config:
    extra = config.places["disk"].model_copy(update={"name": "extra", "url": "davs://e/f"})
    raw = config.policy.raw.model_copy(update=policy)
    changed = {"endpoint": (*config.endpoint, extra), "policy": config.policy.model_copy(update={"raw": raw})}
    return config.model_copy(update=changed)


@pytest.fixture
def bench(bench: Bench) -> Bench:
    """A safe run; the policy asks for a second disk now."""
    bench.make_safe()
    bench.config = _with_another_disk(bench.config, disks=2)
    bench.endpoints["extra"] = MemoryEndpoint(name="extra")
    return bench


def test_the_plan_shows_what_is_new_and_changes_nothing(bench: Bench) -> None:
    before = list(bench.catalogue.query("SELECT * FROM custody"))
    found = plan_policy(bench.catalogue, bench.config)
    assert [(want.bundle.lfn, want.endpoints) for want in found.wants] == [(LFN, ("extra",))]
    assert found.unsafe == (RUN,)
    assert [one.endpoint for one in replicas_of(bench.catalogue, RUN)] == ["tape", "disk"]
    assert list(bench.catalogue.query("SELECT * FROM custody")) == before


def test_what_is_applied_is_wanted_once_as_backlog(bench: Bench) -> None:
    for _ in range(2):
        apply_policy(bench.catalogue, plan_policy(bench.catalogue, bench.config), now=NOW)
    (extra,) = [one for one in replicas_of(bench.catalogue, RUN) if one.endpoint == "extra"]
    assert (extra.state, extra.backlog) == (ReplicaState.WANTED, True)
    assert known(bench.catalogue, RUN).state is RunState.PLANNED
    assert events(bench, RUN).count("replica wanted by a later policy") == 1
    assert events(bench, RUN).count("the policy asks for more") == 1
    found = plan_policy(bench.catalogue, bench.config)
    assert (found.wants, found.unsafe) == ((), ())


def test_a_plan_that_is_applied_late_does_no_harm(bench: Bench) -> None:
    old = plan_policy(bench.catalogue, bench.config)
    apply_policy(bench.catalogue, old, now=NOW)
    bench.step(transfer, "extra")
    bench.step(verify, "extra")
    apply_policy(bench.catalogue, old, now=NOW)
    assert bench.state("extra") is ReplicaState.VERIFIED


def test_a_released_run_gets_its_new_replica_from_a_stored_one(bench: Bench) -> None:
    asked = bench.config
    bench.config = _with_another_disk(bench.config, disks=1, endpoints=("tape", "disk"))
    release_run(bench.catalogue, bench.config, RUN, bench.endpoints, clock=FixedClock())
    bench.config = asked
    found = plan_policy(bench.catalogue, bench.config)
    assert [want.endpoints for want in found.wants] == [("extra",)]
    assert found.unsafe == ()
    apply_policy(bench.catalogue, found, now=NOW)
    bench.step(transfer, "extra")
    assert bench.step(verify, "extra") is ReplicaState.VERIFIED
    assert bench.endpoints["extra"].content(LFN) == bench.endpoints["disk"].content(LFN)


def test_an_endpoint_that_is_taken_out_keeps_its_files_but_does_not_count(bench: Bench) -> None:
    bench.config = _with_another_disk(bench.config, disks=1, endpoints=("tape", "extra"))
    found = plan_policy(bench.catalogue, bench.config)
    assert found.unsafe == (RUN,)
    assert [want.endpoints for want in found.wants] == [("extra",)]
    apply_policy(bench.catalogue, found, now=NOW)
    assert bench.endpoints["disk"].stat(LFN) is not None
    assert isinstance(found.wants[0], NewWants)
