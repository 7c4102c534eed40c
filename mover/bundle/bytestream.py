"""A stream of chunks, taken in pieces of one's own choice; what has passed is counted and summed up."""

import hashlib
from collections.abc import Iterable, Iterator

from zlib_ng import zlib_ng

from mover.model import MemberDigest


class ByteStream:
    """Chunks as one stream of bytes. Memory: a chunk, and what is asked for by `take`."""

    def __init__(self, chunks: Iterable[bytes], *, whole_sha256: bool = False) -> None:
        """Nothing is asked of `chunks` yet. `whole_sha256` says whether the sha256 of the whole is wanted too."""
        self._chunks = iter(chunks)
        self._chunk = memoryview(b"")
        self._adler = 1
        self._sha256 = hashlib.sha256() if whole_sha256 else None
        #: How many bytes have been taken.
        self.offset = 0

    @property
    def adler32(self) -> str:
        """Of all chunks asked for so far: of the whole, once the stream has ended."""
        return f"{self._adler:08x}"

    @property
    def sha256(self) -> str:
        """As `adler32`, if it was wanted."""
        if self._sha256 is None:
            raise RuntimeError("the sha256 of the whole was not asked for")
        return self._sha256.hexdigest()

    def pieces(self, size_bytes: int) -> Iterator[memoryview]:
        """The next `size_bytes` bytes in pieces of any size; fewer only where the stream ends."""
        left = size_bytes
        while left and self._more():
            piece = self._chunk[:left]
            self._chunk = self._chunk[len(piece) :]
            self.offset += len(piece)
            left -= len(piece)
            yield piece

    def take(self, size_bytes: int) -> bytes:
        """The next `size_bytes` bytes at once; fewer only where the stream ends."""
        return b"".join(self.pieces(size_bytes))

    def ended(self) -> bool:
        """Whether there is nothing more; asks for the next chunk if that is not known."""
        return not self._more()

    def member(self, name: str, size_bytes: int, algorithms: Iterable[str]) -> MemberDigest:
        """The digests of the next `size_bytes` bytes; `size_bytes` in the answer is smaller where the stream ends."""
        hashes = {one: hashlib.new(one, usedforsecurity=False) for one in algorithms}
        begun = self.offset
        for piece in self.pieces(size_bytes):
            for one in hashes.values():
                one.update(piece)
        found = tuple((name, one.hexdigest()) for name, one in hashes.items())
        return MemberDigest(name, self.offset - begun, found)

    def _more(self) -> bool:
        while not self._chunk:
            chunk = next(self._chunks, None)
            if chunk is None:
                return False
            self._adler = zlib_ng.adler32(chunk, self._adler)
            if self._sha256 is not None:
                self._sha256.update(chunk)
            self._chunk = memoryview(chunk)
        return True
