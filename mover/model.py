"""The facts that the mover deals in: runs, parts, bundles, replicas. Frozen, and free of any I/O."""

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from mover.errors import UnsafeNameError


class EndpointKind(StrEnum):
    """What an endpoint does with a file after it is written."""

    TAPE = "tape"
    DISK = "disk"


class BundleKind(StrEnum):
    """What a bundle holds."""

    RAW = "raw"
    RECO = "reco"
    MC = "mc"


class ChecksumKind(StrEnum):
    """Whole-file checksums that a storage element may compute, as lower-case hexadecimal."""

    ADLER32 = "adler32"
    MD5 = "md5"


class Locality(StrEnum):
    """Where a tape endpoint has a file's bytes (WLCG Tape REST API v1, fileLocality)."""

    DISK = "DISK"
    TAPE = "TAPE"
    DISK_AND_TAPE = "DISK_AND_TAPE"
    LOST = "LOST"
    NONE = "NONE"
    UNAVAILABLE = "UNAVAILABLE"

    @property
    def online(self) -> bool:
        """Whether the file can be read at once."""
        return self in {Locality.DISK, Locality.DISK_AND_TAPE}


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a run, as the DAQ wrote it. `mtime_ns` is kept to notice a change; bundles use whole seconds."""

    number: int
    name: str
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class MemberDigest:
    """The digests of one bundle member, by algorithm, as lower-case hexadecimal."""

    name: str
    size_bytes: int
    digests: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class BundleDigest:
    """What one complete reading of a bundle found: its adler32 and every member's digests."""

    size_bytes: int
    adler32: str
    members: tuple[MemberDigest, ...]


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file as an endpoint describes it. `path` is relative to the endpoint's base."""

    path: str
    size_bytes: int
    modified: datetime


_UNSAFE = re.compile(r"[^A-Za-z0-9._+=@,-]")


def check_name(name: str) -> str:
    """Return `name` if it may be a file's name in a bundle and at an endpoint.

    Allowed are letters, digits and ``._+=@,-``, so that no name needs quoting in a URL, a tar or an md5 file.

    Raises:
        UnsafeNameError: the name is empty, '.', '..', starts with '-', is over 200 bytes, or has another character.
    """
    if not name or name in {".", ".."} or name.startswith("-") or len(name) > 200 or _UNSAFE.search(name):
        raise UnsafeNameError(
            f"unsafe file name {name!r}",
            hint="use letters, digits and . _ + = @ , - only, and rename or remove the file",
        )
    return name


def check_path(path: str) -> str:
    """Return `path`, names joined by single slashes, if it may be used below an endpoint's base.

    Raises:
        UnsafeNameError: one of its names is not allowed by `check_name`.
    """
    for name in path.split("/"):
        check_name(name)
    return path
