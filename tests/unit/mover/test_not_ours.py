"""What is not ours, or no longer ours, is never removed: foreign files, lost claims, quarantine."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import timedelta

import pytest

from mover.catalogue.replicas import (
    claim_next,
    record_event,
    record_intent,
    release_claim,
    renew_claim,
    retry_replicas,
)
from mover.errors import (
    EndpointUnavailableError,
    FileExistsAtEndpointError,
    ForeignFileError,
    LeaseLostError,
    VerificationError,
)
from mover.ports import MayRemove, always
from mover.states import ReplicaEvent, ReplicaState
from mover.steps.archive import archive
from mover.steps.transfer import transfer
from mover.steps.verify import verify
from mover.storage.memory import MemoryEndpoint
from tests.unit.mover.bench import LFN, NOW, RUN, Bench, bundle_bytes

TEMPORARY = f"{LFN}.mover-1.part"


class RacedEndpoint(MemoryEndpoint):
    """Somebody else writes the same name between our look and our first upload."""

    _raced = False

    def upload(self, path: str, chunks: Iterable[bytes], size_bytes: int, *, may_remove: MayRemove = always) -> None:
        """Theirs first, then ours."""
        if not self._raced:
            self._raced = True
            super().upload(path, [b"their"], 5)
        super().upload(path, chunks, size_bytes, may_remove=may_remove)


def _put(bench: Bench, endpoint: str, content: bytes, path: str = LFN) -> None:
    """A file comes under that name, over whatever is there."""
    bench.endpoints[endpoint].remove(path)
    bench.endpoints[endpoint].upload(path, [content], len(content))


def _take_over(bench: Bench) -> None:
    """Another engine claims the tape replica, long after our lease has run out."""
    later = NOW + timedelta(days=2)
    claim = claim_next(bench.catalogue, "tape", list(ReplicaState), owner="other", lease=timedelta(1), now=later)
    assert claim is not None


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
    larger = bundle_bytes(bench) + b"more"
    bench.endpoints["tape"].upload(LFN, [larger], len(larger))
    with pytest.raises(ForeignFileError):
        bench.step(transfer, "tape")
    assert bench.endpoints["tape"].content(LFN) == larger


def test_a_larger_file_in_place_of_an_upload_is_not_ours(bench: Bench) -> None:
    bench.close_run()
    bench.step(transfer, "tape")
    larger = bundle_bytes(bench) + b"more"
    _put(bench, "tape", larger)
    with pytest.raises(ForeignFileError, match="is not what was uploaded"):
        bench.step(verify, "tape")
    assert bench.endpoints["tape"].content(LFN) == larger


def test_a_larger_copy_under_a_temporary_name_is_ours(bench: Bench) -> None:
    """The storage copied a source that somebody had replaced by a larger file."""
    bench.close_run()
    bench.step(transfer, "disk")
    _put(bench, "disk", bundle_bytes(bench) + b"more", TEMPORARY)
    with pytest.raises(VerificationError):
        bench.step(verify, "disk")
    assert bench.state("disk") is ReplicaState.WANTED
    assert bench.endpoints["disk"].stat(TEMPORARY) is None


def test_a_larger_copy_left_under_a_temporary_name_is_ours(bench: Bench) -> None:
    bench.close_run()
    work = bench.work("disk")
    record_intent(bench.catalogue, work.claim, TEMPORARY, now=NOW)
    release_claim(bench.catalogue, work.claim)
    _put(bench, "disk", bundle_bytes(bench) + b"more", TEMPORARY)
    assert bench.step(transfer, "disk") is ReplicaState.COPIED
    assert bench.endpoints["disk"].stat(TEMPORARY) is None


@pytest.mark.parametrize("endpoint", ["tape", "disk"])
@pytest.mark.parametrize("intended", [False, True], ids=["nothing intended", "another name intended"])
def test_what_was_adopted_is_not_ours_to_remove_when_it_changes(bench: Bench, endpoint: str, intended: bool) -> None:
    bench.close_run()
    if intended:
        work = bench.work(endpoint)
        record_intent(bench.catalogue, work.claim, TEMPORARY, now=NOW)
        release_claim(bench.catalogue, work.claim)
    _put(bench, endpoint, bundle_bytes(bench))
    assert bench.step(transfer, endpoint) is ReplicaState.COPIED
    _put(bench, endpoint, b"theirs")
    with pytest.raises(ForeignFileError, match="is not what was uploaded"):
        bench.step(verify, endpoint)
    assert bench.endpoints[endpoint].content(LFN) == b"theirs"


def test_a_file_that_appears_between_look_and_upload_is_not_taken_for_ours_later(bench: Bench) -> None:
    bench.close_run()
    raced = bench.endpoints["tape"] = RacedEndpoint(name="tape", tape=True)
    with pytest.raises(FileExistsAtEndpointError):
        bench.step(transfer, "tape")
    with pytest.raises(ForeignFileError):
        bench.step(transfer, "tape")
    assert raced.content(LFN) == b"their"


def test_a_foreign_file_under_the_final_name_stops_the_rename(bench: Bench) -> None:
    bench.close_run()
    bench.step(transfer, "disk")
    bench.endpoints["disk"].upload(LFN, [b"theirs"], 6)
    with pytest.raises(ForeignFileError):
        bench.step(verify, "disk")
    assert bench.endpoints["disk"].content(LFN) == b"theirs"


def test_an_engine_that_lost_its_claim_does_not_remove_what_another_has_proven(bench: Bench) -> None:
    """The first engine sleeps through its lease in an upload; a second one does the whole work; the first wakes up."""
    bench.close_run()
    tape = bench.endpoints["tape"]
    slow = bench.work("tape")
    whole = bundle_bytes(bench)

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
        archive(work)
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
        verify(replace(work, endpoints={"disk": replacing}))
    assert bench.state("disk") is ReplicaState.COPIED


def _vanished(bench: Bench) -> None:
    bench.endpoints["tape"].remove(LFN)


def _rejected(bench: Bench) -> None:
    bench.endpoints["tape"].corrupt(LFN)


@pytest.mark.parametrize("spoil", [_vanished, _rejected])
def test_a_file_that_appears_where_ours_was_missing_or_rejected_is_not_ours(
    bench: Bench, spoil: Callable[[Bench], None]
) -> None:
    bench.close_run()
    bench.step(transfer, "tape")
    spoil(bench)
    with pytest.raises(VerificationError):
        bench.step(verify, "tape")
    bench.endpoints["tape"].upload(LFN, [b"theirs"], 6)
    with pytest.raises(ForeignFileError):
        bench.step(transfer, "tape")
    assert bench.endpoints["tape"].content(LFN) == b"theirs"
