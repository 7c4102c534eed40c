"""The adler32 of stored files at endpoints that compute it, and at those that do not."""

import secrets
import zlib

import pytest

from mover.errors import EndpointUnavailableError, FileMissingError, NotOnlineError, StoppedError
from mover.model import ChecksumKind, StoredFile
from mover.steps.checksums import stored_adler32
from mover.storage.memory import MemoryEndpoint

PATH = "raw/00123.tar"
SEVERAL_CHUNKS = (9 << 20) + 1


class KnowingEndpoint(MemoryEndpoint):
    """As dCache or EOS: the name space has the checksum, wherever the bytes are."""

    def checksum(self, path: str, kind: ChecksumKind, *, size_bytes: int = 0) -> str:
        """From the name space."""
        self.evicted, evicted = set(), self.evicted
        try:
            return super().checksum(path, kind, size_bytes=size_bytes)
        finally:
            self.evicted = evicted


def put(endpoint: MemoryEndpoint, data: bytes) -> StoredFile:
    endpoint.upload(PATH, [data], len(data))
    stored = endpoint.stat(PATH)
    assert stored is not None
    return stored


def plain() -> MemoryEndpoint:
    """One that computes no adler32; what else it computes is of no use."""
    return MemoryEndpoint(name="plain", checksums=frozenset({ChecksumKind.MD5}))


def wanted(data: bytes) -> str:
    return f"{zlib.adler32(data):08x}"


def ignored(_done: int) -> None:
    """An `alive` for those who do not wait."""


def test_the_storage_is_asked_where_it_knows() -> None:
    endpoint = MemoryEndpoint(name="knows")
    stored = put(endpoint, b"events")
    endpoint.fail_next(AssertionError("read back"), "read")
    assert stored_adler32(endpoint, stored, ignored) == wanted(b"events")


@pytest.mark.parametrize("size", [0, 1, SEVERAL_CHUNKS])
def test_the_file_is_read_back_where_it_does_not(size: int) -> None:
    endpoint, data = plain(), secrets.token_bytes(size)
    stored = put(endpoint, data)
    endpoint.fail_next(AssertionError("asked"), "checksum")
    assert stored_adler32(endpoint, stored, ignored) == wanted(data)


def test_a_changed_bit_shows() -> None:
    endpoint, data = plain(), bytes(SEVERAL_CHUNKS)
    stored = put(endpoint, data)
    endpoint.corrupt(PATH)
    assert stored_adler32(endpoint, stored, ignored) == wanted(b"\x01" + data[1:])


def test_progress_is_told_while_it_reads() -> None:
    endpoint = plain()
    stored = put(endpoint, bytes(SEVERAL_CHUNKS))
    told: list[int] = []
    stored_adler32(endpoint, stored, told.append)
    assert told[0] == 0
    assert told[-1] == SEVERAL_CHUNKS
    assert len(told) > 3
    assert told == sorted(told)


def test_who_must_stop_reads_no_further() -> None:
    endpoint = plain()
    stored = put(endpoint, bytes(SEVERAL_CHUNKS))
    told: list[int] = []

    def stop(done: int) -> None:
        told.append(done)
        if done:
            raise StoppedError("stopping", hint="start it again")

    with pytest.raises(StoppedError):
        stored_adler32(endpoint, stored, stop)
    assert len(told) == 2
    assert told[-1] < SEVERAL_CHUNKS


@pytest.mark.parametrize("size", [0, 5, 7])
def test_too_few_or_too_many_bytes_are_no_verdict_on_the_file(size: int) -> None:
    endpoint = plain()
    stored = put(endpoint, b"events")
    described = StoredFile(stored.path, size, stored.modified)
    with pytest.raises(EndpointUnavailableError, match=f"of {size}"):
        stored_adler32(endpoint, described, ignored)


@pytest.mark.parametrize("endpoint", [MemoryEndpoint(name="knows"), plain()], ids=["asked", "read back"])
def test_a_file_that_has_gone_is_missing(endpoint: MemoryEndpoint) -> None:
    stored = put(endpoint, b"events")
    endpoint.remove(PATH)
    with pytest.raises(FileMissingError):
        stored_adler32(endpoint, stored, ignored)


def test_what_is_on_tape_only_is_brought_online_where_that_is_needed() -> None:
    tape = MemoryEndpoint(name="tape", tape=True)
    stored = put(tape, b"events")
    tape.evicted.add(PATH)
    with pytest.raises(NotOnlineError, match="on tape only"):
        stored_adler32(tape, stored, ignored)
    assert not tape.evicted, "nobody asked for it"
    assert stored_adler32(tape, stored, ignored) == wanted(b"events")


def test_what_is_on_tape_only_stays_there_where_the_storage_knows() -> None:
    tape = KnowingEndpoint(name="tape", tape=True)
    stored = put(tape, b"events")
    tape.evicted.add(PATH)
    assert stored_adler32(tape, stored, ignored) == wanted(b"events")
    assert tape.evicted


def test_what_was_lost_is_not_taken_for_evicted() -> None:
    tape = MemoryEndpoint(name="tape", tape=True)
    stored = put(tape, b"events")
    tape.evicted.add(PATH)
    tape.migrated = lambda _: False
    with pytest.raises(FileMissingError):
        stored_adler32(tape, stored, ignored)
