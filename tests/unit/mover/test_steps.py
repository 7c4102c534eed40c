"""The steps of the data way, on the in-memory endpoint: adopt, redo, refuse; and every crash point of a transfer."""

import errno
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mover.bundle.stream import BundleReader
from mover.catalogue.database import Database
from mover.catalogue.replicas import (
    claim_next,
    get_replica,
    record_event,
    record_intent,
    release_claim,
    renew_claim,
    replicas_of,
    retry_replicas,
)
from mover.catalogue.runs import bundle_of, find_run, record_digest, record_run_event
from mover.config import Config
from mover.errors import (
    CatalogueError,
    CredentialError,
    EndpointUnavailableError,
    FileExistsAtEndpointError,
    ForeignFileError,
    LeaseLostError,
    LfnTakenError,
    NotSafeError,
    RunChangedError,
    RunDirectoryError,
    RunIncompleteError,
    VerificationError,
)
from mover.model import BundleDigest
from mover.ports import MayRemove, always
from mover.sandbox.daq import DaqWriter
from mover.states import ReplicaEvent, ReplicaState, RunEvent, RunState
from mover.steps.archive import archive
from mover.steps.close import Closed, close_run
from mover.steps.recheck import want_lost_again
from mover.steps.release import release_run
from mover.steps.transfer import transfer
from mover.steps.verify import verify
from mover.steps.work import Work
from mover.storage.memory import MemoryEndpoint

RUN = 4742
LFN = "MICE/04742.tar"
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class FixedClock:
    """A clock that stands still."""

    def now(self) -> datetime:
        """Always the same moment."""
        return NOW


class RacedEndpoint(MemoryEndpoint):
    """Somebody else writes the same name between our look and our first upload."""

    _raced = False

    def upload(self, path: str, chunks: Iterable[bytes], size_bytes: int, *, may_remove: MayRemove = always) -> None:
        """Theirs first, then ours."""
        if not self._raced:
            self._raced = True
            super().upload(path, [b"their"], 5)
        super().upload(path, chunks, size_bytes, may_remove=may_remove)


class Bench:
    """A closed run, a catalogue, and one tape and one disk in memory."""

    def __init__(self, base: Path) -> None:
        runs = base / "daq"
        runs.mkdir()
        self.daq = DaqWriter(runs)
        self.files = self.daq.write_run(RUN, parts=2, part_bytes=30_000)
        self.daq.end_run(RUN)
        endpoints = [
            {"name": "tape", "site": "RAL", "kind": "tape", "url": "root://a/b"},
            {"name": "disk", "site": "IC", "kind": "disk", "url": "davs://c/d"},
        ]
        self.config = Config.model_validate(
            {
                "experiment": "MICE",
                "catalogue": base / "catalogue.sqlite",
                "runs": {"directory": runs},
                "bundle": {"lfn": "MICE/{run:05d}.tar"},
                "endpoint": endpoints,
                "policy": {"tapes": 1, "tape_sites": 1, "disks": 1},
            }
        )
        self.catalogue = Database(self.config.catalogue, create=True)
        self.endpoints = {"tape": MemoryEndpoint(name="tape", tape=True), "disk": MemoryEndpoint(name="disk")}

    def close_run(self, *, force: bool = False) -> Closed:
        """What `mover run close` does."""
        return close_run(self.catalogue, self.config, RUN, now=NOW, force=force)

    def work(self, endpoint: str) -> Work:
        """A claim on the run's replica at `endpoint`, as a lane would have it."""
        claim = claim_next(self.catalogue, endpoint, list(ReplicaState), owner="a/b/c/1/d", lease=timedelta(1), now=NOW)
        assert claim is not None
        bundle = bundle_of(self.catalogue, RUN)
        assert bundle is not None
        return Work(
            database=self.catalogue,
            claim=claim,
            replica=get_replica(self.catalogue, claim.replica_id),
            bundle=bundle,
            endpoint=self.endpoints[endpoint],
            run_directory=self.config.runs.directory,
            clock=FixedClock(),
            alive=lambda _: None,
        )

    def step(self, act: Callable[[Work], None], endpoint: str) -> ReplicaState:
        """Do one step under a claim of its own; the state after it."""
        work = self.work(endpoint)
        try:
            act(work)
        finally:
            release_claim(self.catalogue, work.claim)
        return self.state(endpoint)

    def state(self, endpoint: str) -> ReplicaState:
        """The state of the run's replica there."""
        return next(one.state for one in replicas_of(self.catalogue, RUN) if one.endpoint == endpoint)

    def make_safe(self) -> None:
        """The whole way."""
        self.close_run()
        for endpoint in ("tape", "disk"):
            self.step(transfer, endpoint)
            self.step(verify, endpoint)
        self.step(poll, "tape")
        record_run_event(self.catalogue, RUN, RunEvent.POLICY_HOLDS, now=NOW)


