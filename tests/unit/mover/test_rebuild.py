"""A catalogue that is made again from the storage says what is proven there, and no more."""

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from mover.audit.choose import Choice
from mover.catalogue import custody
from mover.catalogue.agreement import disagreements
from mover.catalogue.database import Database
from mover.catalogue.replicas import replicas_of
from mover.catalogue.runs import BundleRecord, bundle_of, record_run_event
from mover.errors import ConfigError, EndpointUnavailableError, NotSafeError, RunChangedError
from mover.model import ChecksumKind
from mover.naming import LfnNaming, Step, Template
from mover.states import ReplicaState, RunEvent, RunState
from mover.steps.close import Closed, close_run
from mover.steps.look import look_again
from mover.steps.rebuild import Rebuilt, rebuild_run
from mover.steps.release import release_run
from mover.steps.stored import Patience, Sites
from mover.steps.walk import stored_runs
from mover.storage.memory import MemoryEndpoint
from tests.unit.mover.auditing import audited
from tests.unit.mover.bench import LFN, NOW, RUN, Bench, FixedClock
from tests.unit.mover.running import known, replica, work
from tests.unit.mover.test_adopt import BUNDLE, OLD
from tests.unit.mover.test_adopt import LFN as OLD_LFN

LATER = NOW + timedelta(days=1)


@pytest.fixture
def lost(bench: Bench, tmp_path: Path) -> Iterator[Bench]:
    """A safe run whose catalogue is lost: `bench.catalogue` is a new, empty one, `bench.old` what was."""
    bench.make_safe()
    bench.config = bench.config.model_copy(update={"catalogue": tmp_path / "new.sqlite"})
    old, bench.catalogue = bench.catalogue, Database(bench.config.catalogue, create=True)
    yield bench
    old.close()


@pytest.fixture
def released(lost: Bench) -> Bench:
    """The same, without its local files."""
    for file in lost.config.runs.directory.iterdir():
        file.unlink()
    return lost


def rebuild(bench: Bench, run: int = RUN, *, deep: bool = False) -> Rebuilt:
    """What `mover catalogue rebuild` does for a run."""
    sites = Sites(bench.config, bench.endpoints, Patience(0.0, time.sleep))
    rebuilt = rebuild_run(bench.catalogue, bench.config, sites, run, deep=deep, now=LATER)
    assert rebuilt is not None
    assert list(disagreements(bench.catalogue)) == []
    custody.verify(bench.catalogue)
    return rebuilt


def states(bench: Bench) -> dict[str, ReplicaState]:
    """The run's replicas."""
    return {one.endpoint: one.state for one in replicas_of(bench.catalogue, RUN)}


def bundle(database: Database) -> BundleRecord:
    """The run's bundle."""
    found = bundle_of(database, RUN)
    assert found is not None
    return found


def spoil(endpoint: MemoryEndpoint, at: int = 3000) -> None:
    """Change a byte of what is stored."""
    data = bytearray(endpoint.content(LFN))
    data[at] ^= 1
    endpoint.remove(LFN)
    endpoint.upload(LFN, [bytes(data)], len(data))


