"""The adler32 of what is stored: the storage's own, or, where it computes none, that of the bytes read back."""

from collections.abc import Callable
from contextlib import closing

from zlib_ng import zlib_ng

from mover.errors import EndpointUnavailableError, NotOnlineError
from mover.model import ChecksumKind, StoredFile
from mover.ports import StorageEndpoint


def stored_adler32(endpoint: StorageEndpoint, stored: StoredFile, alive: Callable[[int], None]) -> str:
    """The adler32 of `stored`, which a fresh query of the endpoint has just described; eight hexadecimal digits.

    `alive` is called with the bytes read back so far; what it raises ends the reading and is raised.

    Raises:
        NotOnlineError: it has to come from tape first; that has been asked for.
        EndpointUnavailableError: not as many bytes came back as the file has. That says nothing about the file: it is
            no reason to remove it.
        StorageError: the endpoint failed.
    """
    alive(0)
    try:
        if ChecksumKind.ADLER32 in endpoint.capabilities.checksums:
            return endpoint.checksum(stored.path, ChecksumKind.ADLER32, size_bytes=stored.size_bytes)
        return _read_back(endpoint, stored, alive)
    except NotOnlineError as error:
        endpoint.bring_online(stored.path)
        raise NotOnlineError(
            f"{endpoint.url(stored.path)} is on tape only, and its storage tells no checksum of it",
            hint="it is being brought online to be checked; nothing to do",
        ) from error


def origin(endpoint: StorageEndpoint) -> str:
    """Where `stored_adler32` gets it from, for the custody record."""
    own = ChecksumKind.ADLER32 in endpoint.capabilities.checksums
    return "the storage's own" if own else "of the bytes read back"


def _read_back(endpoint: StorageEndpoint, stored: StoredFile, alive: Callable[[int], None]) -> str:
    adler32 = zlib_ng.adler32(b"")
    done = 0
    # One byte more than there should be, so that a file that has grown shows.
    with closing(endpoint.read(stored.path, size_bytes=stored.size_bytes + 1)) as chunks:
        for chunk in chunks:
            adler32 = zlib_ng.adler32(chunk, adler32)
            done += len(chunk)
            alive(done)
    if done != stored.size_bytes:
        raise EndpointUnavailableError(
            f"{endpoint.url(stored.path)}: {done} bytes were read back of {stored.size_bytes}",
            hint="it is read again; if this repeats, ask the site whether the file is whole and who writes to it",
        )
    return f"{adler32:08x}"
