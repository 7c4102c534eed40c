"""Read a stored bundle back, bringing it online first where it is on tape only."""

import time
from collections.abc import Callable, Generator
from contextlib import closing

from mover.errors import FileMissingError, NotOnlineError
from mover.model import Locality
from mover.ports import StorageEndpoint

_LOST = {Locality.LOST, Locality.NONE}


def bring_online(
    endpoint: StorageEndpoint,
    path: str,
    *,
    deadline_seconds: float,
    poll_seconds: float,
    wait: Callable[[float], None],
) -> None:
    """Return when the file can be read; at once where there is no tape.

    Args:
        wait: waits so many seconds, or raises if the work must stop.

    Raises:
        FileMissingError: the storage says that it has lost the bytes.
        NotOnlineError: they have not come in time.
        StorageError: the endpoint does not answer.
    """
    if not endpoint.capabilities.tape:
        return
    deadline = time.monotonic() + deadline_seconds
    asked = False
    while not (locality := endpoint.locality(path)).online:
        if locality in _LOST:
            raise FileMissingError(
                f"{endpoint.url(path)} is {locality} at its storage", hint="ask the site what became of the tape"
            )
        if not asked:
            endpoint.bring_online(path)
            asked = True
            continue
        if time.monotonic() > deadline:
            raise NotOnlineError(
                f"{endpoint.url(path)} did not come from tape within {deadline_seconds:.0f} s (it is {locality})",
                hint="ask the site whether its tapes are read now; try again later, or wait longer",
            )
        wait(poll_seconds)


def read_back(
    endpoint: StorageEndpoint, path: str, *, most_bytes: int, alive: Callable[[int], None]
) -> Generator[bytes, None, None]:
    """The file's bytes, at most so many, with `alive` told of the size of each chunk; it may raise to end it."""
    with closing(endpoint.read(path, size_bytes=most_bytes)) as chunks:
        for chunk in chunks:
            alive(len(chunk))
            yield chunk
