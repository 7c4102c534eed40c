"""Make a run's entry in a new catalogue from what is stored of it alone."""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime

from mover.bundle.inspect import inspect_planned
from mover.bundle.manifest import ManifestError, StoredPlan, read_stored_plan
from mover.catalogue.database import Database
from mover.catalogue.found import FoundBundle, FoundReplica, record_found
from mover.catalogue.runs import record_problem, record_safe
from mover.config import Config
from mover.errors import AdoptionError, StorageError
from mover.model import BundleDigest, BundleKind, StoredFile
from mover.policy import ProvenReplica, assess
from mover.states import ReplicaState, RunEvent, RunState
from mover.steps.adopt import adopt
from mover.steps.here import compare_local_files
from mover.steps.stored import Look, Sites


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a run's entry has become; `state` is None if there is none. `troubles` need a person, `unasked` patience."""

    run: int
    state: RunState | None
    replicas: tuple[tuple[str, ReplicaState], ...] = ()
    troubles: tuple[str, ...] = ()
    unasked: tuple[str, ...] = ()


def rebuild_run(
    database: Database, config: Config, sites: Sites, run: int, *, deep: bool, now: datetime
) -> Rebuilt | None:
    """Enter one run, or nothing if no endpoint has a bundle of it.

    1. Look for the bundle at every endpoint. 2. Read its plan from the manifest of one of them; a bundle without a
    manifest is adopted. 3. Compare size and adler32 at every endpoint; where two differ, and with `deep` always, every
    replica is read back. 4. Tape state. 5. Compare the local files, if there are any. 6. Record it.

    Raises:
        CredentialError: there is no proxy to ask with.
        RunDirectoryError: the run directory cannot be read.
    """
    lfn = config.bundle.naming().lfn(run)
    # 1
    look = sites.look(lfn)
    if not look.there:
        return Rebuilt(run, None, unasked=tuple(look.unasked.values())) if look.unasked else None
    # 2
    source = _Source(config, sites, look, run)
    stored = source.read_plan()
    if stored is None:
        if source.is_foreign:
            return _adopt(database, config, sites, run, now=now)
        return Rebuilt(run, None, troubles=tuple(source.troubles), unasked=tuple(look.unasked.values()))
    # 3, 4
    judged = _judge(sites, look, stored, set(look.there) if deep else source.suspects)
    if judged.adler32 is None:
        troubles = (*source.troubles, *(one.problem.message for one in judged.replicas.values() if one.problem))
        return Rebuilt(run, None, troubles=troubles, unasked=tuple(look.unasked.values()))
    replicas = dict(judged.replicas)
    for name in config.raw_policy().endpoints:
        replicas.setdefault(name, sites.wanted(name, lfn))
    # 5
    here = compare_local_files(config.runs.directory, config.runs.naming(), stored.plan)
    # 6
    digest = BundleDigest(stored.plan.size_bytes, judged.adler32, stored.members)
    facts = (("rebuilt", "from the storage"), ("read_back", deep or judged.differed), ("manifest_of", source.name))
    found = FoundBundle(run, BundleKind.RAW, lfn, here.plan, digest, tuple(replicas.values()), facts)
    event = RunEvent.FOUND_BOTH if here.any else RunEvent.FOUND_STORED
    # Temporary names of earlier days end in small numbers.
    record_found(database, found, event, backlog=True, first_upload=int(now.timestamp()), now=now)
    state = _finish(database, config, run, replicas, here_too=here.any, now=now)
    if here.problem:
        record_problem(database, run, here.problem, now=now)
    wrong = [one.problem.message for one in replicas.values() if one.problem]
    wrong += [here.problem.message] if here.problem else []
    return Rebuilt(
        run,
        state,
        tuple((one.endpoint, one.state) for one in replicas.values()),
        tuple(dict.fromkeys([*source.troubles, *wrong])),
        tuple(look.unasked.values()),
    )


def _finish(
    database: Database,
    config: Config,
    run: int,
    replicas: Mapping[str, FoundReplica],
    *,
    here_too: bool,
    now: datetime,
) -> RunState:
    if not here_too:
        return RunState.RELEASED
    known = [(config.places[one.endpoint], one.state) for one in replicas.values()]
    proven = [ProvenReplica(place.name, place.kind, place.site, state) for place, state in known]
    assessment = assess(config.raw_policy(), proven)
    if assessment.holds and record_safe(database, run, now=now, found=str(assessment)):
        return RunState.SAFE
    return RunState.PLANNED


