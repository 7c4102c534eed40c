"""Transfer, verify and archive on the in-memory endpoint: adopt, redo; and the crash points of a transfer."""

import errno
import os
import zlib
from collections.abc import Callable, Generator

import pytest

from mover.catalogue.replicas import (
    record_intent,
    release_claim,
)
from mover.catalogue.runs import record_digest
from mover.errors import (
    EndpointUnavailableError,
    ForeignFileError,
    RunChangedError,
    RunDirectoryError,
    VerificationError,
)
from mover.model import BundleDigest, ChecksumKind
from mover.states import ReplicaState
from mover.steps.archive import archive
from mover.steps.transfer import transfer
from mover.steps.verify import verify
from mover.storage.memory import MemoryEndpoint
from tests.unit.mover.bench import LFN, NOW, Bench, bundle_bytes


@pytest.mark.parametrize("endpoint", ["tape", "disk"])
def test_what_an_attempt_that_was_not_committed_left_is_adopted(bench: Bench, endpoint: str) -> None:
    """The engine died after the last byte was stored and before it could say so."""
    bench.close_run()
    work = bench.work(endpoint)
    path = LFN if endpoint == "tape" else f"{LFN}.mover-1.part"
    record_intent(bench.catalogue, work.claim, path, now=NOW)
    release_claim(bench.catalogue, work.claim)
    whole = bundle_bytes(bench)
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
    whole = bundle_bytes(bench)
    bad = whole[: len(whole) // 2] if left == "half" else b"!" + whole[1:]
    bench.endpoints[endpoint].upload(path, [bad], len(bad))
    bench.step(transfer, endpoint)
    bench.step(verify, endpoint)
    assert bench.endpoints[endpoint].content(LFN) == whole
    assert [file.path for file in bench.endpoints[endpoint].list("MICE")] == [LFN]


def test_the_right_bundle_that_is_there_already_is_adopted_whoever_wrote_it(bench: Bench) -> None:
    bench.close_run()
    whole = bundle_bytes(bench)
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
    for look in (verify, archive):
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


class PlainEndpoint(MemoryEndpoint):
    """A storage that computes no checksums, and counts how often files are read back."""

    def __init__(self, then: Callable[[str], None] = lambda _: None) -> None:
        super().__init__(name="disk", checksums=frozenset())
        self.readings: list[str] = []
        self._then = then

    def read(self, path: str, *, offset: int = 0, size_bytes: int | None = None) -> Generator[bytes, None, None]:
        self.readings.append(path)
        yield from super().read(path, offset=offset, size_bytes=size_bytes)

    def rename(self, source: str, target: str) -> None:
        super().rename(source, target)
        self._then(source)

    def rewrite(self, path: str, data: bytes) -> None:
        """As `upload`, whatever is there; a moment later."""
        self.remove(path)
        self.upload(path, [data], len(data))


@pytest.fixture
def moments_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any reading takes long enough to tell times apart."""
    monkeypatch.setattr("mover.steps.verify._TIMES_TELL_SECONDS", 0.0)


@pytest.mark.usefixtures("moments_later")
def test_what_is_renamed_is_read_back_once(bench: Bench) -> None:
    bench.close_run()
    disk = bench.endpoints["disk"] = PlainEndpoint()
    bench.step(transfer, "disk")
    assert bench.step(verify, "disk") is ReplicaState.VERIFIED
    assert disk.readings == [f"{LFN}.mover-1.part"]


@pytest.mark.usefixtures("moments_later")
def test_what_was_copied_for_a_rename_is_read_back_again(bench: Bench) -> None:
    bench.close_run()
    disk = PlainEndpoint(lambda _: disk.rewrite(LFN, disk.content(LFN)))
    bench.endpoints["disk"] = disk
    bench.step(transfer, "disk")
    assert bench.step(verify, "disk") is ReplicaState.VERIFIED
    assert disk.readings == [f"{LFN}.mover-1.part", LFN]


@pytest.mark.usefixtures("moments_later")
def test_what_a_rename_that_copies_makes_wrong_is_not_verified(bench: Bench) -> None:
    bench.close_run()
    disk = PlainEndpoint(lambda _: disk.rewrite(LFN, b"!" + disk.content(LFN)[1:]))
    bench.endpoints["disk"] = disk
    bench.step(transfer, "disk")
    with pytest.raises(ForeignFileError, match="not what was uploaded"):
        bench.step(verify, "disk")
    assert bench.state("disk") is ReplicaState.COPIED


@pytest.mark.usefixtures("moments_later")
def test_a_rename_that_leaves_the_old_name_is_read_back_again(bench: Bench) -> None:
    bench.close_run()
    disk = PlainEndpoint(lambda source: disk.upload(source, [b"old"], 3))
    bench.endpoints["disk"] = disk
    bench.step(transfer, "disk")
    bench.step(verify, "disk")
    assert disk.readings == [f"{LFN}.mover-1.part", LFN]


def test_what_is_renamed_at_once_is_read_back_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy made in the same second has the same time."""
    monkeypatch.setattr("mover.steps.verify._TIMES_TELL_SECONDS", 600.0)
    bench.close_run()
    disk = bench.endpoints["disk"] = PlainEndpoint()
    bench.step(transfer, "disk")
    bench.step(verify, "disk")
    assert disk.readings == [f"{LFN}.mover-1.part", LFN]


class RememberingEndpoint(MemoryEndpoint):
    """A storage that keeps the checksum of what was uploaded, and later loses the file's end."""

    def checksum(self, path: str, kind: ChecksumKind, *, size_bytes: int = 0) -> str:
        super().checksum(path, kind, size_bytes=size_bytes)
        return f"{zlib.adler32(self.uploaded):08x}"

    def cut(self, path: str) -> None:
        self.uploaded = self.content(path)
        self.remove(path)
        self.upload(path, [self.uploaded[:-1]], len(self.uploaded) - 1)


def test_a_file_that_was_cut_is_found_by_its_size_though_the_checksum_is_remembered(bench: Bench) -> None:
    bench.close_run()
    disk = bench.endpoints["disk"] = RememberingEndpoint(name="disk")
    bench.step(transfer, "disk")
    disk.cut(f"{LFN}.mover-1.part")
    with pytest.raises(VerificationError, match="bytes instead of"):
        bench.step(verify, "disk")
    assert bench.state("disk") is ReplicaState.WANTED


def test_a_tape_copy_that_changed_after_verification_never_counts(bench: Bench) -> None:
    bench.close_run()
    bench.step(transfer, "tape")
    bench.step(verify, "tape")
    bench.endpoints["tape"].corrupt(LFN)
    with pytest.raises(ForeignFileError, match="changed after it was verified"):
        bench.step(archive, "tape")
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
