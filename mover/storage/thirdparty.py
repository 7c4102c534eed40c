"""What third-party copies of every protocol have in common: who may copy with whom, and who watches a copy."""

import time
from collections.abc import Callable

from mover.errors import AccessDeniedError, EndpointUnavailableError, StorageError, ThirdPartyCopyError
from mover.ports import StorageEndpoint

#: How long a wait for news of a copy may last before `Watch.look` is due again, in seconds.
LOOK_SECONDS = 1.0

_OTHER_WAY = "let the bundle be streamed, or ask both sites whether they copy with each other"


def check_pair(protocol: str, source: StorageEndpoint, target: StorageEndpoint) -> None:
    """Both ends must copy in the protocol.

    Raises:
        ThirdPartyCopyError: one of them does not.
    """
    for end in (source, target):
        if protocol not in end.capabilities.third_party_copy:
            raise ThirdPartyCopyError(
                f"endpoint {end.name} does no third-party copy by {protocol}, so {source.name} and {target.name} "
                "cannot copy directly",
                hint=_OTHER_WAY,
            )


class Watch:
    """Tells `alive` how far a copy is, from the thread that made the watch, and ends a copy that stands still."""

    def __init__(self, alive: Callable[[int], None], *, what: str, stall_seconds: float) -> None:
        """`what` is copied where, for messages. The stall timeout begins now."""
        self._alive = alive
        self._what = what
        self._stall_seconds = stall_seconds
        self._moved = time.monotonic()
        self._done_bytes = 0
        #: Whether the target has been asked to make the file, so that what stands there may be ours.
        self.begun = False

    def saw(self, done_bytes: int) -> None:
        """The storage says that `done_bytes` are copied. Only more than before is progress."""
        if done_bytes > self._done_bytes:
            self._done_bytes = done_bytes
            self._moved = time.monotonic()

    def look(self) -> None:
        """To be called every `LOOK_SECONDS`.

        Raises:
            EndpointUnavailableError: no progress for the stall timeout.
            BaseException: whatever `alive` raises.
        """
        self._alive(self._done_bytes)
        if time.monotonic() - self._moved > self._stall_seconds:
            raise EndpointUnavailableError(
                f"{self._what}: no progress for {self._stall_seconds:g} s, after {self._done_bytes} bytes",
                hint="nothing to do if it is a short outage: it is tried again; else ask both sites",
            )


def between_storages(error: StorageError) -> StorageError:
    """What an error of the copy itself means, when both ends have let us look at the files just before.

    A refusal is then one of the storages' refusing the other, or one's not knowing how to copy: another way may work.
    """
    if isinstance(error, AccessDeniedError) or type(error) is StorageError:
        return ThirdPartyCopyError(error.message, hint=_OTHER_WAY)
    return error
