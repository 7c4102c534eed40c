"""Storage elements of the simulation: memory endpoints whose every change is told, and the faulty way to them."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from mover.errors import EndpointUnavailableError, StorageError
from mover.model import ChecksumKind, Locality, StoredFile
from mover.ports import Capabilities, MayRemove, StorageEndpoint, always
from mover.storage.memory import MemoryEndpoint, _Stored
from tests.simulation.faults import MADE_UP, Fault, Kind

T = TypeVar("T")

#: Faults of a storage that says that all is well.
_FALSE = {Kind.SHORT, Kind.NOTHING, Kind.FLIPPED}


class _Files(dict[str, _Stored]):
    """The files of a storage element; whoever changes them is noticed."""

    def __init__(self, lost: Callable[[str, _Stored], None], came: Callable[[str, _Stored], None]) -> None:
        super().__init__()
        self._lost = lost
        self._came = came

    def __setitem__(self, path: str, stored: _Stored) -> None:
        if path in self:
            self._lost(path, self[path])
        super().__setitem__(path, stored)
        self._came(path, stored)

    def __delitem__(self, path: str) -> None:
        self._lost(path, self[path])
        super().__delitem__(path)

    def pop(self, path: str, *default: _Stored | None) -> _Stored:  # type: ignore[override]
        if path in self:
            self._lost(path, self[path])
        return super().pop(path, *default)


class Storage(MemoryEndpoint):
    """A storage element, with a tape that may be slow, broken or forgetful.

    `told` hears of every file that comes and goes.
    """

    def __init__(self, name: str, *, tape: bool, copies: bool, checksums: bool, told: "Told") -> None:
        kinds = frozenset(ChecksumKind) if checksums else frozenset[ChecksumKind]()
        super().__init__(name=name, base_url=f"memory://{name}", tape=tape, checksums=kinds)
        self._copies = copies
        self._files: dict[str, _Stored] = _Files(
            lambda path, stored: told.lost(self, path, stored), lambda path, stored: told.came(self, path, stored)
        )
        #: The files that are on tape now, by path, as the object that was migrated.
        self.tape: dict[str, _Stored] = {}
        self.migrated = self.is_migrated
        #: Until when (seconds of the world) nothing answers.
        self.down_until = 0.0

    @property
    def capabilities(self) -> Capabilities:
        """As the memory endpoint's, but some take no part in third-party copies."""
        return replace(
            super().capabilities,
            third_party_copy=super().capabilities.third_party_copy if self._copies else frozenset(),
        )

    @property
    def files(self) -> dict[str, _Stored]:
        """What is stored, by path: to look at, and for nature to change."""
        return self._files

    def is_migrated(self, path: str) -> bool:
        """Whether the file, as it is now, is on tape."""
        stored = self._files.get(path)
        return stored is not None and self.tape.get(path) is stored

    def migrate(self) -> None:
        """All that is there goes to tape."""
        self.tape = dict(self._files)


class Told(Protocol):
    """Who is told what happens at a storage element."""

    def lost(self, storage: Storage, path: str, stored: _Stored) -> None:
        """`stored` is no longer under `path`."""

    def came(self, storage: Storage, path: str, stored: _Stored) -> None:
        """`stored` is under `path` now."""


class Caller(Protocol):
    """The process that makes the calls, and the world around it."""

    def begin(self, storage: Storage, call: str, path: str) -> Fault | None:
        """A call begins; raises if the process is dead or the storage down."""

    def strike(self, fault: Fault, storage: Storage, path: str, *, may_wait: bool) -> None:
        """Something happens around the call; raises if that kills the process."""

    def die(self) -> None:
        """The process dies."""

    def sent(self, path: str, data: bytes) -> None:
        """The mover gave all that it wanted to store."""

    def lied(self, storage: Storage, path: str) -> None:
        """The storage said something untrue of the file."""


@dataclass(slots=True)
class _Stream:
    """An upload or a third-party copy under way, and what was sent of it."""

    call: str
    path: str
    size_bytes: int
    fault: Fault | None
    sent: list[bytes] = field(default_factory=list)