def poll(work: Work) -> None:
    """The archive step as a lane calls it."""
    archive(work, poll=timedelta(seconds=1))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A run that has ended and is not yet closed."""
    return Bench(tmp_path)


def test_the_whole_way_to_released(bench: Bench) -> None:
    assert bench.close_run() is Closed.PLANNED
    tape, disk = bench.endpoints["tape"], bench.endpoints["disk"]
    assert bench.step(transfer, "tape") is ReplicaState.COPIED
    assert [file.path for file in tape.list("MICE")] == [LFN]
    assert bench.step(verify, "tape") is ReplicaState.VERIFIED
    tape.migrated = lambda _: False
    assert bench.step(poll, "tape") is ReplicaState.VERIFIED
    tape.migrated = lambda _: True
    assert replicas_of(bench.catalogue, RUN)[0].next_attempt_at == NOW + timedelta(seconds=1)
    assert bench.step(transfer, "disk") is ReplicaState.COPIED
    assert [file.path for file in disk.list("MICE")] == [f"{LFN}.mover-1.part"]
    assert bench.step(verify, "disk") is ReplicaState.VERIFIED
    assert [file.path for file in disk.list("MICE")] == [LFN]
    assert tape.content(LFN) == disk.content(LFN)


def test_on_tape_then_safe_then_released(bench: Bench) -> None:
    bench.make_safe()
    assert bench.state("tape") is ReplicaState.ARCHIVED
    assert str(release_run(bench.catalogue, bench.config, RUN, bench.endpoints, now=NOW)).startswith("safe: 1 tape")
    assert list(bench.config.runs.directory.iterdir()) == []
    run = find_run(bench.catalogue, RUN)
    assert run is not None
    assert run.state is RunState.RELEASED


@pytest.mark.parametrize("endpoint", ["tape", "disk"])
def test_what_an_attempt_that_was_not_committed_left_is_adopted(bench: Bench, endpoint: str) -> None:
    """The engine died after the last byte was stored and before it could say so."""
    bench.close_run()
    work = bench.work(endpoint)
    path = LFN if endpoint == "tape" else f"{LFN}.mover-1.part"
    record_intent(bench.catalogue, work.claim, path, now=NOW)
    release_claim(bench.catalogue, work.claim)
    whole = _bundle_bytes(bench)
    bench.endpoints[endpoint].upload(path, [whole], len(whole))
    bench.endpoints[endpoint].fail_next(AssertionError("uploaded again"), "upload")
    assert bench.step(transfer, endpoint) is ReplicaState.COPIED
    assert bench.step(verify, endpoint) is ReplicaState.VERIFIED
    assert [file.path for file in bench.endpoints[endpoint].list("MICE")] == [LFN]


@pytest.mark.parametrize("endpoint", ["tape", "disk"])
@pytest.mark.parametrize("left", ["half", "wrong"])
def test_our_partial_or_wrong_file_is_removed_and_written_again(bench: Bench, endpoint: str, left: str) -> None:
    bench.close_run()
    work = bench.work(endpoint)
    path = LFN if endpoint == "tape" else f"{LFN}.mover-1.part"
    record_intent(bench.catalogue, work.claim, path, now=NOW)
    release_claim(bench.catalogue, work.claim)
    whole = _bundle_bytes(bench)
    bad = whole[: len(whole) // 2] if left == "half" else b"!" + whole[1:]
    bench.endpoints[endpoint].upload(path, [bad], len(bad))
    bench.step(transfer, endpoint)
    bench.step(verify, endpoint)
    assert bench.endpoints[endpoint].content(LFN) == whole
    assert [file.path for file in bench.endpoints[endpoint].list("MICE")] == [LFN]


@pytest.mark.parametrize("endpoint", ["tape", "disk"])
def test_somebody_elses_file_is_never_touched(bench: Bench, endpoint: str) -> None:
    bench.close_run()
    bench.endpoints[endpoint].upload(LFN, [b"theirs"], 6)
    with pytest.raises(ForeignFileError, match="taken by another file"):
        bench.step(transfer, endpoint)
    assert bench.endpoints[endpoint].content(LFN) == b"theirs"
    assert ForeignFileError.permanent


def test_a_larger_file_under_our_intent_is_not_ours(bench: Bench) -> None:
    bench.close_run()
    work = bench.work("tape")
    record_intent(bench.catalogue, work.claim, LFN, now=NOW)
    release_claim(bench.catalogue, work.claim)
    larger = _bundle_bytes(bench) + b"more"
    bench.endpoints["tape"].upload(LFN, [larger], len(larger))
    with pytest.raises(ForeignFileError):
        bench.step(transfer, "tape")
    assert bench.endpoints["tape"].content(LFN) == larger


def test_a_file_that_appears_between_look_and_upload_is_not_taken_for_ours_later(bench: Bench) -> None:
    bench.close_run()
    raced = bench.endpoints["tape"] = RacedEndpoint(name="tape", tape=True)
    with pytest.raises(FileExistsAtEndpointError):
        bench.step(transfer, "tape")
    with pytest.raises(ForeignFileError):
        bench.step(transfer, "tape")
    assert raced.content(LFN) == b"their"


def test_the_right_bundle_that_is_there_already_is_adopted_whoever_wrote_it(bench: Bench) -> None:
    bench.close_run()
    whole = _bundle_bytes(bench)
    for endpoint in ("tape", "disk"):
        bench.endpoints[endpoint].upload(LFN, [whole], len(whole))
        bench.endpoints[endpoint].fail_next(AssertionError("uploaded again"), "upload")
        bench.step(transfer, endpoint)
        assert bench.step(verify, endpoint) is ReplicaState.VERIFIED


@pytest.mark.parametrize("endpoint", ["tape", "disk"])
def test_corruption_at_the_endpoint_is_found_removed_and_made_good(bench: Bench, endpoint: str) -> None:
    bench.close_run()
    bench.step(transfer, endpoint)
    (stored,) = bench.endpoints[endpoint].list("MICE")
    bench.endpoints[endpoint].corrupt(stored.path)
    with pytest.raises(VerificationError, match="adler32"):
        bench.step(verify, endpoint)
    assert bench.state(endpoint) is ReplicaState.WANTED
    assert bench.endpoints[endpoint].list("MICE") == []
    bench.step(transfer, endpoint)
    assert bench.step(verify, endpoint) is ReplicaState.VERIFIED


def test_a_file_that_vanishes_is_uploaded_again(bench: Bench) -> None:
    bench.close_run()
    bench.step(transfer, "tape")
    bench.endpoints["tape"].remove(LFN)
    for look in (verify, poll):
        with pytest.raises(VerificationError, match="is gone although"):
            bench.step(look, "tape")
        assert bench.state("tape") is ReplicaState.WANTED
        bench.step(transfer, "tape")
        bench.step(verify, "tape")
        bench.endpoints["tape"].remove(LFN)


def test_a_crash_between_rename_and_commit_is_recovered(bench: Bench) -> None:
    bench.close_run()
    bench.step(transfer, "disk")
    bench.endpoints["disk"].rename(f"{LFN}.mover-1.part", LFN)
    assert bench.step(verify, "disk") is ReplicaState.VERIFIED


def test_a_foreign_file_under_the_final_name_stops_the_rename(bench: Bench) -> None:
    bench.close_run()
    bench.step(transfer, "disk")
    bench.endpoints["disk"].upload(LFN, [b"theirs"], 6)
    with pytest.raises(ForeignFileError):
        bench.step(verify, "disk")
    assert bench.endpoints["disk"].content(LFN) == b"theirs"


def test_a_tape_copy_that_changed_after_verification_never_counts(bench: Bench) -> None:
    bench.close_run()
    bench.step(transfer, "tape")
    bench.step(verify, "tape")
    bench.endpoints["tape"].corrupt(LFN)
    with pytest.raises(ForeignFileError, match="changed after it was verified"):
        bench.step(poll, "tape")
    assert bench.state("tape") is ReplicaState.VERIFIED


def test_an_endpoint_that_fails_leaves_the_replica_wanted(bench: Bench) -> None:
    bench.close_run()
    bench.endpoints["tape"].fail_next(EndpointUnavailableError("down", hint="wait"), "upload")
    with pytest.raises(EndpointUnavailableError):
        bench.step(transfer, "tape")
    assert bench.state("tape") is ReplicaState.WANTED
    assert bench.endpoints["tape"].list("MICE") == []


def test_a_part_that_changes_between_two_endpoints_stops_the_second(bench: Bench) -> None:
    bench.close_run()
    bench.step(transfer, "tape")
    data = bytearray(bench.files[0].read_bytes())
    data[-1] ^= 1
    before = bench.files[0].stat()
    bench.files[0].write_bytes(data)
    os.utime(bench.files[0], ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(RunChangedError, match="other bytes"):
        bench.step(transfer, "disk")
    assert bench.endpoints["disk"].list("MICE") == []


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
    assert bundle.plan.findings == ("there is no END_OF_RUN event",)


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


def _not_on_tape(bench: Bench) -> None:
    bench.endpoints["tape"].migrated = lambda _: False


def _gone_from_disk(bench: Bench) -> None:
    bench.endpoints["disk"].remove(LFN)


def _corrupt_on_tape(bench: Bench) -> None:
    bench.endpoints["tape"].corrupt(LFN)


def _disk_is_down(bench: Bench) -> None:
    bench.endpoints["disk"].fail_next(EndpointUnavailableError("down", hint="wait"))


@pytest.mark.parametrize("spoil", [_not_on_tape, _gone_from_disk, _corrupt_on_tape, _disk_is_down])
def test_release_asks_the_storage_itself_and_keeps_the_files_if_it_says_no(
    bench: Bench, spoil: Callable[[Bench], None]
) -> None:
    bench.make_safe()
    spoil(bench)
    with pytest.raises(NotSafeError, match="not safe: lacks 1"):
        release_run(bench.catalogue, bench.config, RUN, bench.endpoints, now=NOW)
    assert all(file.exists() for file in bench.files)


def test_a_run_that_is_not_safe_is_not_released(bench: Bench) -> None:
    bench.close_run()
    with pytest.raises(NotSafeError, match="is planned"):
        release_run(bench.catalogue, bench.config, RUN, bench.endpoints, now=NOW)


def test_a_local_file_that_changed_after_bundling_is_not_removed(bench: Bench) -> None:
    bench.make_safe()
    bench.files[1].write_bytes(b"new data that nobody has stored")
    with pytest.raises(RunChangedError, match=r"04742\.001 has another size or time"):
        release_run(bench.catalogue, bench.config, RUN, bench.endpoints, now=NOW)
    assert all(file.exists() for file in bench.files)


def test_a_release_that_was_cut_short_is_finished(bench: Bench) -> None:
    bench.make_safe()
    bench.files[0].unlink()
    release_run(bench.catalogue, bench.config, RUN, bench.endpoints, now=NOW)
    assert list(bench.config.runs.directory.iterdir()) == []


def test_a_replica_that_is_only_believed_does_not_count_for_release(bench: Bench) -> None:
    bench.make_safe()
    bench.config = replace_policy(bench.config, disks=2)
    with pytest.raises(NotSafeError, match="lacks 1 disk"):
        release_run(bench.catalogue, bench.config, RUN, bench.endpoints, now=NOW)


def replace_policy(config: Config, *, disks: int) -> Config:
    """The configuration with a policy that its endpoints do not satisfy (a later change of mind)."""
    return config.model_copy(update={"policy": config.policy.model_copy(update={"disks": disks})})


def _bundle_bytes(bench: Bench) -> bytes:
    bundle = bundle_of(bench.catalogue, RUN)
    assert bundle is not None
    return b"".join(BundleReader(bundle.plan, bench.config.runs.directory).chunks())


def _take_over(bench: Bench) -> None:
    """Another engine claims the tape replica, long after our lease has run out."""
    later = NOW + timedelta(days=2)
    claim = claim_next(bench.catalogue, "tape", list(ReplicaState), owner="other", lease=timedelta(1), now=later)
    assert claim is not None


def test_an_engine_that_lost_its_claim_does_not_remove_what_another_has_proven(bench: Bench) -> None:
    """The first engine sleeps through its lease in an upload; a second one does the whole work; the first wakes up."""
    bench.close_run()
    tape = bench.endpoints["tape"]
    slow = bench.work("tape")
    whole = _bundle_bytes(bench)

    def sleep_through_the_lease(_bytes_done: int) -> None:
        tape.remove(LFN)
        tape.upload(LFN, [whole], len(whole))
        _take_over(bench)
        renew_claim(bench.catalogue, slow.claim, now=NOW)

    with pytest.raises(LeaseLostError):
        transfer(replace(slow, alive=sleep_through_the_lease))
    assert tape.content(LFN) == whole


def test_a_connection_that_breaks_after_the_claim_was_lost_removes_nothing_either(bench: Bench) -> None:
    bench.close_run()
    slow = bench.work("tape")

    def lose_the_claim_and_the_connection(_bytes_done: int) -> None:
        _take_over(bench)
        raise EndpointUnavailableError("connection lost", hint="wait")

    with pytest.raises((EndpointUnavailableError, LeaseLostError)):
        transfer(replace(slow, alive=lose_the_claim_and_the_connection))
    # What was written so far is for the other engine to judge.
    assert [file.path for file in bench.endpoints["tape"].list("MICE")] == [LFN]


def test_a_rejected_file_is_not_removed_by_an_engine_that_lost_its_claim(bench: Bench) -> None:
    bench.close_run()
    bench.step(transfer, "tape")
    bench.endpoints["tape"].corrupt(LFN)
    slow = bench.work("tape")
    _take_over(bench)
    with pytest.raises(LeaseLostError):
        verify(slow)
    assert len(bench.endpoints["tape"].list("MICE")) == 1


def test_a_retry_never_removes_the_file_that_quarantine_protects(bench: Bench) -> None:
    bench.close_run()
    bench.step(transfer, "tape")
    bench.step(verify, "tape")
    bench.endpoints["tape"].corrupt(LFN)
    changed = bench.endpoints["tape"].content(LFN)
    work = bench.work("tape")
    with pytest.raises(ForeignFileError) as caught:
        poll(work)
    record_event(bench.catalogue, work.claim, ReplicaEvent.GAVE_UP, now=NOW, problem=caught.value)
    release_claim(bench.catalogue, work.claim)
    assert retry_replicas(bench.catalogue, RUN, now=NOW) == 1
    with pytest.raises(ForeignFileError):
        bench.step(transfer, "tape")
    assert bench.endpoints["tape"].content(LFN) == changed


@pytest.mark.parametrize("endpoint", ["tape", "disk"])
def test_a_file_that_appears_after_our_upload_failed_is_not_ours(bench: Bench, endpoint: str) -> None:
    bench.close_run()
    bench.endpoints[endpoint].fail_next(EndpointUnavailableError("down", hint="wait"), "upload")
    with pytest.raises(EndpointUnavailableError):
        bench.step(transfer, endpoint)
    bench.endpoints[endpoint].upload(LFN, [b"theirs"], 6)
    with pytest.raises(ForeignFileError):
        bench.step(transfer, endpoint)
    assert bench.endpoints[endpoint].content(LFN) == b"theirs"


def test_the_first_reading_that_was_committed_wins_over_ours(bench: Bench) -> None:
    """Another lane read the bundle while we uploaded other bytes: ours are removed again."""
    bench.close_run()
    work = bench.work("tape")
    bundle = work.bundle
    other = BundleDigest(bundle.size_bytes, "00000001", ())
    record_digest(bench.catalogue, bundle, other, now=NOW)
    with pytest.raises(RunChangedError, match="came out differently"):
        transfer(work)
    assert bench.endpoints["tape"].list("MICE") == []


def test_what_stands_under_the_final_name_is_looked_at_after_the_rename(bench: Bench) -> None:
    bench.close_run()
    bench.step(transfer, "disk")
    disk = bench.endpoints["disk"]
    work = bench.work("disk")

    class Replacing(MemoryEndpoint):
        """Somebody else's file slips in with the rename, as on storage that replaces silently."""

        def rename(self, source: str, target: str) -> None:
            """Rename, and corrupt."""
            super().rename(source, target)
            self.corrupt(target)

    replacing = Replacing(name="disk")
    temporary = f"{LFN}.mover-1.part"
    data = disk.content(temporary)
    replacing.upload(temporary, [data], len(data))
    with pytest.raises(ForeignFileError):
        verify(replace(work, endpoint=replacing))
    assert bench.state("disk") is ReplicaState.COPIED


