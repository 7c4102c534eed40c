"""Deterministic tar framing: headers from name, size and mtime alone, so that a bundle's size is known beforehand.

POSIX.1-2001 (PAX) as the standard library writes it: uid and gid 0, no user names, mode 0644, whole-second mtimes.
"""

import tarfile

BLOCK_BYTES = tarfile.BLOCKSIZE
RECORD_BYTES = tarfile.RECORDSIZE


def header(name: str, size_bytes: int, mtime_seconds: int) -> bytes:
    """The header blocks of a member; a PAX extended header comes first for 8 GiB and more."""
    info = tarfile.TarInfo(name)
    info.size = size_bytes
    info.mtime = mtime_seconds
    info.mode = 0o644
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")


def padding(size_bytes: int) -> bytes:
    """The zeros that fill a member's last block."""
    return bytes(-size_bytes % BLOCK_BYTES)


def trailer(size_bytes: int) -> bytes:
    """The end of an archive of `size_bytes` so far: two zero blocks, filled up to a whole record."""
    return bytes(2 * BLOCK_BYTES + -(size_bytes + 2 * BLOCK_BYTES) % RECORD_BYTES)


def member_bytes(name: str, size_bytes: int, mtime_seconds: int) -> int:
    """How many bytes a member takes in the archive."""
    return len(header(name, size_bytes, mtime_seconds)) + size_bytes + len(padding(size_bytes))
