"""One reco agent works a catalogue, and one a scratch area: each is locked for as long as the process lives."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from mover.errors import CatalogueError, OutputError

_LOCK_NAME = "agent.lock"


@contextmanager
def alone(catalogue: Path, scratch: Path) -> Iterator[None]:
    """Be the only agent of both in the block. The files that are locked stay, and have nothing in them.

    Two agents with scratch areas of their own would look for each other's outputs in vain; two with one scratch area
    would sweep away each other's jobs.

    Raises:
        CatalogueError: another agent works the catalogue.
        OutputError: another agent works in the scratch area, or a lock cannot be had.
    """
    with ExitStack() as stack:
        # Not the catalogue itself: closing that would drop SQLite's own locks.
        if not stack.enter_context(_locked(catalogue.with_name(f"{catalogue.name}-reco-agent.lock"))):
            raise CatalogueError(
                f"another reco agent works the catalogue {catalogue}",
                hint="there is one agent to a catalogue: end the other first; `pgrep -af 'reco agent'` finds it",
            )
        if not stack.enter_context(_locked(scratch / _LOCK_NAME)):
            raise OutputError(
                f"another reco agent works in the scratch area {scratch}",
                hint="give each agent a `scratch` of its own in `[reco]`, or end the other one",
            )
        yield


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Whether the lock could be had; the kernel lets go of it with the last process that holds it."""
    try:
        # For reading, so that a file that another user has left is no obstacle.
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise _no_lock(path, error) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError as error:
            raise _no_lock(path, error) from error
        yield True
    finally:
        os.close(descriptor)


def _no_lock(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"cannot lock {path}: {error.strerror}",
        hint="check the owner of its folder; on NFS, that the server and the mount support locks",
    )
