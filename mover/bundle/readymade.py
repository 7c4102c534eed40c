"""A bundle that is one ready-made file, such as a job's output: read as it is, and held against its digests."""

import hashlib
import os
import stat
from collections.abc import Callable, Generator
from pathlib import Path

from zlib_ng import zlib_ng

from mover.bundle.stream import CHUNK_BYTES
from mover.errors import RunChangedError
from mover.model import BundleDigest, MemberDigest


class FileReader:
    """One complete reading of a ready-made file; the same to a step as a `BundleReader`."""

    def __init__(self, path: Path, *, expected: BundleDigest) -> None:
        self._path = path
        self._expected = expected
        self._read = False

    @property
    def digest(self) -> BundleDigest:
        """What the reading found. Only after `chunks` is exhausted."""
        if not self._read:
            raise RuntimeError("the file has not been read to its end")
        return self._expected

    def chunks(self) -> Generator[bytes, None, None]:
        """The file in chunks of `CHUNK_BYTES` (the last may be shorter).

        Raises:
            RunChangedError: it cannot be read, or is not what its digests were taken of. That is found at its last
                chunk at the latest, which is then not given.
        """
        adler, size = 1, 0
        held: bytes | None = None
        for chunk in _chunks(self._path, most_bytes=self._expected.size_bytes + 1):
            if held is not None:
                yield held
            held = chunk
            adler = zlib_ng.adler32(chunk, adler)
            size += len(chunk)
        if (size, f"{adler:08x}") != (self._expected.size_bytes, self._expected.adler32):
            raise RunChangedError(
                f"{self._path} has {size} bytes with adler32 {adler:08x} instead of {self._expected.size_bytes} "
                f"with {self._expected.adler32}",
                hint="a job's output was changed after it was taken: look at the disk; have the job done again",
            )
        if held is not None:
            yield held
        self._read = True


def digest_file(path: Path, *, alive: Callable[[], None] = lambda: None) -> BundleDigest:
    """Read a ready-made file once; it is its own only member, with sha256 and md5.

    `alive` is called for each chunk; what it raises goes through.

    Raises:
        RunChangedError: it cannot be read, or is no plain file.
    """
    adler, size = 1, 0
    hashes = {name: hashlib.new(name, usedforsecurity=False) for name in ("sha256", "md5")}
    for chunk in _chunks(path):
        alive()
        adler = zlib_ng.adler32(chunk, adler)
        size += len(chunk)
        for one in hashes.values():
            one.update(chunk)
    digests = tuple((name, one.hexdigest()) for name, one in hashes.items())
    return BundleDigest(size, f"{adler:08x}", (MemberDigest(path.name, size, digests),))


def _chunks(path: Path, *, most_bytes: int | None = None) -> Generator[bytes, None, None]:
    """The bytes of a plain file that nobody has put a link in the place of, at most that many."""
    try:
        # Without waiting for somebody to write, should it be a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _unreadable(path, str(error.strerror)) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _unreadable(path, "it is no plain file")
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        left = most_bytes
        while True:
            try:
                chunk = file.read(CHUNK_BYTES if left is None else min(left, CHUNK_BYTES))
            except OSError as error:
                raise _unreadable(path, str(error.strerror)) from error
            if not chunk:
                return
            if left is not None:
                left -= len(chunk)
            yield chunk


def _unreadable(path: Path, why: str) -> RunChangedError:
    return RunChangedError(f"cannot read the ready-made file {path}: {why}", hint="look at its disk, owner and mode")
