"""A storage element in memory, with a tape if wanted and with faults on request."""

import hashlib
import zlib
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from mover.errors import (
    EndpointFullError,
    FileExistsAtEndpointError,
    FileMissingError,
    ForeignFileError,
    StorageError,
    ThirdPartyCopyError,
)
from mover.model import ChecksumKind, Locality, StoredFile, check_path
from mover.ports import Capabilities, MayRemove, StorageEndpoint, always
from mover.storage.cleanup import removed_on_failure
from mover.storage.pieces import pieces
from mover.storage.tapestatus import check_online

#: The calls that `MemoryEndpoint.fail_next` can make fail.
Call = Literal[
    "stat", "list", "checksum", "upload", "copy_from", "read", "rename", "remove", "on_tape", "locality", "bring_online"
]

_PIECE_BYTES = 4 << 20


@dataclass(slots=True)
class _Stored:
    data: bytearray
    modified: datetime


class MemoryEndpoint:
    """Files in a dictionary. Each instance is a storage element of its own."""

    def __init__(
        self,
        *,
        name: str,
        base_url: str = "memory://here",
        tape: bool = False,
        capacity_bytes: int | None = None,
        checksums: frozenset[ChecksumKind] = frozenset(ChecksumKind),
    ) -> None:
        """An empty storage element, endless unless `capacity_bytes` is given."""
        self._name = name
        self._base_url = base_url.rstrip("/")
        self._capabilities = Capabilities(
            checksums=checksums,
            tape=tape,
            exclusive_create=True,
            rename_noreplace=True,
            third_party_copy=frozenset({"memory"}),
        )
        self._files: dict[str, _Stored] = {}
        self._faults: list[tuple[Call | None, BaseException]] = []
        self.capacity_bytes = capacity_bytes
        #: Whether the file of that path has been migrated; asked anew by each `on_tape`. Tests set it.
        self.migrated: Callable[[str], bool] = lambda _path: True
        #: The files whose bytes are on tape only, until somebody brings them online. Tests add to it.
        self.evicted: set[str] = set()

    @property
    def name(self) -> str:
        """The endpoint's name in the configuration."""
        return self._name

    @property
    def capabilities(self) -> Capabilities:
        """Everything, and tape if it was asked for."""
        return self._capabilities

    def fail_next(self, error: BaseException, call: Call | None = None) -> None:
        """Make the next call (of that kind) raise `error`; an upload stores half of its first piece before it does."""
        self._faults.append((call, error))

    def corrupt(self, path: str) -> None:
        """Change one bit of the stored file, which must not be empty."""
        self._stored(path).data[0] ^= 1

    def content(self, path: str) -> bytes:
        """The bytes stored under `path`."""
        return bytes(self._stored(path).data)

    def url(self, path: str) -> str:
        """The SURL of `path`."""
        return f"{self._base_url}/{check_path(path)}"

    def stat(self, path: str) -> StoredFile | None:
        """What is stored under `path` now."""
        self._begin("stat")
        return self._look(path)

    def list(self, directory: str) -> list[StoredFile]:
        """The files directly in `directory`, by name."""
        self._begin("list")
        folder = check_path(directory) + "/"
        below = (path for path in sorted(self._files) if path.startswith(folder) and "/" not in path[len(folder) :])
        return [self._describe(path) for path in below]

    def directories(self, directory: str) -> tuple[str, ...]:
        """What stands before a further slash in the names of files below."""
        self._begin("list")
        folder = check_path(directory) + "/" if directory else ""
        below = (path[len(folder) :] for path in self._files if path.startswith(folder))
        return tuple(sorted({rest.partition("/")[0] for rest in below if "/" in rest}))

    def checksum(self, path: str, kind: ChecksumKind, *, size_bytes: int = 0) -> str:  # noqa: ARG002 - the port's
        """The checksum of the stored bytes."""
        self._begin("checksum")
        if kind not in self._capabilities.checksums:
            raise StorageError(f"endpoint {self._name} computes no {kind}", hint="ask capabilities first")
        data = self._stored(path).data
        self._refuse_offline(path)
        if kind is ChecksumKind.ADLER32:
            return f"{zlib.adler32(data):08x}"
        return hashlib.md5(data, usedforsecurity=False).hexdigest()

    def upload(self, path: str, chunks: Iterable[bytes], size_bytes: int, *, may_remove: MayRemove = always) -> None:
        """Store `chunks` under `path`."""
        fault = self._take_fault("upload")
        if self._look(path) is not None:
            raise self._exists(path)
        self._check_parents(path)
        stored = self._files[path] = _Stored(bytearray(), datetime.now(UTC))
        with removed_on_failure(self._files.__delitem__, path, ours=lambda: True, may_remove=may_remove):
            for piece in pieces(chunks, size_bytes, _PIECE_BYTES):
                if fault:
                    stored.data += piece[: len(piece) // 2]
                    break
                self._check_space(len(piece))
                stored.data += piece
            if fault:
                raise fault
        stored.modified = datetime.now(UTC)

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
        """Store the file of another memory endpoint under `path`."""
        self._begin("copy_from")
        if "memory" not in source.capabilities.third_party_copy:
            raise ThirdPartyCopyError(f"{source.name} is no memory endpoint", hint="let the bundle be streamed")
        there = source.stat(source_path)
        if there is None:
            raise FileMissingError(f"there is no {source.url(source_path)}", hint="look at what the endpoint has")
        if there.size_bytes != size_bytes:
            raise ThirdPartyCopyError(
                f"{source.url(source_path)} has {there.size_bytes} bytes, not {size_bytes}",
                hint="copy from another replica, or stream it",
            )

        def watched() -> Generator[bytes, None, None]:
            done = 0
            for chunk in source.read(source_path):
                alive(done)
                yield chunk
                done += len(chunk)
            alive(done)

        self.upload(path, watched(), size_bytes, may_remove=may_remove)

    def read(self, path: str, *, offset: int = 0, size_bytes: int | None = None) -> Generator[bytes, None, None]:
        """The bytes stored under `path`."""
        self._begin("read")
        data = self._stored(path).data
        self._refuse_offline(path)
        end = len(data) if size_bytes is None else min(len(data), offset + size_bytes)
        for start in range(offset, end, _PIECE_BYTES):
            yield bytes(data[start : min(end, start + _PIECE_BYTES)])

    def rename(self, source: str, target: str) -> None:
        """Give the file another name."""
        self._begin("rename")
        self._stored(source)
        if self._look(target) is not None:
            raise self._exists(target)
        self._check_parents(target)
        self._files[target] = self._files.pop(source)

    def remove(self, path: str) -> None:
        """Remove the file, if there is one."""
        self._begin("remove")
        self._look(path)
        self._files.pop(path, None)
        self.evicted.discard(path)

    def on_tape(self, path: str) -> bool:
        """What `migrated` says of the file."""
        self._begin("on_tape")
        self._check_tape()
        self._stored(path)
        return self.migrated(path)

    def locality(self, path: str) -> Locality:
        """On tape if `migrated` says so, on disk unless `evicted`."""
        self._begin("locality")
        self._check_tape()
        self._stored(path)
        if path in self.evicted:
            return Locality.TAPE if self.migrated(path) else Locality.LOST
        return Locality.DISK_AND_TAPE if self.migrated(path) else Locality.DISK

    def bring_online(self, path: str) -> None:
        """Done at once, if it is on tape."""
        self._begin("bring_online")
        self._check_tape()
        self._stored(path)
        if self.migrated(path):
            self.evicted.discard(path)

    def bring_online_many(self, paths: Sequence[str]) -> dict[str, StorageError]:
        """One after the other."""
        self._check_tape()
        refused: dict[str, StorageError] = {}
        for path in paths:
            try:
                self.bring_online(path)
            except FileMissingError as error:
                refused[path] = error
        return refused

    def close(self) -> None:
        """Nothing to let go of; the files stay for tests to look at."""

    def _begin(self, call: Call) -> None:
        fault = self._take_fault(call)
        if fault:
            raise fault

    def _take_fault(self, call: Call) -> BaseException | None:
        for number, (wanted, error) in enumerate(self._faults):
            if wanted in {None, call}:
                del self._faults[number]
                return error
        return None

    def _look(self, path: str) -> StoredFile | None:
        check_path(path)
        if any(other.startswith(path + "/") for other in self._files):
            raise ForeignFileError(f"{self.url(path)} is a directory", hint="find out who made it, and why")
        return self._describe(path) if path in self._files else None

    def _describe(self, path: str) -> StoredFile:
        stored = self._files[path]
        return StoredFile(path, len(stored.data), stored.modified)

    def _stored(self, path: str) -> _Stored:
        try:
            return self._files[check_path(path)]
        except KeyError:
            raise FileMissingError(f"there is no {self.url(path)}", hint="look at what the endpoint has") from None

    def _refuse_offline(self, path: str) -> None:
        if path in self.evicted:
            check_online(self.url(path), Locality.TAPE if self.migrated(path) else Locality.LOST)

    def _check_tape(self) -> None:
        if not self._capabilities.tape:
            raise StorageError(f"endpoint {self._name} has no tape", hint="ask capabilities first")

    def _exists(self, path: str) -> FileExistsAtEndpointError:
        return FileExistsAtEndpointError(f"{self.url(path)} exists", hint="nothing is overwritten: look whose it is")

    def _check_parents(self, path: str) -> None:
        parts = path.split("/")
        for depth in range(1, len(parts)):
            if "/".join(parts[:depth]) in self._files:
                raise ForeignFileError(
                    f"{self.url('/'.join(parts[:depth]))} is a file, not a directory", hint="find out whose it is"
                )

    def _check_space(self, more_bytes: int) -> None:
        used = sum(len(stored.data) for stored in self._files.values())
        if self.capacity_bytes is not None and used + more_bytes > self.capacity_bytes:
            raise EndpointFullError(f"endpoint {self._name} is full", hint="make space, or wait until somebody does")
