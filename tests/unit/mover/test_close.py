"""Closing a run: incomplete, forced, a second time, planned anew."""

import os

import pytest

from mover.bundle.stream import BundleReader, read_through
from mover.catalogue.replicas import (
    replicas_of,
)
from mover.catalogue.runs import bundle_of, find_run, record_digest
from mover.errors import (
    CatalogueError,
    LfnTakenError,
    NotSafeError,
    RunChangedError,
    RunIncompleteError,
    StateError,
)
from mover.states import ReplicaState, RunState
from mover.steps.close import Closed, close_run
from mover.steps.release import release_run
from mover.steps.transfer import transfer
from mover.steps.verify import verify
from tests.unit.mover.bench import NOW, RUN, Bench, FixedClock
from tests.unit.mover.running import events, known


def test_an_incomplete_run_is_quarantined_mended_and_closed(bench: Bench) -> None:
    hidden = bench.files[1].rename(bench.files[1].with_name("hidden"))
    with pytest.raises(RunIncompleteError, match="END_OF_RUN"):
        bench.close_run()
    run = find_run(bench.catalogue, RUN)
    assert run is not None
    assert run.state is RunState.QUARANTINED
    assert run.problem
    assert "END_OF_RUN" in run.problem
    assert replicas_of(bench.catalogue, RUN) == []
    hidden.rename(bench.files[1])
    assert bench.close_run() is Closed.PLANNED
    run = find_run(bench.catalogue, RUN)
    assert run is not None
    assert (run.state, run.problem) == (RunState.PLANNED, None)


def test_an_incomplete_run_can_be_forced_and_says_so_in_its_manifest(bench: Bench) -> None:
    bench.files[1].unlink()
    assert bench.close_run(force=True) is Closed.PLANNED
    bundle = bundle_of(bench.catalogue, RUN)
    assert bundle is not None
    assert bundle.plan is not None
    assert bundle.plan.findings == ("there is no END_OF_RUN event",)


def test_a_strange_file_of_a_closed_run_is_told_at_its_second_end(bench: Bench) -> None:
    bench.close_run()
    (bench.config.runs.directory / "04742.tmp").touch()
    with pytest.raises(RunChangedError, match=r"04742\.tmp is neither a part nor the marker"):
        bench.close_run()


def test_a_second_end_of_run_with_the_same_files_changes_nothing_and_with_others_is_refused(bench: Bench) -> None:
    bench.close_run()
    planned = bundle_of(bench.catalogue, RUN)
    assert bench.close_run() is Closed.ALREADY
    bench.files[0].write_bytes(bench.files[0].read_bytes() + b"")
    with pytest.raises(RunChangedError, match="second time"):
        bench.close_run()
    assert bundle_of(bench.catalogue, RUN) == planned
    run = find_run(bench.catalogue, RUN)
    assert run is not None
    assert run.state is RunState.PLANNED
    assert run.problem


def test_what_is_different_the_second_time_is_said(bench: Bench) -> None:
    bench.close_run()
    os.utime(bench.files[0], ns=(0, 0))
    bench.files[1].unlink()
    (bench.config.runs.directory / "04742.007").touch()
    with pytest.raises(RunChangedError, match=r": 04742\.001 is gone, 04742\.007 is new, 04742\.000 has another size"):
        bench.close_run()
    bench.files[1].symlink_to("/etc/passwd")
    with pytest.raises(RunChangedError, match=r"with other files: 04742\.001 is a symlink, not a plain file"):
        bench.close_run()


def test_of_many_files_that_are_different_a_few_are_named(bench: Bench) -> None:
    bench.close_run()
    for part in range(10, 19):
        (bench.config.runs.directory / f"04742.{part:03d}").touch()
    with pytest.raises(RunChangedError, match=r": 04742.010 is new, 04742.011 is new, 04742.012 is new, and 6 more$"):
        bench.close_run()


def test_a_number_that_a_person_mistyped_is_not_kept(bench: Bench) -> None:
    with pytest.raises(RunIncompleteError, match="run 77 has no part in "):
        close_run(bench.catalogue, bench.config, 77, now=NOW)
    assert find_run(bench.catalogue, 77) is None


