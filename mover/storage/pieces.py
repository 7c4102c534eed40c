"""Turns the chunks of a producer into pieces that a connection likes, and holds the producer to its word."""

from collections.abc import Iterable, Iterator
from itertools import chain

from mover.errors import StorageError


def pieces(chunks: Iterable[bytes], size_bytes: int, largest_bytes: int) -> Iterator[bytes]:
    """`chunks`, `size_bytes` in all, as pieces of 1 to `largest_bytes` bytes; small chunks are joined.

    The last piece comes only after `chunks` has ended without an error and with the right size, so that a storage
    element never sees the whole of a file that is wrong. At most one piece and one chunk are held.

    Raises:
        StorageError: `chunks` are more or fewer bytes than declared.
    """
    total = 0
    held: list[bytes] = []
    held_bytes = 0
    for chunk in chunks:
        total += len(chunk)
        if total > size_bytes:
            raise _wrong_size(f"more than the declared {size_bytes} bytes")
        for start in range(0, len(chunk), largest_bytes):
            part = chunk if len(chunk) <= largest_bytes else chunk[start : start + largest_bytes]
            if held_bytes + len(part) > largest_bytes:
                yield b"".join(held)
                held, held_bytes = [], 0
            held.append(part)
            held_bytes += len(part)
    if total < size_bytes:
        raise _wrong_size(f"only {total} of the declared {size_bytes} bytes")
    if held:
        yield b"".join(held)


def primed(stream: Iterator[bytes]) -> Iterator[bytes]:
    """The same stream with its first piece fetched: what fails at once fails before a file is made for it."""
    for first in stream:
        return chain([first], stream)
    return iter(())


def _wrong_size(what: str) -> StorageError:
    return StorageError(f"the data to store are {what}", hint="the source changed while it was read; plan it again")
