"""The faults that the memory endpoint has on request."""

import pytest

from mover.errors import EndpointFullError, EndpointUnavailableError
from mover.model import ChecksumKind
from mover.storage.memory import MemoryEndpoint

DOWN = EndpointUnavailableError("down", hint="wait")


def test_next_call_fails_once() -> None:
    endpoint = MemoryEndpoint(name="a")
    endpoint.fail_next(DOWN)
    with pytest.raises(EndpointUnavailableError):
        endpoint.stat("a")
    assert endpoint.stat("a") is None


def test_next_call_of_a_kind_fails_and_an_upload_leaves_nothing() -> None:
    endpoint = MemoryEndpoint(name="a")
    endpoint.fail_next(DOWN, "upload")
    assert endpoint.stat("a") is None
    with pytest.raises(EndpointUnavailableError):
        endpoint.upload("a", [b"run"], 3)
    assert endpoint.stat("a") is None
    endpoint.upload("a", [b"run"], 3)


def test_corruption_shows_in_the_checksum_only() -> None:
    endpoint = MemoryEndpoint(name="a")
    endpoint.upload("a", [b"run"], 3)
    before, stored = endpoint.checksum("a", ChecksumKind.ADLER32), endpoint.stat("a")
    endpoint.corrupt("a")
    assert endpoint.checksum("a", ChecksumKind.ADLER32) != before
    assert endpoint.stat("a") == stored


def test_full() -> None:
    endpoint = MemoryEndpoint(name="a", capacity_bytes=5)
    endpoint.upload("a", [b"run"], 3)
    with pytest.raises(EndpointFullError):
        endpoint.upload("b", [b"run"], 3)
    assert endpoint.stat("b") is None
    endpoint.remove("a")
    endpoint.upload("b", [b"run"], 3)


def test_tape_in_its_own_time() -> None:
    endpoint = MemoryEndpoint(name="a", tape=True)
    endpoint.upload("a", [b"run"], 3)
    on_tape = {"b"}
    endpoint.migrated = on_tape.__contains__
    assert not endpoint.on_tape("a")
    on_tape.add("a")
    assert endpoint.on_tape("a")