@pytest.mark.parametrize("by", ["marker", "stray file", "earlier quarantine"])
def test_a_run_that_anybody_but_a_mistyped_command_knows_of_is_quarantined_without_parts(bench: Bench, by: str) -> None:
    stray = bench.config.runs.directory / "00077.tmp"
    if by != "marker":
        stray.touch()
    for _ in range(2):
        with pytest.raises(RunIncompleteError, match="run 77 has no part in "):
            close_run(bench.catalogue, bench.config, 77, now=NOW, marker_ns=1 if by == "marker" else None)
        if by == "earlier quarantine":
            stray.unlink(missing_ok=True)
    assert known(bench.catalogue, 77).state is RunState.QUARANTINED
    assert events(bench, 77) == ["found incomplete", "found incomplete"]


def test_closing_again_with_the_same_files_clears_what_was_wrong(bench: Bench) -> None:
    bench.make_safe()
    stray = bench.config.runs.directory / "04742.002"
    stray.write_bytes(b"")
    with pytest.raises(RunChangedError):
        bench.close_run()
    with pytest.raises(NotSafeError, match="second time"):
        release_run(bench.catalogue, bench.config, RUN, bench.endpoints, clock=FixedClock())
    stray.unlink()
    assert bench.close_run() is Closed.ALREADY
    release_run(bench.catalogue, bench.config, RUN, bench.endpoints, clock=FixedClock())


def test_a_run_that_changed_before_anything_was_stored_can_be_planned_anew(bench: Bench) -> None:
    bench.close_run()
    before = bench.files[1].stat()
    os.utime(bench.files[1], ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    with pytest.raises(RunChangedError):
        bench.step(transfer, "tape")
    with pytest.raises(RunChangedError, match="second time"):
        bench.close_run()
    assert bench.close_run(force=True) is Closed.PLANNED
    assert bench.step(transfer, "tape") is ReplicaState.COPIED
    bench.step(verify, "tape")


def test_what_was_read_by_an_earlier_plan_is_not_taken_for_the_new_one(bench: Bench) -> None:
    """An engine that lost its claim in a long upload ends its reading only when the run has been planned anew."""
    bench.close_run()
    before = bundle_of(bench.catalogue, RUN)
    assert before is not None
    assert before.plan is not None
    reader = BundleReader(before.plan, bench.config.runs.directory)
    read_through(reader.chunks())
    os.utime(bench.files[1], ns=(0, 0))
    assert bench.close_run(force=True) is Closed.PLANNED
    with pytest.raises(StateError, match="planned anew while it was read"):
        record_digest(bench.catalogue, before, reader.digest, now=NOW)
    after = bundle_of(bench.catalogue, RUN)
    assert after is not None
    assert after.digest is None


def test_a_run_is_planned_anew_under_the_lfn_that_the_configuration_gives_now(bench: Bench) -> None:
    bench.close_run()
    naming = bench.config.bundle.model_copy(update={"lfn": "MICE/Step1/{run:05d}.tar"})
    bench.config = bench.config.model_copy(update={"bundle": naming})
    bench.files[1].write_bytes(bench.files[1].read_bytes()[:-32])
    assert bench.close_run(force=True) is Closed.PLANNED
    bundle = bundle_of(bench.catalogue, RUN)
    assert bundle is not None
    assert bundle.plan is not None
    assert bundle.lfn == bundle.plan.lfn == "MICE/Step1/04742.tar"


def test_a_run_of_which_something_is_stored_is_never_planned_anew(bench: Bench) -> None:
    bench.close_run()
    bench.step(transfer, "tape")
    bench.files[1].write_bytes(bench.files[1].read_bytes())
    with pytest.raises(CatalogueError, match="tape has something of it"):
        bench.close_run(force=True)


def test_an_lfn_that_belongs_to_another_run_quarantines_this_one(bench: Bench) -> None:
    bench.close_run()
    bench.spoiled = True
    with bench.catalogue.transaction() as connection:
        connection.execute("UPDATE bundle SET lfn = 'MICE/04743.tar'")
    bench.daq.write_run(RUN + 1, parts=1, part_bytes=5_000)
    with pytest.raises(LfnTakenError):
        close_run(bench.catalogue, bench.config, RUN + 1, now=NOW)
    run = find_run(bench.catalogue, RUN + 1)
    assert run is not None
    assert run.state is RunState.QUARANTINED
