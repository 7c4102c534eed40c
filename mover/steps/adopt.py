"""Take a bundle that others stored before us into the catalogue, after reading it once and asking every site."""

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
    EndpointUnavailableError,
    FileMissingError,
    MoverError,
    StoppedError,
    StorageError,
)
from mover.model import BundleKind, StoredFile
from mover.states import ReplicaState, RunEvent
from mover.steps.stored import Look, Sites


@dataclass(frozen=True, slots=True)
class Adoption:
    """What adopting a run came to. `unasked` are the endpoints that did not answer, with why."""

    run: int
    lfn: str
    is_new: bool
    replicas: tuple[tuple[str, ReplicaState], ...] = ()
    unasked: tuple[str, ...] = ()


def adopt(database: Database, config: Config, sites: Sites, run: int, *, now: datetime) -> Adoption:
    """Adopt the bundle of one run.

    1. The run is not known, and has no files here. 2. Look for the bundle at every endpoint. 3. Read it once, from a
    disk if possible, and hold every member against the bundle's own md5 listing. 4. Compare size, checksum and tape
    state at every endpoint. 5. Record the run as released, what is proven, and what the policy wants beside it.

    Raises:
        AdoptionError: no endpoint has it, or what they have is not what its listing says.
        FileMissingError: every endpoint says that it does not have it.
        CatalogueError: the run is known otherwise.
        CredentialError: there is no proxy to ask with.
    """
    lfn = config.bundle.naming().lfn(run)
    # 1
    if _is_adopted(database, run, lfn):
        return Adoption(run, lfn, is_new=False)
    _refuse_local_files(config, run)
    # 2
    look = sites.look(lfn)
    if not look.there:
        # Silence is not absence.
        kind = AdoptionError if look.unasked else FileMissingError
        raise kind(
            f"run {run}: no endpoint has {lfn}" + "".join(f"; {text}" for text in look.unasked.values()),
            hint="check the run number and `lfn` in `[bundle]`; ask the site if it should be there",
        )
    # 3
    reading = _read(sites, look)
    if reading.bundle.digest is None:
        raise RuntimeError("a bundle without findings has digests")
    # 4
    replicas = dict(reading.broken)
    for name, stored in look.there.items():
        if name not in replicas:
            try:
                replicas[name] = sites.prove(name, stored, reading.bundle.digest)
            except StorageError as error:
                look.unasked[name] = f"{name}: {error.message}"
    # 5
    for name in config.raw_policy().endpoints:
        replicas.setdefault(name, sites.wanted(name, lfn))
    facts = {"sha256": reading.bundle.sha256, "read_from": reading.source, "not_asked": sorted(look.unasked)}
    found = FoundBundle(
        run, BundleKind.RAW, lfn, None, reading.bundle.digest, tuple(replicas.values()), tuple(facts.items())
    )
    record_found(database, found, RunEvent.FOUND_STORED, backlog=True, first_upload=0, now=now)
    states = tuple((one.endpoint, one.state) for one in replicas.values())
    return Adoption(run, lfn, is_new=True, replicas=states, unasked=tuple(look.unasked.values()))


@dataclass(frozen=True, slots=True)
class _Reading:
    """A bundle that is right, where it was read, and the replicas before it that were not right."""

    source: str
    bundle: ForeignBundle
    broken: dict[str, FoundReplica]


def _read(sites: Sites, look: Look) -> _Reading:
    broken: dict[str, FoundReplica] = {}
    errors: list[str] = []
    for name in sites.nearest(list(look.there)):
        stored = look.there[name]
        try:
            read = _read_one(sites, name, stored)
        except (CredentialError, StoppedError):
            raise
        except MoverError as error:
            errors.append(f"{name}: {error.message}")
            continue
        if not read.findings:
            return _Reading(name, read, broken)
        broken[name] = sites.wrong(name, stored.path, f"is not what its listing says: {'; '.join(read.findings)}")
        errors.append(f"{name}: {'; '.join(read.findings)}")
    raise AdoptionError(
        f"{stored.path} is not adopted: {'; '.join(errors)}", hint="nothing was recorded; mend it, then adopt it again"
    )


def _read_one(sites: Sites, name: str, stored: StoredFile) -> ForeignBundle:
    sites.bring_online(name, stored.path)
    with closing(sites.read(name, stored)) as chunks:
        read = read_foreign(chunks, md5_name(stored.path))
    if read.digest is not None and read.digest.size_bytes != stored.size_bytes:
        raise EndpointUnavailableError(
            f"{sites.url(name, stored.path)} gave {read.digest.size_bytes} of {stored.size_bytes} bytes",
            hint="try again; if this repeats, ask the site",
        )
    return read


def _refuse_local_files(config: Config, run: int) -> None:
    with open_directory(config.runs.directory) as directory:
        parts, _ = list_run(directory, config.runs.naming(), run)
    if parts:
        raise AdoptionError(
            f"run {run} has files in {config.runs.directory}: it is not only stored",
            hint=f"`mover run close {run}` moves them; or take them away, if others have stored them",
        )


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
