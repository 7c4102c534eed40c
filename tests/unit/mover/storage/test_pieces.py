"""The shaping of chunks, for any chunks."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mover.errors import StorageError
from mover.storage.pieces import pieces, primed

LARGEST = 7
CHUNKS = st.lists(st.binary(max_size=30), max_size=20)


@given(CHUNKS)
def test_pieces_are_the_same_bytes_in_right_sizes(chunks: list[bytes]) -> None:
    data = b"".join(chunks)
    made = list(pieces(chunks, len(data), LARGEST))
    assert b"".join(made) == data
    assert all(1 <= len(piece) <= LARGEST for piece in made)


@given(CHUNKS, st.integers(min_value=0, max_value=700))
def test_last_byte_stays_behind_when_the_size_is_wrong(chunks: list[bytes], size_bytes: int) -> None:
    total = sum(map(len, chunks))
    assume(size_bytes != total)
    given_out: list[bytes] = []
    with pytest.raises(StorageError):
        given_out.extend(pieces(chunks, size_bytes, LARGEST))
    assert sum(map(len, given_out)) < max(min(total, size_bytes), 1)


def test_whole_chunks_are_not_copied() -> None:
    chunks = [b"1234567", b"7654321"]
    assert all(made is chunk for made, chunk in zip(pieces(chunks, 14, LARGEST), chunks, strict=True))


def test_primed_fails_at_once_and_loses_nothing() -> None:
    with pytest.raises(ZeroDivisionError):
        primed(bytes(1 // number) for number in (0, 1))
    assert list(primed(iter([b"a", b"b"]))) == [b"a", b"b"]
    assert list(primed(iter([]))) == []
