"""What the steps need from the outside world, as Protocols. Adapters are picked in `wiring` only.

Every adapter of a port passes the same conformance suite (tests/conformance).
"""

from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from mover.errors import StorageError
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
        """The files (not directories) directly in `directory`, by name; empty if it does not exist.

        The names are as the storage tells them: any text, even such as `model.check_name` refuses. What is not UTF-8
        may be left out.
        """

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

    def bring_online_many(self, paths: Sequence[str]) -> dict[str, StorageError]:
        """Ask that files be staged, in as few requests as there can be; else as `bring_online`.

        Returns what the storage refused at once, with why; a file that does not exist may be among them or not: one
        that is refused keeps no other from coming.

        Raises:
            StorageError: the storage does not answer; some may have been asked for.
        """

    def close(self) -> None:
        """Let go of connections. The endpoint is not used afterwards."""


@dataclass(frozen=True, slots=True)
class JobInput:
    """A file that a job finds in its working directory under `name`.

    `source` is a file in the job's own directory here (`JobSpec.directory / name`), or, where the batch system stages,
    the SURL that it fetches the file from.
    """

    name: str
    source: Path | str
    size_bytes: int | None = None
    adler32: str | None = None
    executable: bool = False


@dataclass(frozen=True, slots=True)
class JobOutput:
    """A file that a job leaves in its working directory under `name`.

    `url` is the SURL that a staging batch system stores it under; None: it is kept with the job until `forget`.
    """

    name: str
    url: str | None = None


@dataclass(frozen=True, slots=True)
class JobSpec:
    """What a batch system is to run.

    `name` is unique for every attempt there ever is ([A-Za-z0-9_.-], at most 80): by it a job is found again whose
    submission was never answered. `directory` exists, is the job's own and is shared with the workers unless the batch
    system stages. `arguments[0]` is the name of an input. Standard output and error are kept as `batch.log`.
    """

    name: str
    directory: Path
    arguments: tuple[str, ...]
    inputs: tuple[JobInput, ...]
    outputs: tuple[JobOutput, ...]
    wall_seconds: int
    memory_mib: int = 2048
    cores: int = 1


class JobPhase(StrEnum):
    """Where the batch system says that a job is."""

    WAITING = "waiting"
    RUNNING = "running"
    EXITED = "exited"
    """It ran to its end; `exit_code` is the command's own."""
    TIMED_OUT = "timed out"
    CANCELLED = "cancelled"
    """Somebody ended it: we, the administrator, or a signal."""
    FAILED = "failed"
    """The batch system, not the job: the node died, or files could not be staged in or out."""


@dataclass(frozen=True, slots=True)
class JobStatus:
    """What a batch system says of a job. `words` are its own, for people."""

    phase: JobPhase
    words: str
    exit_code: int | None = None

    @property
    def ended(self) -> bool:
        """Whether it will never run again."""
        return self.phase not in {JobPhase.WAITING, JobPhase.RUNNING}


@dataclass(frozen=True, slots=True)
class BatchCapabilities:
    """What a batch system can do. Callers ask here, never for an adapter's class."""

    stages: bool
    """Whether it moves files between Grid storage and the worker itself, by a delegated proxy."""


class BatchSystem(Protocol):
    """Where jobs run. It is used from one thread at a time; every call has a deadline of its own.

    Nothing that it keeps is needed to know what became of a job's *output*: that is looked at on the storage. An
    adapter raises only `errors.BatchError`s; errors of the credential source pass through.
    """

    @property
    def name(self) -> str:
        """What kind of batch system it is: local, slurm, arc."""

    @property
    def capabilities(self) -> BatchCapabilities:
        """What this batch system can do."""

    def submit(self, job: JobSpec) -> str:
        """Hand the job over; returns the batch system's own id of it. It is not run twice for one call.

        Raises:
            BatchUnavailableError: no answer, or no room; the job may be there nevertheless: see `find`.
            JobRefusedError: it will never be taken like this.
        """

    def find(self, name: str) -> str | None:
        """The id of the job that was submitted under that name and is still known; None if there is none.

        Raises:
            BatchUnavailableError: it cannot be told.
        """

    def look(self, ids: Collection[str]) -> dict[str, JobStatus]:
        """What became of these jobs, in as few queries as there can be. Those that are not known any more are left out.

        Raises:
            BatchUnavailableError: it cannot be told; never said of a job that has vanished.
        """

    def read(self, job_id: str, name: str, *, limit_bytes: int) -> bytes | None:
        """The last `limit_bytes` of a file in the job's working directory, while or after it ran; None: there is none.

        Raises:
            BatchUnavailableError: it cannot be told.
        """

    def cancel(self, job_id: str) -> None:
        """End the job, with all its processes as far as the batch system can; no error if it has ended or is not known.

        Raises:
            BatchUnavailableError: it may still run.
        """

    def forget(self, job_id: str) -> None:
        """Let the batch system remove what it keeps of an ended job; no error if it is not known. Never `directory`.

        Raises:
            BatchUnavailableError: try again later.
        """

    def close(self) -> None:
        """Let go of connections; jobs go on. The object is not used afterwards."""


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


class DelegatingProxy(Proxy, Protocol):
    """A proxy whose key signs further proxies."""

    def delegate(self, request: bytes, lifetime_seconds: int, *, limited: bool = False) -> str:
        """A proxy below this one for a server's certificate request (PKCS#10, PEM): the chain in PEM, without any key.

        It ends after `lifetime_seconds` or with this one, and is limited if this one is or if `limited`.

        Raises:
            proxyagent.client.ProxyAgentError: the request is malformed or weak, or this proxy may not be delegated.
        """


class DelegatingSource(Protocol):
    """A `CredentialSource` whose proxies may be delegated to a service, such as a compute element."""

    def proxy(self) -> DelegatingProxy:
        """As `CredentialSource.proxy`."""


class Clock(Protocol):
    """Time, so that steps can be tested without waiting."""

    def now(self) -> datetime:
        """The current time (UTC, aware)."""