class _Source:
    """Reads the plan from the first replica whose manifest is right. `is_foreign`: there is one without a manifest."""

    def __init__(self, config: Config, sites: Sites, look: Look, run: int) -> None:
        self.name = ""
        self.is_foreign = False
        self.troubles: list[str] = []
        #: Whose end is not right: their checksums are not believed.
        self.suspects: set[str] = set()
        self._config = config
        self._sites = sites
        self._look = look
        self._run = run

    def read_plan(self) -> StoredPlan | None:
        """The plan, or None. Why not stands in `troubles`, or in the look's `unasked`."""
        for name in self._sites.nearest(list(self._look.there)):
            stored = self._look.there[name]
            try:
                found = self._read(name, stored)
            except ManifestError as error:
                self.troubles.append(f"{self._sites.url(name, stored.path)}: {error}")
                self.suspects.add(name)
            except StorageError as error:
                self._look.unasked[name] = f"{name}: {error.message}"
            else:
                if found is not None:
                    self.name = name
                    return found
                self.is_foreign = True
        return None

    def _read(self, name: str, stored: StoredFile) -> StoredPlan | None:
        endpoint = self._sites.endpoint(name)
        self._sites.bring_online(name, stored.path)

        def read(offset: int, size_bytes: int) -> bytes:
            with closing(endpoint.read(stored.path, offset=offset, size_bytes=size_bytes)) as chunks:
                return b"".join(chunks)

        naming = self._config.runs.naming()
        found = read_stored_plan(read, stored.size_bytes, lfn=stored.path, number_of=naming.part_number)
        if found is not None and (found.plan.run, found.plan.experiment) != (self._run, self._config.experiment):
            raise ManifestError(f"its manifest is of run {found.plan.run} of {found.plan.experiment!r}")
        return found


@dataclass(frozen=True, slots=True)
class _Judged:
    """The replicas that are right or wrong, and the adler32 of those that are right. `differed`: they did not agree."""

    replicas: dict[str, FoundReplica]
    adler32: str | None
    differed: bool


def _judge(sites: Sites, look: Look, stored: StoredPlan, suspects: set[str]) -> _Judged:
    """Compare the replicas with the plan and with each other, and read back the suspects, or all if they differ.

    What does not answer stands in the look's `unasked`.
    """
    replicas: dict[str, FoundReplica] = {}
    adler32s: dict[str, str] = {}
    size_bytes = stored.plan.size_bytes
    for name, file in look.there.items():
        if name in look.unasked:
            continue
        if file.size_bytes != size_bytes:
            replicas[name] = sites.wrong(name, file.path, f"has {file.size_bytes} bytes instead of {size_bytes}")
            continue
        try:
            adler32s[name] = sites.adler32(name, file)
        except StorageError as error:
            look.unasked[name] = f"{name}: {error.message}"
    differed = len(set(adler32s.values())) > 1
    for name, adler32 in list(adler32s.items()):
        file = look.there[name]
        try:
            findings = _read_back(sites, name, file, stored, adler32) if differed or name in suspects else ()
            replicas[name] = (
                sites.wrong(name, file.path, f"is not what its manifest says: {'; '.join(findings)}")
                if findings
                else sites.right(name, file.path)
            )
        except StorageError as error:
            look.unasked[name] = f"{name}: {error.message}"
        if name not in replicas or replicas[name].problem:
            del adler32s[name]
    # Those that are left agree: either all did, or each was read back with the same digests.
    return _Judged(replicas, next(iter(adler32s.values()), None), differed)


def _read_back(sites: Sites, name: str, file: StoredFile, stored: StoredPlan, adler32: str) -> tuple[str, ...]:
    digest = BundleDigest(stored.plan.size_bytes, adler32, stored.members)
    sites.bring_online(name, file.path)
    with closing(sites.read(name, file)) as chunks:
        return inspect_planned(chunks, stored.plan, digest).findings


def _adopt(database: Database, config: Config, sites: Sites, run: int, *, now: datetime) -> Rebuilt:
    try:
        adopted = adopt(database, config, sites, run, now=now)
    except (AdoptionError, StorageError) as error:
        return Rebuilt(run, None, troubles=(error.message,))
    wrong = tuple(f"{name}: {state}" for name, state in adopted.replicas if state is ReplicaState.QUARANTINED)
    return Rebuilt(run, RunState.RELEASED, adopted.replicas, wrong, adopted.unasked)
