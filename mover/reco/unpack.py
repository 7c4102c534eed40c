"""Unpack a compressed stream, whatever its file is called: gzip, bzip2, xz, or as it is; bounded."""

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from mover.bundle.untar import TarFormatError
from mover.reco.limits import Limits

_MAGIC_BYTES = 6
_PIECE_BYTES = 1 << 20
_FREE_BYTES = 64 << 20
_XZ_MEMORY_BYTES = 256 << 20
_GZIP_WBITS = 31


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def more(self, data: bytes) -> bytes: ...


class _Gzip:
    """RFC 1952. What is left of the input is kept here, as bz2 and lzma do by themselves."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=_GZIP_WBITS)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def more(self, data: bytes) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, _PIECE_BYTES)


class _Keeping:
    """bz2's and lzma's."""

    def __init__(self, inner: bz2.BZ2Decompressor | lzma.LZMADecompressor) -> None:
        self._inner = inner

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def more(self, data: bytes) -> bytes:
        return self._inner.decompress(data, _PIECE_BYTES)


_KINDS: dict[bytes, tuple[str, Callable[[], _Decompressor]]] = {
    b"\x1f\x8b": ("gzip", _Gzip),
    b"BZh": ("bzip2", lambda: _Keeping(bz2.BZ2Decompressor())),
    b"\xfd7zXZ\0": ("xz", lambda: _Keeping(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES))),
}


def unpacked(chunks: Iterable[bytes | memoryview], limits: Limits) -> Iterator[bytes]:
    """The stream's content in pieces of bounded size; the chunks' end is reached when this ends.

    Raises:
        TarFormatError: it ends too early, is damaged, has more behind its end, or is too much.
    """
    rest = iter(chunks)
    head = b""
    while len(head) < _MAGIC_BYTES and (chunk := next(rest, None)) is not None:
        head += chunk
    for magic, (name, make) in _KINDS.items():
        if head.startswith(magic):
            pieces = _decompressed(head, rest, name, make, limits)
            break
    else:
        pieces = _plain(head, rest)
    size_bytes = 0
    for piece in pieces:
        size_bytes += len(piece)
        if size_bytes > limits.unpacked_bytes:
            raise TarFormatError(f"has more than {limits.unpacked_bytes} bytes when it is unpacked")
        yield piece


def _plain(head: bytes, rest: Iterator[bytes | memoryview]) -> Iterator[bytes]:
    if head:
        yield head
    for chunk in rest:
        yield bytes(chunk)


def _decompressed(
    head: bytes,
    rest: Iterator[bytes | memoryview],
    name: str,
    make: Callable[[], _Decompressor],
    limits: Limits,
) -> Iterator[bytes]:
    """One or more compressed streams, one after the other, as gzip(1), bzip2(1) and xz(1) take them."""
    packed_bytes, out_bytes = len(head), 0
    inner, data = make(), head
    while True:
        try:
            piece = inner.more(data)
        except (zlib.error, OSError, EOFError, lzma.LZMAError) as error:
            raise TarFormatError(f"is damaged: no more {name} after {packed_bytes} packed bytes ({error})") from error
        except MemoryError as error:
            raise TarFormatError(f"needs too much memory to unpack its {name}") from error
        out_bytes += len(piece)
        if out_bytes > max(_FREE_BYTES, packed_bytes * limits.ratio):
            raise TarFormatError(f"unpacks to over {limits.ratio} times its size: no {name} of data does so")
        if piece:
            yield piece
        data = inner.unused_data if inner.eof else b""
        if not data and (inner.eof or len(piece) < _PIECE_BYTES):
            chunk = next(rest, None)
            if chunk is None and not inner.eof:
                raise TarFormatError(f"is cut short: its {name} does not end after {packed_bytes} packed bytes")
            if chunk is None:
                return
            data = bytes(chunk)
            packed_bytes += len(data)
        if inner.eof:
            inner = make()
