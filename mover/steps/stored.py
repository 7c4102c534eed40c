"""What the endpoints have of a bundle that the catalogue does not know yet, and what each replica is worth."""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass

from mover.catalogue.found import FoundReplica
from mover.config import Config
from mover.errors import EndpointUnavailableError, ForeignFileError, NotOnlineError, StorageError
from mover.model import BundleDigest, EndpointKind, StoredFile
from mover.ports import StorageEndpoint
from mover.states import ReplicaState
from mover.steps.checksums import stored_adler32
from mover.steps.readback import bring_online, read_back


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for tape, and what is called meanwhile: `wait` with seconds, `alive` with bytes read."""

    stage_seconds: float
    wait: Callable[[float], None]
    alive: Callable[[int], None] = lambda _: None


@dataclass(frozen=True, slots=True)
class Look:
    """Where an LFN is stored, and which endpoints did not answer, with why."""

    there: dict[str, StoredFile]
    unasked: dict[str, str]


class Sites:
    """The endpoints that are asked: all that are configured, or those of `names`."""

    def __init__(
        self,
        config: Config,
        endpoints: Mapping[str, StorageEndpoint],
        patience: Patience,
        *,
        names: Sequence[str] = (),
    ) -> None:
        self.names = tuple(names) or tuple(config.places)
        self._config = config
        self._endpoints = endpoints
        self._patience = patience

    def url(self, name: str, lfn: str) -> str:
        """The SURL of `lfn` at an endpoint."""
        return self._endpoints[name].url(lfn)

    def endpoint(self, name: str) -> StorageEndpoint:
        """The adapter."""
        return self._endpoints[name]

    def look(self, lfn: str) -> Look:
        """Ask every endpoint whether it has the file.

        Raises:
            CredentialError: there is no proxy to ask with.
        """
        look = Look({}, {})
        for name in self.names:
            try:
                stored = self._endpoints[name].stat(lfn)
            except StorageError as error:
                look.unasked[name] = f"{name}: {error.message}"
            else:
                if stored is not None:
                    look.there[name] = stored
        return look

    def nearest(self, names: Sequence[str]) -> list[str]:
        """Disks before tapes."""
        return sorted(names, key=lambda name: self._endpoints[name].capabilities.tape)

    def bring_online(self, name: str, lfn: str) -> None:
        """See that the file can be read, as `readback.bring_online`."""
        bring_online(
            self._endpoints[name],
            lfn,
            deadline_seconds=self._patience.stage_seconds,
            poll_seconds=self._config.places[name].archive_poll_seconds,
            wait=self._patience.wait,
        )

    def read(self, name: str, stored: StoredFile) -> Generator[bytes, None, None]:
        """All of the file, once it is online, and a byte more if there is one."""
        most, alive = stored.size_bytes + 1, self._patience.alive
        return read_back(self._endpoints[name], stored.path, most_bytes=most, alive=alive)

    def adler32(self, name: str, stored: StoredFile) -> str:
        """The stored file's adler32. One that is on tape only is brought online if the storage tells none otherwise.

        Raises:
            StorageError: the storage does not answer.
        """
        endpoint = self._endpoints[name]
        try:
            return stored_adler32(endpoint, stored, self._patience.alive)
        except EndpointUnavailableError:
            raise
        except NotOnlineError:
            # It was asked for, and may have come by now.
            pass
        except StorageError:
            if not endpoint.capabilities.tape or endpoint.locality(stored.path).online:
                raise
        self.bring_online(name, stored.path)
        return stored_adler32(endpoint, stored, self._patience.alive)

    def prove(self, name: str, stored: StoredFile, digest: BundleDigest) -> FoundReplica:
        """What the replica is worth: archived or verified if size and adler32 are right, quarantined if not.

        Raises:
            StorageError: the storage does not answer.
        """
        if stored.size_bytes != digest.size_bytes:
            return self.wrong(name, stored.path, f"has {stored.size_bytes} bytes instead of {digest.size_bytes}")
        adler32 = self.adler32(name, stored)
        if adler32 != digest.adler32:
            return self.wrong(name, stored.path, f"has adler32 {adler32} instead of {digest.adler32}")
        return self.right(name, stored.path)

    def right(self, name: str, lfn: str) -> FoundReplica:
        """The replica, whose bytes are proven: archived if it is on tape, else verified.

        Raises:
            StorageError: the storage does not answer.
        """
        archived = self._config.places[name].kind is EndpointKind.TAPE and self._endpoints[name].on_tape(lfn)
        return FoundReplica(name, self.url(name, lfn), ReplicaState.ARCHIVED if archived else ReplicaState.VERIFIED)

    def wrong(self, name: str, lfn: str, how: str) -> FoundReplica:
        """The replica, which needs a person."""
        problem = ForeignFileError(
            f"{self.url(name, lfn)} {how}",
            hint="ask the site which file that is; when it is gone, `mover run retry` has it copied again",
        )
        return FoundReplica(name, self.url(name, lfn), ReplicaState.QUARANTINED, problem)

    def wanted(self, name: str, lfn: str) -> FoundReplica:
        """What the policy wants and is not there, or was not asked: the engine looks before it copies anything."""
        return FoundReplica(name, self.url(name, lfn), ReplicaState.WANTED)
