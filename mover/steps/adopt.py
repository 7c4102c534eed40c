"""Take a bundle that others stored before us into the catalogue, after reading it once and asking every site."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime

from mover.bundle.foreign import ForeignBundle, read_foreign
from mover.bundle.plan import md5_name
from mover.bundle.scan import list_run, open_directory
from mover.catalogue.database import Database
from mover.catalogue.found import FoundBundle, FoundReplica, record_found
from mover.catalogue.runs import bundle_of, find_run
from mover.config import Config
from mover.errors import (
    AdoptionError,
    CatalogueError,
    CredentialError,
    FileMissingError,
    MoverError,
    StoppedError,
    StorageError,
)
from mover.model import BundleKind, StoredFile
from mover.ports import StorageEndpoint
from mover.states import ReplicaState, RunEvent
from mover.steps.readback import read_back
from mover.steps.stored import Patience, prove


@dataclass(frozen=True, slots=True)
class Adoption:
    """What adopting a run came to. `unasked` are the endpoints that did not answer, with why."""

    run: int
    lfn: str
    is_new: bool
    replicas: tuple[tuple[str, ReplicaState], ...] = ()
    unasked: tuple[str, ...] = ()


class Adopter:
    """Adopts runs, by the configuration. `names` are the endpoints to ask; the engine asks the others later."""

    def __init__(
        self,
        config: Config,
        endpoints: Mapping[str, StorageEndpoint],
        patience: Patience,
        *,
        names: Sequence[str] = (),
    ) -> None:
        self._config = config
        self._endpoints = endpoints
        self._patience = patience
        self._names = tuple(names) or tuple(config.places)

    def adopt(self, database: Database, run: int, *, now: datetime) -> Adoption:
        """Adopt the bundle of one run.

        1. The run is not known, and has no files here. 2. Look for the bundle at every endpoint. 3. Read it once, from
        a disk if possible, and hold every member against the bundle's own md5 listing. 4. Compare size, checksum and
        tape state at every endpoint. 5. Record the run as released, what is proven, and what the policy wants beside.

        Raises:
            AdoptionError: no endpoint has it, or what they have is not what its listing says.
            FileMissingError: every endpoint says that it does not have it.
            CatalogueError: the run is known otherwise.
            CredentialError: there is no proxy to ask with.
        """
        lfn = self._config.bundle.naming().lfn(run)
        # 1
        if _is_adopted(database, run, lfn):
            return Adoption(run, lfn, is_new=False)
        self._refuse_local_files(run)
        # 2
        there, unasked = self._look(lfn)
        if not there:
            # Silence is not absence.
            kind = AdoptionError if unasked else FileMissingError
            raise kind(
                f"run {run}: no endpoint has {lfn}" + "".join(f"; {text}" for text in unasked.values()),
                hint="check the run number and `lfn` in `[bundle]`; ask the site if it should be there",
            )
        # 3
        source, read, broken = self._read(lfn, there)
        digest = read.digest
        if digest is None:
            raise RuntimeError("a bundle without findings has digests")
        # 4
        replicas = dict(broken)
        for name, stored in there.items():
            if name not in replicas:
                try:
                    place, endpoint = self._config.places[name], self._endpoints[name]
                    replicas[name] = prove(place, endpoint, stored, digest, self._patience)
                except StorageError as error:
                    unasked[name] = f"{name}: {error.message}"
        # 5. What was not asked, or does not have it, is wanted: the engine looks there before it copies anything.
        for name in self._config.raw_policy().endpoints:
            if name not in replicas:
                replicas[name] = FoundReplica(name, self._endpoints[name].url(lfn), ReplicaState.WANTED)
        facts = (("sha256", read.sha256), ("read_from", source), ("not_asked", sorted(unasked)))
        found = FoundBundle(run, BundleKind.RAW, lfn, None, digest, tuple(replicas.values()), facts)
        record_found(database, found, RunEvent.FOUND_STORED, backlog=True, first_upload=0, now=now)
        states = tuple((one.endpoint, one.state) for one in replicas.values())
        return Adoption(run, lfn, is_new=True, replicas=states, unasked=tuple(unasked.values()))

    def _refuse_local_files(self, run: int) -> None:
        with open_directory(self._config.runs.directory) as directory:
            parts, _ = list_run(directory, self._config.runs.naming(), run)
        if parts:
            raise AdoptionError(
                f"run {run} has files in {self._config.runs.directory}: it is not only stored",
                hint=f"`mover run close {run}` moves them; or take them away, if others have stored them",
            )

    def _look(self, lfn: str) -> tuple[dict[str, StoredFile], dict[str, str]]:
        """What is stored under the LFN, and which endpoints do not answer."""
        there, unasked = {}, {}
        for name in self._names:
            try:
                stored = self._endpoints[name].stat(lfn)
            except StorageError as error:
                unasked[name] = f"{name}: {error.message}"
            else:
                if stored is not None:
                    there[name] = stored
        return there, unasked

    def _read(self, lfn: str, there: Mapping[str, StoredFile]) -> tuple[str, ForeignBundle, dict[str, FoundReplica]]:
        """Read a replica that is right: where, what was found, and the ones before it that are not right."""
        broken: dict[str, FoundReplica] = {}
        errors: list[str] = []
        for name in sorted(there, key=self._distance):
            try:
                read = self._read_one(name, there[name])
            except (CredentialError, StoppedError):
                raise
            except MoverError as error:
                errors.append(f"{name}: {error.message}")
                continue
            if not read.findings:
                return name, read, broken
            url = self._endpoints[name].url(lfn)
            problem = AdoptionError(
                f"{url} is not what its own listing says: {'; '.join(read.findings)}",
                hint="ask the site and the experiment what happened to it",
            )
            broken[name] = FoundReplica(name, url, ReplicaState.QUARANTINED, problem)
            errors.append(problem.message)
        raise AdoptionError(
            f"{lfn} is not adopted: {'; '.join(errors)}", hint="nothing was recorded; mend it, then adopt it again"
        )

    def _read_one(self, name: str, stored: StoredFile) -> ForeignBundle:
        endpoint = self._endpoints[name]
        self._patience.bring_online(self._config.places[name], endpoint, stored.path)
        most, alive = stored.size_bytes + 1, self._patience.alive
        with closing(read_back(endpoint, stored.path, most_bytes=most, alive=alive)) as chunks:
            read = read_foreign(chunks, md5_name(stored.path))
        if read.digest is not None and read.digest.size_bytes != stored.size_bytes:
            raise FileMissingError(
                f"{endpoint.url(stored.path)} gave {read.digest.size_bytes} of {stored.size_bytes} bytes",
                hint="ask the site",
            )
        return read

    def _distance(self, name: str) -> int:
        """Disk before tape."""
        return int(self._endpoints[name].capabilities.tape)


def _is_adopted(database: Database, run: int, lfn: str) -> bool:
    """Whether the run was adopted before, under that LFN.

    Raises:
        CatalogueError: it is known otherwise.
    """
    known, bundle = find_run(database, run), bundle_of(database, run)
    if known is None:
        return False
    if bundle is not None and bundle.plan is None and bundle.lfn == lfn:
        return True
    raise CatalogueError(
        f"run {run} is known already: it is {known.state}, and was not adopted",
        hint=f"`mover run show {run}` tells its story; nothing was changed",
    )
