"""Hold a job's output, as it is stored, against the output contract: one reading of it, and a look into its members."""

import hashlib
import io
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from mover.bundle.bytestream import ByteStream
from mover.bundle.findings import Findings
from mover.bundle.untar import TarFormatError, TarHeader, members
from mover.errors import OutputUncheckedError
from mover.model import BundleDigest, MemberDigest
from mover.reco.contract import LogContract, OutputContract, TreeContract, member_pattern
from mover.reco.limits import Limits
from mover.reco.look import LookError, log_lines, tree_entries
from mover.reco.unpack import unpacked

_EVERYTHING = 1 << 62


@dataclass(frozen=True, slots=True)
class Expectation:
    """What is known of a job's output before it is read.

    `physics_events` are those of the raw data; `size_bytes` and `adler32` are of the file that was uploaded.
    """

    run: int
    iteration: int
    physics_events: int | None = None
    size_bytes: int | None = None
    adler32: str | None = None


@dataclass(frozen=True, slots=True)
class TreeFound:
    """A tree that all of was read, and how many entries it has."""

    member: str
    tree: str
    entries: int


@dataclass(frozen=True, slots=True)
class Proof:
    """What one complete reading of an output found. Each finding is a sentence without its subject, the output.

    `digest` and `sha256` are of the bytes as they are stored; its members are those that could be read.
    """

    digest: BundleDigest
    sha256: str
    trees: tuple[TreeFound, ...]
    findings: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether the output is all that the contract asks for."""
        return not self.findings


def check_output(
    chunks: Iterable[bytes],
    contract: OutputContract,
    expected: Expectation,
    scratch: Path,
    limits: Limits | None = None,
    *,
    alive: Callable[[], None] = lambda: None,
) -> Proof:
    """Read an output from its storage and say all that it lacks.

    A file in `scratch` is never larger than its member; all of them are removed again. `alive` is called every few
    seconds while members are looked into. What it or the chunks raise goes through.

    Raises:
        OutputUncheckedError: nothing can be said, since this machine lacks something: space in `scratch`, a process.
    """
    return _Check(contract, expected, limits or Limits(), alive).run(chunks, scratch)


@dataclass
class _Check:
    contract: OutputContract
    expected: Expectation
    limits: Limits
    alive: Callable[[], None]
    findings: Findings = field(default_factory=Findings)
    found: list[MemberDigest] = field(default_factory=list)
    spooled: dict[str, Path] = field(default_factory=dict)
    spooled_bytes: int = 0
    trees: list[TreeFound] = field(default_factory=list)

    def run(self, chunks: Iterable[bytes], scratch: Path) -> Proof:
        stored = ByteStream(chunks, whole_sha256=True)
        with _directory(scratch) as directory:
            try:
                self._read(ByteStream(unpacked(stored.pieces(_EVERYTHING), self.limits)), directory)
            except TarFormatError as error:
                self.findings.add(f"is no whole tar of plain files: {error}")
            # What follows after a fault belongs to the digest of what is stored.
            for _ in stored.pieces(_EVERYTHING):
                pass
            self._check_size(stored)
            self._check_members()
            for tree in self.contract.tree:
                self._check_trees(tree)
            for log in self.contract.log:
                self._check_logs(log)
        digest = BundleDigest(stored.offset, stored.adler32, tuple(self.found))
        return Proof(digest, stored.sha256, tuple(self.trees), self.findings.texts())

    def _read(self, stream: ByteStream, directory: Path) -> None:
        looked_into = [self._pattern(one) for one in self.contract.looked_into]
        for header in members(stream):
            if not any(fnmatchcase(header.name, pattern) for pattern in looked_into):
                self._take(header, stream.pieces(header.size_bytes))
            elif self.spooled_bytes + header.size_bytes > self.limits.spooled_bytes:
                self.findings.add(f"{header.name} has {header.size_bytes} bytes: too much to be looked into")
                self._take(header, stream.pieces(header.size_bytes))
            else:
                self.spooled_bytes += header.size_bytes
                path = directory / str(len(self.spooled))
                if self._take(header, _spooled(stream.pieces(header.size_bytes), path)):
                    self.spooled[header.name] = path

    def _take(self, header: TarHeader, pieces: Iterator[memoryview]) -> bool:
        """Whether all of the member was there. Where it was not, the tar's reader says so next."""
        sha256, size_bytes = hashlib.sha256(), 0
        for piece in pieces:
            sha256.update(piece)
            size_bytes += len(piece)
        if size_bytes == header.size_bytes:
            self.found.append(MemberDigest(header.name, size_bytes, (("sha256", sha256.hexdigest()),)))
        return size_bytes == header.size_bytes

    def _pattern(self, pattern: str) -> str:
        return member_pattern(pattern, self.expected.run, self.expected.iteration)

    def _check_size(self, stored: ByteStream) -> None:
        if stored.offset < self.contract.minimum_bytes:
            self.findings.add(f"has {stored.offset} bytes; at least {self.contract.minimum_bytes} are wanted")
        uploaded = self.expected.size_bytes
        if uploaded is not None and stored.offset != uploaded:
            self.findings.add(f"has {stored.offset} bytes as it is stored, but {uploaded} were uploaded")
        elif self.expected.adler32 is not None and stored.adler32 != self.expected.adler32:
            self.findings.add(f"has adler32 {stored.adler32} as it is stored, but {self.expected.adler32} was uploaded")

    def _check_members(self) -> None:
        names = [one.name for one in self.found]
        every = (*self.contract.members, *self.contract.looked_into)
        for pattern in dict.fromkeys(self._pattern(one) for one in every):
            if not any(fnmatchcase(name, pattern) for name in names):
                self.findings.add(f"has no {pattern}")

    def _matching(self, pattern: str) -> Iterator[tuple[str, Path]]:
        wanted = self._pattern(pattern)
        return ((name, path) for name, path in self.spooled.items() if fnmatchcase(name, wanted))

    def _check_trees(self, contract: TreeContract) -> None:
        events = self.expected.physics_events
        wanted = contract.entries_wanted(events)
        for name, path in self._matching(contract.member):
            try:
                entries = tree_entries(path, contract.tree, self.limits, self.alive)
            except LookError as error:
                self.findings.add(f"{name} {error}")
                continue
            self.trees.append(TreeFound(name, contract.tree, entries))
            where = f"{name}: its tree {contract.tree!r} has {entries} entries"
            if wanted is None:
                self.findings.add(f"{where}, but nobody knows how many events the raw data has")
            elif entries < wanted:
                of = "" if contract.entries_from is None else f" for the {events} physics events of the raw data"
                self.findings.add(f"{where}; at least {wanted} are wanted{of}")

    def _check_logs(self, contract: LogContract) -> None:
        expressions = (*contract.must_match, *contract.must_not_match)
        for name, path in self._matching(contract.member):
            try:
                lines = log_lines(path, expressions, self.limits, self.alive)
            except LookError as error:
                self.findings.add(f"{name} {error}")
                continue
            for expression, line in zip(contract.must_match, lines, strict=False):
                if line is None:
                    self.findings.add(f"{name} has no line that matches {expression!r}")
            for expression, line in zip(contract.must_not_match, lines[len(contract.must_match) :], strict=True):
                if line is not None:
                    self.findings.add(f"{name} has a line that matches {expression!r}: {line!r}")


@contextmanager
def _directory(scratch: Path) -> Iterator[Path]:
    try:
        directory = tempfile.TemporaryDirectory(prefix="check-", dir=scratch)
    except OSError as error:
        raise _no_scratch(scratch, error) from error
    with directory as name:
        yield Path(name)


def _spooled(pieces: Iterator[memoryview], path: Path) -> Iterator[memoryview]:
    """The pieces, each written to the file before it is handed on."""
    try:
        file = path.open("xb", buffering=0)
    except OSError as error:
        raise _no_scratch(path.parent, error) from error
    with file:
        # Not around the pieces: what reading them raises is not about this file.
        for piece in pieces:
            _write(file, piece)
            yield piece


def _write(file: io.FileIO, piece: memoryview) -> None:
    left = piece
    try:
        while left:
            left = left[file.write(left) :]
    except OSError as error:
        raise _no_scratch(Path(str(file.name)).parent, error) from error


def _no_scratch(directory: Path, error: OSError) -> OutputUncheckedError:
    return OutputUncheckedError(
        f"cannot write to the scratch directory {directory}: {error.strerror}",
        hint="make space there, or let it belong to the user that the reco agent runs as; it is tried again",
    )
