"""What a step on a replica is given, and the one way to hold a stored file against what was planned."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

from mover.bundle.readymade import FileReader
from mover.bundle.stream import BundleReader, read_through
from mover.catalogue.database import Database
from mover.catalogue.replicas import Claim, ReplicaRecord, renew_claim
from mover.catalogue.runs import BundleRecord, record_digest
from mover.config import Config, EndpointConfig
from mover.errors import LeaseLostError, RunChangedError, VerificationError
from mover.model import BundleDigest, StoredFile
from mover.ports import Clock, StorageEndpoint
from mover.steps.checksums import stored_adler32


@dataclass(frozen=True, slots=True)
class Work:
    """One claimed replica and everything that a step needs for it.

    `endpoints` has an adapter for each configured endpoint, for this lane alone. `alive(bytes_done)` is called often:
    it renews the lease, shows progress, and raises when the work must stop. `pace(size_bytes)` is called for what goes
    over this machine's line, to the endpoint or back, and waits as long as its bandwidth limit says.
    """

    database: Database
    claim: Claim
    replica: ReplicaRecord
    bundle: BundleRecord
    config: Config
    endpoints: Mapping[str, StorageEndpoint]
    clock: Clock
    alive: Callable[[int], None]
    pace: Callable[[int], None]

    @property
    def place(self) -> EndpointConfig:
        """The configuration of the endpoint where the replica is wanted."""
        return self.config.places[self.claim.endpoint]

    @property
    def endpoint(self) -> StorageEndpoint:
        """The adapter of that endpoint."""
        return self.endpoints[self.claim.endpoint]

    @property
    def poll(self) -> timedelta:
        """How soon to look again at a tape that has not done its work yet."""
        return timedelta(seconds=self.place.archive_poll_seconds)

    def renew(self) -> None:
        """Extend the lease, before something that cannot be undone or may take long.

        Raises:
            LeaseLostError: another engine works on this replica now; its files are no longer ours to remove.
        """
        renew_claim(self.database, self.claim, now=self.clock.now())

    def may_remove(self) -> bool:
        """Whether the claim still holds; it does for a whole lease from here on."""
        try:
            self.renew()
        except LeaseLostError:
            return False
        return True

    def is_ours(self, stored: StoredFile) -> bool:
        """Whether a file that is not right is what an attempt of ours left, and so ours to remove.

        It stands under the name whose intent is committed. Under a final name, which others may use too, it is not
        larger than what was planned; under a temporary one, which nobody else is given, it may be: a third-party copy
        takes what its source has become.
        """
        if stored.path != self.replica.intent_path:
            return False
        return stored.path != self.lfn or stored.size_bytes <= self.bundle.size_bytes

    def remove(self, path: str) -> None:
        """Remove a file of ours at the endpoint.

        Raises:
            LeaseLostError: another engine works on this replica now.
        """
        self.renew()
        self.endpoint.remove(path)

    @property
    def lfn(self) -> str:
        """The bundle's final name."""
        return self.bundle.lfn

    def waiting(self) -> None:
        """Called while the local disk gives nothing: `alive`, without progress."""
        self.alive(0)

    def watched(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """The chunks, with `alive` called for each."""
        done = 0
        for chunk in chunks:
            self.alive(done)
            yield chunk
            done += len(chunk)
        self.alive(done)

    def sent(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """The chunks of an upload: `watched`, and paced."""
        for chunk in self.watched(chunks):
            self.pace(len(chunk))
            yield chunk

    def check(self, stored: StoredFile) -> None:
        """As `check_stored`, for a file at the endpoint; what is read back is paced."""
        seen = 0

        def read(bytes_done: int) -> None:
            nonlocal seen
            self.pace(bytes_done - seen)
            seen = bytes_done
            self.alive(bytes_done)

        check_stored(self.endpoint, stored, self.digest(), read)

    def reader(self) -> BundleReader | FileReader:
        """A reading of the local files, held against an earlier one if there was any.

        Raises:
            RunChangedError: the bundle is not made from local files.
        """
        if self.bundle.ready_made is not None and self.bundle.digest is not None:
            return FileReader(self.bundle.ready_made, expected=self.bundle.digest)
        if self.bundle.plan is None:
            raise RunChangedError(
                f"{self.lfn} was adopted, it cannot be made again from local files",
                hint=f"`mover run show {self.claim.run}` says where it is stored",
            )
        return BundleReader(self.bundle.plan, self.config.runs.directory, expected=self.bundle.digest)

    def digest(self) -> BundleDigest:
        """The bundle's digest; where no reading has been completed yet, the local files are read for it.

        Raises:
            RunChangedError: the files are not those that were planned.
        """
        if self.bundle.digest is not None:
            return self.bundle.digest
        reader = self.reader()
        read_through(self.watched(reader.chunks()))
        return record_digest(self.database, self.bundle, reader.digest, now=self.clock.now())


def check_stored(
    endpoint: StorageEndpoint, stored: StoredFile, digest: BundleDigest, alive: Callable[[int], None]
) -> None:
    """Hold a stored file against the bundle's size and adler32, asking the storage afresh.

    1. The size is the planned one. 2. The adler32 is the one computed while reading: the storage's own, or that of the
    bytes read back; `alive` is called meanwhile, and what it raises is raised.

    Raises:
        VerificationError: one of them differs.
        StorageError: the storage does not answer.
    """
    hint = "it is removed and uploaded again if it is ours; if this repeats, ask the site to look at its storage"
    # 1
    if stored.size_bytes != digest.size_bytes:
        raise VerificationError(
            f"{endpoint.url(stored.path)} has {stored.size_bytes} bytes instead of {digest.size_bytes}", hint=hint
        )
    # 2
    adler32 = stored_adler32(endpoint, stored, alive)
    if adler32 != digest.adler32:
        raise VerificationError(
            f"{endpoint.url(stored.path)} has adler32 {adler32} instead of {digest.adler32}", hint=hint
        )
