"""What the steps need from the outside world, as Protocols. Adapters are picked in `wiring` only.

Every adapter of a port passes the same conformance suite (tests/conformance).
"""

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from mover.model import ChecksumKind, Locality, StoredFile


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an endpoint can do. Steps ask here, never for an adapter's class."""

    checksums: frozenset[ChecksumKind]
    """Kinds that the storage computes from its own copy; where there is none, the mover reads the file back."""
    tape: bool
    """Whether `on_tape`, `locality` and `bring_online` have an answer."""
    exclusive_create: bool
    """Whether the server itself refuses to create a file under a name that exists."""
    rename_noreplace: bool
    """Whether the server itself refuses to rename onto a name that exists."""
    third_party_copy: frozenset[str]
    """Protocols in which it copies with another endpoint directly: both must have one in common."""


#: What a storage that computes a checksum is given time for, beside the deadline that is configured.
SLOWEST_CHECKSUM_BYTES_PER_SECOND = 20_000_000

MayRemove = Callable[[], bool]
"""Asked immediately before an adapter removes a file of its own: whether the name is still ours to act on."""


def always() -> bool:
    """A `MayRemove` for a name that nobody else works on."""
    return True


class StorageEndpoint(Protocol):
    """A storage element, below one base URL.

    Paths are relative to that base and are held against `model.check_path`. Every call has a deadline of its own. An
    adapter raises only `errors.StorageError`s, whose class says whether trying again can help; errors of the credential
    source and of the chunks that it is given pass through. An adapter is used from one thread at a time.
    """

    @property
    def name(self) -> str:
        """The endpoint's name in the configuration."""

    @property
    def capabilities(self) -> Capabilities:
        """What this endpoint can do."""

    def url(self, path: str) -> str:
        """The SURL of `path`, for people and for the catalogue; never has a credential in it."""

    def stat(self, path: str) -> StoredFile | None:
        """What is stored under `path` now, from a fresh query; None if nothing is."""

    def list(self, directory: str) -> list[StoredFile]:
        """The files (not directories) directly in `directory`, by name; empty if it does not exist."""

    def directories(self, directory: str) -> tuple[str, ...]:
        """The names of the directories directly in `directory` ("" for the base); empty if it does not exist.

        Names that `model.check_name` refuses are left out.
        """

    def checksum(self, path: str, kind: ChecksumKind, *, size_bytes: int = 0) -> str:
        """The storage's own checksum of its copy, lower-case hexadecimal of the kind's full width.

        It may have to read the file for it: the deadline grows with `size_bytes`, which the file is known to have.

        Raises:
            FileMissingError: there is no such file, or the storage has lost its tape.
            NotOnlineError: the storage cannot tell before the file is brought online.
        """

    def upload(self, path: str, chunks: Iterable[bytes], size_bytes: int, *, may_remove: MayRemove = always) -> None:
        """Stream `chunks`, `size_bytes` in all, into a new file, creating its directories.

        Nothing is staged locally. If it fails for whatever reason, `chunks` raising included, what was written so far
        is removed if `may_remove()` says so and the endpoint can still be reached, and the first error is raised.

        Raises:
            FileExistsAtEndpointError: something is stored under `path` already; it is left untouched.
        """

    def copy_from(
        self,
        source: "StorageEndpoint",
        source_path: str,
        path: str,
        size_bytes: int,
        *,
        alive: Callable[[int], None],
        may_remove: MayRemove = always,
    ) -> None:
        """Have the storage copy a file of `source`, with which it shares a protocol, into a new file of its own.

        The bytes go from storage to storage (third-party copy). `alive` is called with the bytes copied so far, as far
        as the storage tells, at least every few seconds; what it raises ends the copy and is raised. A copy that makes
        no progress for the stall timeout is ended. As after `upload`, what a failure left is removed.

        Raises:
            ThirdPartyCopyError: the two cannot copy directly, or did it through this machine.
            FileMissingError: there is no `source_path`.
            FileExistsAtEndpointError: something is stored under `path` already; it is left untouched.
        """

    def read(self, path: str, *, offset: int = 0, size_bytes: int | None = None) -> Generator[bytes, None, None]:
        """The file's bytes from `offset` on, at most `size_bytes` of them, in chunks of up to a few MB.

        Nothing is asked of the storage before the first chunk is. Close the generator to end early. A stalled stream
        is cut after the stall timeout. A file that is on tape only is to be brought online before.

        Raises:
            NotOnlineError: it was not.
            FileMissingError: there is no such file.
        """

    def rename(self, source: str, target: str) -> None:
        """Give the file another name, looking immediately before that the target is free.

        Raises:
            FileMissingError: there is no `source`.
            FileExistsAtEndpointError: something is stored under `target`.
        """

    def remove(self, path: str) -> None:
        """Remove the file; it is no error if there is none."""

    def on_tape(self, path: str) -> bool:
        """Whether the storage says that the file, as it is now, is on tape.

        Raises:
            FileMissingError: there is no such file.
        """

    def locality(self, path: str) -> Locality:
        """Where the storage says that the file's bytes are.

        Raises:
            FileMissingError: there is no such file.
        """

    def bring_online(self, path: str) -> None:
        """Ask that the file be staged from tape to disk. Returns at once; `locality` tells when it has come.

        Raises:
            FileMissingError: there is no such file.
        """

    def close(self) -> None:
        """Let go of connections. The endpoint is not used afterwards."""


class Proxy(Protocol):
    """A Grid proxy in memory. It lives as long as somebody holds the object."""

    @property
    def path(self) -> str:
        """/proc/self/fd/N of a sealed memfd with the PEM chain and key."""

    @property
    def not_after(self) -> datetime:
        """When the chain ends (UTC, aware)."""


class CredentialSource(Protocol):
    """Where adapters get a Grid proxy from."""

    def proxy(self) -> Proxy:
        """The current proxy, renewed ahead of its end; another object after each renewal.

        Raises:
            CredentialError: there is no session, no agent, or this client may not have a proxy.
        """


class Clock(Protocol):
    """Time, so that steps can be tested without waiting."""

    def now(self) -> datetime:
        """The current time (UTC, aware)."""