def test_a_part_that_appears_after_the_run_was_safe_stops_its_release(bench: Bench) -> None:
    bench.make_safe()
    late = bench.config.runs.directory / "04742.002"
    late.write_bytes(b"taken after the end of run")
    with pytest.raises(RunChangedError, match=r"04742\.002"):
        release_run(bench.catalogue, bench.config, RUN, bench.endpoints, now=NOW)
    assert late.exists()
    assert all(file.exists() for file in bench.files)


def test_a_release_waits_for_every_endpoint_that_still_needs_the_files(bench: Bench) -> None:
    bench.config = bench.config.model_copy(
        update={"policy": bench.config.policy.model_copy(update={"disks": 0, "tapes": 1})}
    )
    bench.close_run()
    bench.step(transfer, "tape")
    bench.step(verify, "tape")
    bench.step(poll, "tape")
    record_run_event(bench.catalogue, RUN, RunEvent.POLICY_HOLDS, now=NOW)
    with pytest.raises(NotSafeError, match="disk still needs its files"):
        release_run(bench.catalogue, bench.config, RUN, bench.endpoints, now=NOW)


def test_closing_again_with_the_same_files_clears_what_was_wrong(bench: Bench) -> None:
    bench.make_safe()
    stray = bench.config.runs.directory / "04742.002"
    stray.write_bytes(b"")
    with pytest.raises(RunChangedError):
        bench.close_run()
    with pytest.raises(NotSafeError, match="second time"):
        release_run(bench.catalogue, bench.config, RUN, bench.endpoints, now=NOW)
    stray.unlink()
    assert bench.close_run() is Closed.ALREADY
    release_run(bench.catalogue, bench.config, RUN, bench.endpoints, now=NOW)


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


