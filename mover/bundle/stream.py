"""Turn a planned bundle into bytes: every part is read once, hashed and handed on; nothing is staged.

The reader is a plain generator; hashing runs on threads (hashlib releases the GIL). Memory is bounded by a few chunks.
"""

import hashlib
import os
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from zlib_ng import zlib_ng

from mover.bundle import tar
from mover.bundle.plan import MANIFEST_NAME, BundlePlan, mtime_seconds, render_manifest, render_md5
from mover.bundle.scan import changed, open_directory, open_part, unreadable
from mover.errors import RunChangedError, VerificationError
from mover.model import BundleDigest, MemberDigest, Part

CHUNK_BYTES = 4 << 20
_INLINE_BYTES = 64 << 10


class BundleReader:
    """One complete reading of a bundle.

    Where an earlier reading is given as `expected`, each part is held against it as soon as it is read.
    """

    def __init__(self, plan: BundlePlan, directory: Path, *, expected: BundleDigest | None = None) -> None:
        self._plan = plan
        self._directory = directory
        self._expected = expected
        # sha256 alone proves that a part is the same; the other digests are known by then.
        self._algorithms = ("sha256",) if expected else plan.digests
        self._members: list[MemberDigest] = []
        self._result: BundleDigest | None = None

    @property
    def digest(self) -> BundleDigest:
        """What the reading found. Only after `chunks` is exhausted."""
        if self._result is None:
            raise RuntimeError("the bundle has not been read to its end")
        return self._result

    def chunks(self) -> Generator[bytes, None, None]:
        """The bundle in chunks of `CHUNK_BYTES` (the last may be shorter).

        Raises:
            RunChangedError: a part is not the planned file, changes while it is read, or differs from `expected`.
        """
        adler, size = 1, 0
        with ThreadPoolExecutor(len(self._algorithms), "hash") as pool:
            for chunk in _coalesce(self._pieces(pool)):
                adler = zlib_ng.adler32(chunk, adler)
                size += len(chunk)
                yield chunk
        self._result = BundleDigest(size, f"{adler:08x}", tuple(self._members))

    def _pieces(self, pool: ThreadPoolExecutor) -> Iterator[bytes]:
        plan, written = self._plan, 0
        with open_directory(self._directory) as directory:
            for position, part in enumerate(plan.parts):
                yield (head := tar.header(part.name, part.size_bytes, mtime_seconds(part)))
                hashes = _Hashes(self._algorithms, pool)
                for piece in _read_part(directory, part, CHUNK_BYTES):
                    hashes.update(piece)
                    yield piece
                self._members.append(self._member(position, part, hashes.finish()))
                yield (tail := tar.padding(part.size_bytes))
                written += len(head) + part.size_bytes + len(tail)
        members = tuple(self._members)
        manifest = render_manifest(plan, members)
        generated = [(MANIFEST_NAME, manifest)]
        if "md5" in plan.digests:
            manifest_md5 = hashlib.md5(manifest, usedforsecurity=False).hexdigest()
            generated.append((plan.md5_name, render_md5(members, manifest_md5)))
        for name, content in generated:
            member = tar.header(name, len(content), plan.generated_mtime) + content + tar.padding(len(content))
            written += len(member)
            yield member
        yield tar.trailer(written)

    def _member(self, position: int, part: Part, found: dict[str, str]) -> MemberDigest:
        if self._expected is None:
            return MemberDigest(part.name, part.size_bytes, tuple((name, found[name]) for name in self._plan.digests))
        known = self._expected.members[position]
        if dict(known.digests)["sha256"] != found["sha256"]:
            raise changed(part, "has other bytes than when it was first read")
        return known


class _Hashes:
    """The digests of one part, a thread an algorithm; at most one piece is waited for."""

    def __init__(self, algorithms: tuple[str, ...], pool: ThreadPoolExecutor) -> None:
        self._hashes = {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}
        self._pool = pool
        self._pending: list[Future[None]] = []

    def update(self, piece: bytes) -> None:
        self._wait()
        if len(piece) < _INLINE_BYTES:
            for one in self._hashes.values():
                one.update(piece)
        else:
            self._pending = [self._pool.submit(one.update, piece) for one in self._hashes.values()]

    def finish(self) -> dict[str, str]:
        self._wait()
        return {name: one.hexdigest() for name, one in self._hashes.items()}

    def _wait(self) -> None:
        for future in self._pending:
            future.result()
        self._pending = []


def _read_part(directory: int, part: Part, chunk_bytes: int) -> Iterator[bytes]:
    descriptor = open_part(directory, part)
    try:
        before = os.fstat(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        left = part.size_bytes
        while left:
            try:
                piece = os.read(descriptor, min(left, chunk_bytes))
            except OSError as error:
                raise unreadable(part, error) from error
            if not piece:
                raise changed(part, "shrank while it was read")
            left -= len(piece)
            yield piece
        if os.read(descriptor, 1):
            raise changed(part, "grew while it was read")
        after = os.fstat(descriptor)
        if (before.st_mtime_ns, before.st_ctime_ns) != (after.st_mtime_ns, after.st_ctime_ns):
            raise changed(part, "changed while it was read")
        if not _still_named(directory, part, before):
            raise changed(part, "was replaced while it was read")
    finally:
        os.close(descriptor)


def _still_named(directory: int, part: Part, opened: os.stat_result) -> bool:
    try:
        named = os.stat(part.name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino)


def _coalesce(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Join and cut pieces to chunks of exactly CHUNK_BYTES, so that small parts do not mean small writes."""
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= CHUNK_BYTES:
            joined = b"".join(held)
            whole = size - size % CHUNK_BYTES
            for start in range(0, whole, CHUNK_BYTES):
                yield joined[start : start + CHUNK_BYTES]
            held, size = [joined[whole:]], size - whole
    if size:
        yield b"".join(held)


def same_as(expected: BundleDigest, stored: Generator[bytes, None, None], name: str) -> Generator[bytes, None, None]:
    """The chunks of a stored bundle as they are read; it ends well only if they were the bundle's.

    Closing it closes `stored`.

    Raises:
        VerificationError: their size or adler32 is another.
    """
    adler, size = 1, 0
    with closing(stored):
        for chunk in stored:
            adler = zlib_ng.adler32(chunk, adler)
            size += len(chunk)
            yield chunk
    if (size, f"{adler:08x}") != (expected.size_bytes, expected.adler32):
        raise VerificationError(
            f"{name} was read as {size} bytes with adler32 {adler:08x} "
            f"instead of {expected.size_bytes} with {expected.adler32}",
            hint="its stored copy has gone bad: ask the site, and run `mover audit` over it",
        )


def read_through(chunks: Iterable[bytes]) -> None:
    """Read a bundle only to know its digests; nothing is kept."""
    for _ in chunks:
        pass


def check_same(expected: BundleDigest, found: BundleDigest, lfn: str) -> None:
    """Hold a reading of a bundle against an earlier one.

    Raises:
        RunChangedError: they differ.
    """
    if expected != found:
        raise RunChangedError(
            f"{lfn} came out differently: adler32 {found.adler32}, {found.size_bytes} bytes; "
            f"before {expected.adler32}, {expected.size_bytes} bytes",
            hint="the run's files were changed after the run was closed; restore them from the first stored replica",
        )
