"""Foreign bytes that are to be unpacked: they are, or it is said why not."""

import bz2
import gzip
import lzma
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mover.bundle.untar import TarFormatError
from mover.reco.limits import Limits
from mover.reco.unpack import unpacked

PACKERS: list[Callable[[bytes], bytes]] = [gzip.compress, bz2.compress, lzma.compress]


def _unpack(chunks: list[bytes]) -> bytes:
    return b"".join(unpacked(chunks, Limits()))


@given(st.sampled_from(PACKERS), st.binary(max_size=3000), st.integers(1, 200))
def test_what_was_packed_comes_out(pack: Callable[[bytes], bytes], content: bytes, chunk_bytes: int) -> None:
    packed = pack(content)
    assert _unpack([packed[at : at + chunk_bytes] for at in range(0, len(packed), chunk_bytes)]) == content


def test_large_pieces_come_out_whole() -> None:
    content = bytes(range(256)) * (5 << 12)
    for pack in PACKERS:
        assert _unpack([pack(content)]) == content


@given(st.binary(max_size=100))
def test_what_is_not_packed_is_left_alone(content: bytes) -> None:
    assert _unpack([b"plain.", content]) == b"plain." + content
    assert _unpack([b"<" + content[:3]]) == b"<" + content[:3]
    assert _unpack([content[:1]]) == content[:1]


@given(st.sampled_from(PACKERS), st.integers(0, 300), st.binary(min_size=1, max_size=4))
def test_damage_never_goes_unnoticed(pack: Callable[[bytes], bytes], at: int, change: bytes) -> None:
    content = bytes(range(200))
    packed = pack(content)
    at %= len(packed)
    foreign = packed[:at] + change + packed[at + len(change) :]
    try:
        assert _unpack([foreign]) in {content, foreign}
    except TarFormatError:
        assert foreign != packed


@given(st.sampled_from([b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0"]), st.binary(max_size=300))
def test_nonsense_after_a_magic_raises_only_what_is_documented(magic: bytes, nonsense: bytes) -> None:
    with pytest.raises(TarFormatError):
        _unpack([magic + nonsense])
