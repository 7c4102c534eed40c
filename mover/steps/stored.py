"""Prove a stored file that is not known yet against a bundle's size and adler32, wherever it is."""

from collections.abc import Callable
from dataclasses import dataclass

from mover.catalogue.found import FoundReplica
from mover.config import EndpointConfig
from mover.errors import EndpointUnavailableError, ForeignFileError, StorageError
from mover.model import BundleDigest, EndpointKind, StoredFile
from mover.ports import StorageEndpoint
from mover.states import ReplicaState
from mover.steps.checksums import stored_adler32
from mover.steps.readback import bring_online


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for tape, and what is called meanwhile: `wait` with seconds, `alive` with bytes read."""

    stage_seconds: float
    wait: Callable[[float], None]
    alive: Callable[[int], None] = lambda _: None

    def bring_online(self, place: EndpointConfig, endpoint: StorageEndpoint, path: str) -> None:
        """See that the file can be read; as `readback.bring_online`."""
        bring_online(
            endpoint,
            path,
            deadline_seconds=self.stage_seconds,
            poll_seconds=place.archive_poll_seconds,
            wait=self.wait,
        )


def prove(
    place: EndpointConfig, endpoint: StorageEndpoint, stored: StoredFile, digest: BundleDigest, patience: Patience
) -> FoundReplica:
    """What the replica is worth: archived or verified if it is right, quarantined if it is not.

    A file that is on tape only is brought online where the storage tells no checksum of it otherwise.

    Raises:
        StorageError: the storage does not answer.
    """
    url = endpoint.url(stored.path)
    if stored.size_bytes != digest.size_bytes:
        return _other(place, url, f"{stored.size_bytes} bytes instead of {digest.size_bytes}")
    try:
        adler32 = stored_adler32(endpoint, stored, patience.alive)
    except EndpointUnavailableError:
        raise
    except StorageError:
        if not endpoint.capabilities.tape or endpoint.locality(stored.path).online:
            raise
        patience.bring_online(place, endpoint, stored.path)
        adler32 = stored_adler32(endpoint, stored, patience.alive)
    if adler32 != digest.adler32:
        return _other(place, url, f"adler32 {adler32} instead of {digest.adler32}")
    archived = place.kind is EndpointKind.TAPE and endpoint.on_tape(stored.path)
    return FoundReplica(place.name, url, ReplicaState.ARCHIVED if archived else ReplicaState.VERIFIED)


def _other(place: EndpointConfig, url: str, how: str) -> FoundReplica:
    problem = ForeignFileError(
        f"{url} has {how}",
        hint="ask the site which file that is; when it is gone, `mover run retry` has it copied again",
    )
    return FoundReplica(place.name, url, ReplicaState.QUARANTINED, problem)
