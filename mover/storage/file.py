"""A mounted disk as a storage element (file://)."""

import hashlib
import os
import stat
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from mover.durable import rename_noreplace
from mover.errors import (
    ConfigError,
    FileMissingError,
    ForeignFileError,
    StorageError,
    ThirdPartyCopyError,
    UnsafeNameError,
)
from mover.model import ChecksumKind, Locality, StoredFile, check_name, check_path
from mover.ports import Capabilities, MayRemove, StorageEndpoint, always
from mover.storage.cleanup import removed_on_failure
from mover.storage.mounted import directory, storage_errors
from mover.storage.pieces import pieces

_PIECE_BYTES = 4 << 20


class FileEndpoint:
    """Files below a directory, which must exist: an absent one means that the disk is not mounted.

    What is written is on the disk (fsync of file and directory) when a call returns, and checksums are read back from
    the disk. The deadline of each system call is the kernel's.
    """

    def __init__(self, *, name: str, base_url: str) -> None:
        """Take `base_url`, file:///absolute/path, as the base.

        Raises:
            ConfigError: it is no such URL.
        """
        parts = urlsplit(base_url)
        if parts.scheme != "file" or parts.netloc not in {"", "localhost"} or not parts.path.startswith("/"):
            raise ConfigError(f"bad endpoint URL {base_url!r}", hint="write it as file:///absolute/path")
        self._name = name
        self._base = Path(parts.path)
        self._capabilities = Capabilities(
            checksums=frozenset(ChecksumKind),
            tape=False,
            exclusive_create=True,
            rename_noreplace=True,
            third_party_copy=frozenset(),
        )

    @property
    def name(self) -> str:
        """The endpoint's name in the configuration."""
        return self._name

    @property
    def capabilities(self) -> Capabilities:
        """Everything but tape."""
        return self._capabilities

    def url(self, path: str) -> str:
        """The file:// URL of `path`."""
        return f"file://{self._base / check_path(path)}"

    def stat(self, path: str) -> StoredFile | None:
        """What is stored under `path` now; ForeignFileError if it is no regular file."""
        try:
            with self._parent(path) as (parent, name):
                found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileMissingError:
            return None
        if not stat.S_ISREG(found.st_mode):
            raise ForeignFileError(f"{self.url(path)} is no regular file", hint="find out who made it, and why")
        return _describe(path, found)

    def list(self, directory: str) -> list[StoredFile]:
        """The regular files directly in `directory`, by name; bytes that are not UTF-8 are surrogates."""
        try:
            with storage_errors(self.url(directory)), self._directory(directory) as opened:
                return sorted(_files(directory, opened), key=lambda file: file.path)
        except FileMissingError:
            return []

    def directories(self, directory: str) -> tuple[str, ...]:
        """The directories (symlinks are none) with safe names directly in `directory`, by name."""
        url = self.url(directory) if directory else f"file://{self._base}"
        try:
            with storage_errors(url), self._directory(directory) as opened:
                return tuple(sorted(_safe_directories(opened)))
        except FileMissingError:
            return ()

    def checksum(self, path: str, kind: ChecksumKind, *, size_bytes: int = 0) -> str:  # noqa: ARG002 - the port's
        """The checksum of the file as read back, not from the page cache where the kernel allows that."""
        blocks = self.read(path)
        return _adler32(blocks) if kind is ChecksumKind.ADLER32 else _md5(blocks)

    def upload(self, path: str, chunks: Iterable[bytes], size_bytes: int, *, may_remove: MayRemove = always) -> None:
        """Write a new file, exclusively, and flush it and its directory to the disk."""
        stream = pieces(chunks, size_bytes, _PIECE_BYTES)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with self._parent(path, create=True) as (parent, name):
            target = os.open(name, flags, 0o644, dir_fd=parent)
        with removed_on_failure(self.remove, path, ours=lambda: True, may_remove=may_remove):
            with os.fdopen(target, "wb", buffering=0) as file:
                # Only the writing is ours: an OSError of the producer goes through as it is.
                for piece in stream:
                    with storage_errors(self.url(path)):
                        _write_all(target, piece)
                with storage_errors(self.url(path)):
                    os.fsync(file.fileno())
            self._flush_directory(path)

    def copy_from(
        self,
        source: StorageEndpoint,
        source_path: str,  # noqa: ARG002 - the port's
        path: str,
        size_bytes: int,  # noqa: ARG002
        *,
        alive: Callable[[int], None],  # noqa: ARG002
        may_remove: MayRemove = always,  # noqa: ARG002
    ) -> None:
        """A disk copies nothing by itself: always ThirdPartyCopyError."""
        raise ThirdPartyCopyError(
            f"{self.url(path)} is on a mounted disk, which cannot copy from {source.name}",
            hint="ask capabilities first",
        )

    def read(self, path: str, *, offset: int = 0, size_bytes: int | None = None) -> Generator[bytes, None, None]:
        """The bytes of the file as read back, not from the page cache where the kernel allows that."""
        with self._parent(path) as (parent, name):
            source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
        left = size_bytes
        with os.fdopen(source, "rb", buffering=0) as file:
            with storage_errors(self.url(path)):
                os.posix_fadvise(source, 0, 0, os.POSIX_FADV_DONTNEED)
                file.seek(offset)
            while left is None or left > 0:
                with storage_errors(self.url(path)):
                    piece = file.read(_PIECE_BYTES if left is None else min(left, _PIECE_BYTES))
                if not piece:
                    return
                left = None if left is None else left - len(piece)
                yield piece

    def rename(self, source: str, target: str) -> None:
        """Give the file another name; the kernel itself refuses a target that exists."""
        if self.stat(source) is None:
            raise FileMissingError(f"there is no {self.url(source)}", hint="look at what the endpoint has")
        with (
            self._parent(target, create=True) as (target_parent, target_name),
            self._parent(source) as (source_parent, source_name),
        ):
            rename_noreplace(source_name, source_parent, target_name, target_parent)
            os.fsync(target_parent)
            os.fsync(source_parent)

    def remove(self, path: str) -> None:
        """Remove the file, if there is one."""
        try:
            with self._parent(path) as (parent, name):
                os.unlink(name, dir_fd=parent)
                os.fsync(parent)
        except FileMissingError:
            return

    def on_tape(self, path: str) -> bool:
        """There is no tape: always StorageError."""
        raise self._no_tape(path)

    def locality(self, path: str) -> Locality:
        """There is no tape: always StorageError."""
        raise self._no_tape(path)

    def bring_online(self, path: str) -> None:
        """There is no tape: always StorageError."""
        raise self._no_tape(path)

    def bring_online_many(self, paths: Sequence[str]) -> dict[str, StorageError]:
        """There is no tape: always StorageError."""
        raise self._no_tape(next(iter(paths), "it"))

    def close(self) -> None:
        """Nothing to let go of."""

    def _no_tape(self, path: str) -> StorageError:
        return StorageError(f"{self.url(path)} is on a disk, which has no tape", hint="ask capabilities first")

    @contextmanager
    def _parent(self, path: str, *, create: bool = False) -> Iterator[tuple[int, str]]:
        """The parent directory's descriptor and the file's name; OSErrors of the body are about `path`."""
        folder, _, name = check_path(path).rpartition("/")
        with storage_errors(self.url(path)), self._directory(folder, create=create) as opened:
            yield opened, name

    @contextmanager
    def _directory(self, folder: str, *, create: bool = False) -> Iterator[int]:
        names = check_path(folder).split("/") if folder else []
        with directory(self._base, names, create=create) as opened:
            yield opened

    def _flush_directory(self, path: str) -> None:
        with self._parent(path) as (parent, _name):
            os.fsync(parent)


def _files(folder: str, opened: int) -> Iterator[StoredFile]:
    with os.scandir(opened) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):  # gone since
                if entry.is_file(follow_symlinks=False):
                    yield _describe(f"{folder}/{entry.name}", entry.stat(follow_symlinks=False))


def _safe_directories(opened: int) -> Iterator[str]:
    with os.scandir(opened) as entries:
        for entry in entries:
            with suppress(UnsafeNameError):
                if entry.is_dir(follow_symlinks=False):
                    yield check_name(entry.name)


def _describe(path: str, found: os.stat_result) -> StoredFile:
    return StoredFile(path, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))


def _write_all(target: int, piece: bytes) -> None:
    rest = memoryview(piece)
    while rest:
        rest = rest[os.write(target, rest) :]


def _adler32(blocks: Iterable[bytes]) -> str:
    value = 1
    for block in blocks:
        value = zlib.adler32(block, value)
    return f"{value:08x}"


def _md5(blocks: Iterable[bytes]) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()