def test_a_released_run_is_what_it_was_but_for_the_fractions_of_seconds(bench: Bench, tmp_path: Path) -> None:
    bench.make_safe()
    release_run(bench.catalogue, bench.config, RUN, bench.endpoints, clock=FixedClock())
    before, was = bundle(bench.catalogue), replicas_of(bench.catalogue, RUN)
    bench.config = bench.config.model_copy(update={"catalogue": tmp_path / "new.sqlite"})
    bench.catalogue = Database(bench.config.catalogue, create=True)
    for deep in (False, True):
        if deep:
            bench.config = bench.config.model_copy(update={"catalogue": tmp_path / "deep.sqlite"})
            bench.catalogue = Database(bench.config.catalogue, create=True)
        rebuilt = rebuild(bench, deep=deep)
        assert (rebuilt.state, rebuilt.troubles, rebuilt.unasked) == (RunState.RELEASED, (), ())
        after = bundle(bench.catalogue)
        assert before.plan is not None
        assert after.plan is not None
        whole_seconds = tuple(replace(part, mtime_ns=part.mtime_ns // 10**9 * 10**9) for part in before.plan.parts)
        assert after.plan == replace(before.plan, parts=whole_seconds)
        assert (after.lfn, after.kind, after.size_bytes, after.digest) == (
            before.lfn,
            before.kind,
            before.size_bytes,
            before.digest,
        )
        assert states(bench) == {one.endpoint: one.state for one in was}
        assert audited(bench, Choice(deep=True)).is_well
    assert custody.records(bench.catalogue, RUN)[0].facts["read_back"] is True


def test_a_run_whose_files_are_here_is_safe_and_can_be_made_again_and_released(lost: Bench) -> None:
    rebuilt = rebuild(lost)
    assert (rebuilt.state, rebuilt.troubles) == (RunState.SAFE, ())
    plan = bundle(lost.catalogue).plan
    assert plan is not None
    assert [part.mtime_ns for part in plan.parts] == [file.stat().st_mtime_ns for file in lost.files]
    lost.endpoints["disk"].remove(LFN)
    assert look_again(lost.catalogue, lost.config, RUN, lost.endpoints, clock=FixedClock(LATER)).lost == ("disk",)
    work(lost, "disk", FixedClock())
    assert states(lost)["disk"] is ReplicaState.VERIFIED
    record_run_event(lost.catalogue, RUN, RunEvent.POLICY_HOLDS, now=LATER)
    release_run(lost.catalogue, lost.config, RUN, lost.endpoints, clock=FixedClock(LATER))
    assert known(lost.catalogue, RUN).state is RunState.RELEASED


def test_a_release_that_was_cut_short_goes_on(lost: Bench) -> None:
    lost.files[0].unlink()
    rebuilt = rebuild(lost)
    assert (rebuilt.state, rebuilt.troubles) == (RunState.SAFE, ())
    release_run(lost.catalogue, lost.config, RUN, lost.endpoints, clock=FixedClock(LATER))


def test_local_files_that_are_not_the_bundles_are_told_and_never_released(lost: Bench) -> None:
    lost.files[1].write_bytes(b"something else")
    rebuilt = rebuild(lost)
    assert rebuilt.state is RunState.SAFE
    assert "04742.001 is not in its bundle like that" in rebuilt.troubles[0]
    assert "04742.001" in str(known(lost.catalogue, RUN).problem)


def test_a_local_file_that_is_no_part_of_its_bundle_is_told_and_never_released(lost: Bench) -> None:
    late = lost.config.runs.directory / "04742.log"
    late.write_bytes(b"what the shift crew wrote")
    rebuilt = rebuild(lost)
    assert rebuilt.state is RunState.SAFE
    assert "04742.log is neither a part nor the marker" in rebuilt.troubles[0]
    with pytest.raises(NotSafeError, match=r"04742\.log"):
        release_run(lost.catalogue, lost.config, RUN, lost.endpoints, clock=FixedClock(LATER))
    # The engine finds the marker, which the new catalogue does not know: that mends nothing.
    with pytest.raises(RunChangedError, match=r"04742\.log"):
        close_run(lost.catalogue, lost.config, RUN, now=LATER, marker_ns=5)
    late.unlink()
    assert close_run(lost.catalogue, lost.config, RUN, now=LATER) is Closed.ALREADY
    release_run(lost.catalogue, lost.config, RUN, lost.endpoints, clock=FixedClock(LATER))


def test_a_file_that_is_no_part_of_a_released_run_needs_a_person(released: Bench) -> None:
    (released.config.runs.directory / "04742.log").write_bytes(b"what the shift crew wrote")
    assert rebuild(released).state is RunState.RELEASED
    assert "04742.log" in str(known(released.catalogue, RUN).problem)
    (released.config.runs.directory / "04742.log").unlink()
    assert close_run(released.catalogue, released.config, RUN, now=LATER) is Closed.RELEASED
    assert known(released.catalogue, RUN).problem is None


def test_what_is_not_there_is_wanted_and_copied_by_the_engine(released: Bench) -> None:
    data = released.endpoints["disk"].content(LFN)
    released.endpoints["disk"].remove(LFN)
    assert rebuild(released).state is RunState.RELEASED
    assert states(released) == {"tape": ReplicaState.ARCHIVED, "disk": ReplicaState.WANTED}
    work(released, "disk", FixedClock())
    assert released.endpoints["disk"].content(LFN) == data


def test_temporary_names_of_earlier_days_are_not_used_again(released: Bench) -> None:
    released.endpoints["disk"].remove(LFN)
    old = f"{LFN}.mover-1.part"
    released.endpoints["disk"].upload(old, [b"half"], 4)
    rebuild(released)
    work(released, "disk", FixedClock())
    assert states(released)["disk"] is ReplicaState.VERIFIED
    assert released.endpoints["disk"].content(old) == b"half"
    assert replica(released, RUN, "disk").uploads > 10**9


@pytest.mark.parametrize("bad", ["tape", "disk"])
def test_where_two_differ_they_are_read_and_the_wrong_one_needs_a_person(released: Bench, bad: str) -> None:
    spoil(released.endpoints[bad])
    rebuilt = rebuild(released)
    good = {"tape": ReplicaState.ARCHIVED, "disk": ReplicaState.VERIFIED}
    assert states(released) == {**good, bad: ReplicaState.QUARANTINED}
    assert "04742.000: sha256 is" in rebuilt.troubles[0]


class StaleChecksum(MemoryEndpoint):
    """As a server that remembers the checksum of what was there before."""

    remembered = ""

    def checksum(self, path: str, kind: ChecksumKind, *, size_bytes: int = 0) -> str:  # noqa: ARG002 - the port's
        """What it remembers."""
        return self.remembered


def _make_stale(bench: Bench, at: int) -> None:
    disk = bench.endpoints["disk"]
    stale = StaleChecksum(name="disk")
    stale.remembered = disk.checksum(LFN, ChecksumKind.ADLER32)
    stale.upload(LFN, [disk.content(LFN)], len(disk.content(LFN)))
    spoil(stale, at)
    bench.endpoints["disk"] = stale


def test_a_stale_checksum_is_found_out_by_reading(released: Bench) -> None:
    _make_stale(released, 3000)
    rebuild(released, deep=True)
    assert states(released) == {"tape": ReplicaState.ARCHIVED, "disk": ReplicaState.QUARANTINED}


def test_a_replica_with_a_damaged_end_is_read_and_not_believed(released: Bench) -> None:
    data = released.endpoints["disk"].content(LFN)
    _make_stale(released, data.rindex(b"experiment"))
    rebuilt = rebuild(released)
    assert states(released) == {"tape": ReplicaState.ARCHIVED, "disk": ReplicaState.QUARANTINED}
    assert any("manifest" in text for text in rebuilt.troubles)


def test_a_replica_of_another_size_needs_a_person(released: Bench) -> None:
    disk = released.endpoints["disk"]
    data = disk.content(LFN)
    disk.remove(LFN)
    disk.upload(LFN, [data, b"\0" * 10240], len(data) + 10240)
    rebuild(released)
    assert states(released) == {"tape": ReplicaState.ARCHIVED, "disk": ReplicaState.QUARANTINED}


def test_a_run_of_which_nothing_is_right_is_not_entered(released: Bench) -> None:
    for endpoint, at in (("tape", 3000), ("disk", 3001)):
        spoil(released.endpoints[endpoint], at)
    rebuilt = rebuild(released)
    assert rebuilt.state is None
    assert len(rebuilt.troubles) == 2
    assert released.catalogue.query("SELECT * FROM run") == []


def test_a_bundle_of_another_experiment_is_not_entered(released: Bench) -> None:
    released.config = released.config.model_copy(update={"experiment": "NA62"})
    rebuilt = rebuild(released)
    assert rebuilt.state is None
    assert "is of run 4742 of 'MICE'" in rebuilt.troubles[0]


def test_a_bundle_of_others_is_adopted(released: Bench) -> None:
    released.endpoints["tape"].upload(OLD_LFN, [BUNDLE], len(BUNDLE))
    rebuilt = rebuild(released, OLD)
    assert rebuilt.state is RunState.RELEASED
    assert dict(rebuilt.replicas)["tape"] is ReplicaState.ARCHIVED


def test_an_endpoint_that_does_not_answer_is_left_to_the_engine(released: Bench) -> None:
    released.endpoints["disk"].fail_next(EndpointUnavailableError("down", hint="wait"), "stat")
    rebuilt = rebuild(released)
    assert rebuilt.unasked == ("disk: down",)
    assert states(released) == {"tape": ReplicaState.ARCHIVED, "disk": ReplicaState.WANTED}
    work(released, "disk", FixedClock())
    assert states(released)["disk"] is ReplicaState.VERIFIED
    assert replica(released, RUN, "disk").uploads == int(LATER.timestamp())


def test_what_is_on_tape_only_is_brought_online_for_its_manifest(released: Bench) -> None:
    released.endpoints["disk"].remove(LFN)
    released.endpoints["tape"].evicted.add(LFN)
    assert rebuild(released).state is RunState.RELEASED
    assert states(released)["tape"] is ReplicaState.ARCHIVED


def test_what_nobody_has_is_nothing_but_silence_is_told(lost: Bench) -> None:
    sites = Sites(lost.config, lost.endpoints, Patience(0.0, time.sleep))
    assert rebuild_run(lost.catalogue, lost.config, sites, 99, deep=False, now=LATER) is None
    lost.endpoints["tape"].fail_next(EndpointUnavailableError("down", hint="wait"), "stat")
    assert rebuild(lost, 99) == Rebuilt(99, None, unasked=("tape: down",))


def naming(text: str, *steps: Step) -> LfnNaming:
    """As `[bundle]` gives it."""
    template = Template.parse(text, required={"run"}, optional=frozenset({"century", "step"}))
    return LfnNaming(template, steps)


def test_the_walk_finds_bundles_by_the_template_and_nothing_else() -> None:
    endpoint = MemoryEndpoint(name="disk")
    for path in (
        "MICE/Step1/04700/04742.tar",
        "MICE/Step4/05900/05901.tar",
        "MICE/Step1/04700/04742.tar.mover-1.part",
        "MICE/Step1/04700/4743.tar",
        "MICE/Step1/04800/04744.tar",
        "MICE/Step1/other/04745.tar",
        "MICE/Step2/04700/04746.tar",
        "MICE/Step1/04700/deeper/04747.tar",
        "RECO/Step1/04700/04748.tar",
    ):
        endpoint.upload(path, [b"x"], 1)
    steps = (Step("Step1", 0), Step("Step4", 5889))
    assert stored_runs(endpoint, naming("MICE/{step}/{century:05d}/{run:05d}.tar", *steps)) == {4742, 5901}
    assert stored_runs(endpoint, naming("RECO/Step1/{century:05d}/{run:05d}.tar")) == {4748}
    assert stored_runs(endpoint, naming("nothing/{run:05d}/{run:05d}.tar")) == set()
    with pytest.raises(ConfigError, match="without a folder"):
        stored_runs(endpoint, naming("{run:05d}.tar"))