def test_a_run_of_which_something_is_stored_is_never_planned_anew(bench: Bench) -> None:
    bench.close_run()
    bench.step(transfer, "tape")
    bench.files[1].write_bytes(bench.files[1].read_bytes())
    with pytest.raises(CatalogueError, match="tape has something of it"):
        bench.close_run(force=True)


def test_a_replica_that_is_lost_is_wanted_again_and_the_run_is_not_safe_meanwhile(bench: Bench) -> None:
    bench.make_safe()
    assert want_lost_again(bench.catalogue, bench.config, RUN, bench.endpoints, now=NOW) == []
    bench.endpoints["tape"].remove(LFN)
    assert want_lost_again(bench.catalogue, bench.config, RUN, bench.endpoints, now=NOW) == ["tape"]
    run = find_run(bench.catalogue, RUN)
    assert run is not None
    assert run.state is RunState.PLANNED
    bench.step(transfer, "tape")
    bench.step(verify, "tape")
    assert bench.step(poll, "tape") is ReplicaState.ARCHIVED


def test_an_lfn_that_belongs_to_another_run_quarantines_this_one(bench: Bench) -> None:
    bench.close_run()
    with bench.catalogue.transaction() as connection:
        connection.execute("UPDATE bundle SET lfn = 'MICE/04743.tar'")
    bench.daq.write_run(RUN + 1, parts=1, part_bytes=5_000)
    with pytest.raises(LfnTakenError):
        close_run(bench.catalogue, bench.config, RUN + 1, now=NOW)
    run = find_run(bench.catalogue, RUN + 1)
    assert run is not None
    assert run.state is RunState.QUARANTINED