class FaultyEndpoint:
    """One process's way to a storage element: it holds for both that any call may fail, before or after its effect."""

    def __init__(self, storage: Storage, caller: Caller) -> None:
        self._storage = storage
        self._caller = caller

    @property
    def name(self) -> str:
        """The storage's name."""
        return self._storage.name

    @property
    def capabilities(self) -> Capabilities:
        """What the storage can do."""
        return self._storage.capabilities

    def url(self, path: str) -> str:
        """The SURL."""
        return self._storage.url(path)

    def stat(self, path: str) -> StoredFile | None:
        """What is there."""
        return self._call("stat", path, lambda: self._storage.stat(path))

    def list(self, directory: str) -> list[StoredFile]:
        """What is in the directory."""
        return self._call("list", directory, lambda: self._storage.list(directory))

    def directories(self, directory: str) -> tuple[str, ...]:
        """The directories in the directory."""
        return self._call("list", directory, lambda: self._storage.directories(directory))

    def checksum(self, path: str, kind: ChecksumKind, *, size_bytes: int = 0) -> str:
        """The checksum, or a stale one."""
        assert kind in self.capabilities.checksums, f"{self.name} computes no {kind}"
        return self._call("checksum", path, lambda: self._storage.checksum(path, kind, size_bytes=size_bytes))

    def rename(self, source: str, target: str) -> None:
        """Rename; a file that is in the way is not this double's to look for."""
        self._call("rename", source, lambda: self._storage.rename(source, target), changes=True)

    def remove(self, path: str) -> None:
        """Remove."""
        self._call("remove", path, lambda: self._storage.remove(path), changes=True)

    def on_tape(self, path: str) -> bool:
        """Whether it is on tape now."""
        return self._call("on_tape", path, lambda: self._storage.on_tape(path))

    def locality(self, path: str) -> Locality:
        """Where it is."""
        return self._call("locality", path, lambda: self._storage.locality(path))

    def bring_online(self, path: str) -> None:
        """Stage it."""
        self._call("bring_online", path, lambda: self._storage.bring_online(path))

    def bring_online_many(self, paths: Sequence[str]) -> dict[str, StorageError]:
        """Stage them, one after the other."""
        for path in paths:
            self.bring_online(path)
        return {}

    def close(self) -> None:
        """Nothing to let go of."""

    def read(self, path: str, *, offset: int = 0, size_bytes: int | None = None) -> Generator[bytes, None, None]:
        """Read, perhaps cut."""
        fault = self._begin("read", path, changes=False)
        chunks = self._storage.read(path, offset=offset, size_bytes=size_bytes)
        whole = sum(1 for _ in self._storage.read(path, offset=offset, size_bytes=size_bytes)) if fault else 0
        for number, chunk in enumerate(chunks):
            if fault and number >= fault.share * whole:
                self._fail(fault, "read", path)
                fault = None
            yield chunk

    def upload(self, path: str, chunks: Iterable[bytes], size_bytes: int, *, may_remove: MayRemove = always) -> None:
        """Store; perhaps cut, or not what was sent."""
        stream = _Stream("upload", path, size_bytes, self._begin("upload", path, changes=True))
        self._store(stream, chunks, may_remove)
        self._caller.sent(path, b"".join(stream.sent))
        self._end(stream.fault, stream.call, path)

    def copy_from(
        self,
        source: StorageEndpoint,
        source_path: str,
        path: str,
        size_bytes: int,
        *,
        alive: Callable[[int], None],
        may_remove: MayRemove = always,
    ) -> None:
        """Third-party copy, with the same faults as an upload."""
        assert self.capabilities.third_party_copy & source.capabilities.third_party_copy, "they cannot copy directly"
        stream = _Stream("copy_from", path, size_bytes, self._begin("copy_from", path, changes=True))

        def watched() -> Iterator[bytes]:
            done = 0
            for chunk in source.read(source_path):
                alive(done)
                yield chunk
                done += len(chunk)
            alive(done)

        self._store(stream, watched(), may_remove)
        self._end(stream.fault, stream.call, path)

    def _store(self, stream: "_Stream", chunks: Iterable[bytes], may_remove: MayRemove) -> None:
        fault, path = stream.fault, stream.path
        if fault is not None and fault.kind in _FALSE:
            stream.sent.extend(chunks)
            if self._storage.stat(path) is None and fault.kind is not Kind.NOTHING:
                wrong = _spoiled(b"".join(stream.sent), fault)
                self._storage.upload(path, [wrong], len(wrong))
                self._caller.lied(self._storage, path)
            return
        if fault is not None and fault.kind is Kind.LEFT:
            may_remove = _never
        self._storage.upload(path, self._disturbed(stream, chunks), stream.size_bytes, may_remove=may_remove)

    def _disturbed(self, stream: "_Stream", chunks: Iterable[bytes]) -> Iterator[bytes]:
        """The chunks, with what happens in the middle of them."""
        fault = stream.fault
        strikes = fault is not None and not _comes_last(fault, stream.call)
        at = int(fault.share * stream.size_bytes) if fault else 0
        done = 0
        for chunk in chunks:
            stream.sent.append(chunk)
            piece = chunk
            if strikes and fault and done + len(chunk) > at:
                yield chunk[: at - done]
                piece = chunk[at - done :]
                strikes = False
                self._fail(fault, stream.call, stream.path)
            yield piece
            done += len(chunk)

    def _fail(self, fault: Fault, call: str, path: str) -> None:
        """In the middle of a stream."""
        if fault.kind in {Kind.REFUSED, Kind.CUT, Kind.LEFT}:
            raise fault.make_error(call)
        if fault.kind is Kind.CRASH:
            self._caller.die()
        self._caller.strike(fault, self._storage, path, may_wait=True)

    def _call(self, call: str, path: str, effect: Callable[[], T], *, changes: bool = False) -> T:
        fault = self._begin(call, path, changes=changes)
        result = effect()
        if fault and fault.kind is Kind.STALE and call == "checksum" and isinstance(result, str):
            self._caller.lied(self._storage, path)
            return f"{int(result, 16) ^ 1:0{len(result)}x}"  # type: ignore[return-value]
        self._end(fault, call, path)
        return result

    def _begin(self, call: str, path: str, *, changes: bool) -> Fault | None:
        fault = self._caller.begin(self._storage, call, path)
        if fault is None or call in {"upload", "copy_from", "read"}:
            return fault
        if fault.kind in {Kind.REFUSED, Kind.CUT, Kind.LEFT}:
            raise fault.make_error(call)
        if fault.kind is Kind.CRASH:
            self._caller.die()
        # A call that changes something has a deadline, which is shorter than any lease; its answer may be late.
        if not _comes_last(fault, call):
            self._caller.strike(fault, self._storage, path, may_wait=not changes)
        return fault

    def _end(self, fault: Fault | None, call: str, path: str) -> None:
        if fault is None or not _comes_last(fault, call):
            return
        if fault.kind is Kind.BROKEN:
            raise fault.make_error(call)
        if fault.kind in {Kind.CRASH, Kind.CRASH_AFTER}:
            self._caller.die()
        self._caller.strike(fault, self._storage, path, may_wait=True)


def down(storage: Storage) -> EndpointUnavailableError:
    """What a storage element that is down answers."""
    return EndpointUnavailableError(f"{storage.name} is down, {MADE_UP}", hint="wait")


def _comes_last(fault: Fault, call: str) -> bool:
    """Whether it strikes when the storage has done what it was asked for."""
    if fault.kind in {Kind.BROKEN, Kind.CRASH_AFTER, Kind.GONE, Kind.STALE}:
        return True
    if call == "copy_from" and fault.kind is Kind.CRASH:
        # The storage goes on without us, or does not.
        return fault.share >= 0.5
    return fault.kind in {Kind.TAKEN, Kind.OVERSLEPT} and fault.share >= 0.5


def _spoiled(data: bytes, fault: Fault) -> bytes:
    at = int(fault.share * len(data))
    if fault.kind is Kind.SHORT:
        return data[:at]
    # A source that has become empty has no bit to change.
    return data[:at] + bytes(byte ^ 1 for byte in data[at : at + 1]) + data[at + 1 :]


def _never() -> bool:
    return False