def test_a_system_that_cannot_open_a_part_is_no_fault_of_the_run(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.close_run()

    def too_many_files(*_arguments: object, **_options: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    work = bench.work("tape")
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", too_many_files)
        with pytest.raises(RunDirectoryError):
            transfer(work)
    assert not RunDirectoryError.permanent


def test_a_stray_end_of_a_released_run_leaves_no_problem(bench: Bench) -> None:
    bench.make_safe()
    release_run(bench.catalogue, bench.config, RUN, bench.endpoints, now=NOW)
    assert close_run(bench.catalogue, bench.config, RUN, now=NOW, marker_ns=5) is Closed.RELEASED
    run = find_run(bench.catalogue, RUN)
    assert run is not None
    assert (run.state, run.problem, run.marker_ns) == (RunState.RELEASED, None, 5)
    with pytest.raises(NotSafeError, match="released already"):
        release_run(bench.catalogue, bench.config, RUN, bench.endpoints, now=NOW)


def test_without_a_proxy_nothing_is_said_of_the_storage(bench: Bench) -> None:
    bench.make_safe()
    bench.endpoints["disk"].fail_next(CredentialError("no Grid proxy", hint="run `proxyagent renew`"), "stat")
    with pytest.raises(CredentialError):
        release_run(bench.catalogue, bench.config, RUN, bench.endpoints, now=NOW)
    assert all(file.exists() for file in bench.files)
