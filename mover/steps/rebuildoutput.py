"""Make the entry of a job's output in a new catalogue from what is stored of it; the agent makes its proof again."""

from dataclasses import dataclass
from datetime import datetime

from mover.catalogue.database import Database
from mover.catalogue.found import FoundBundle, FoundReplica, record_found_output
from mover.catalogue.jobs import JobKey
from mover.catalogue.runs import find_run
from mover.config import Config
from mover.errors import StorageError
from mover.model import BundleDigest, MemberDigest
from mover.states import ReplicaState
from mover.steps.stored import Look, Sites


@dataclass(frozen=True, slots=True)
class RebuiltOutput:
    """What an output's entry has become: none, where `is_new` is false. As with `Rebuilt`, `troubles` need a person."""

    key: JobKey
    is_new: bool
    replicas: tuple[tuple[str, ReplicaState], ...] = ()
    troubles: tuple[str, ...] = ()
    unasked: tuple[str, ...] = ()


def rebuild_output(
    database: Database, config: Config, sites: Sites, key: JobKey, *, now: datetime
) -> RebuiltOutput | None:
    """Enter one output, or nothing if no endpoint has it.

    1. Look for it at every endpoint. 2. Take size and adler32 from the nearest replica: nothing that is stored says
    what they must be, but what is not right does not pass the proof. 3. Compare them at every endpoint. 4. Record the
    job as collected, so that the agent proves it, and does not do it again. What the policy wants beside it is wanted
    then.

    Raises:
        CredentialError: there is no proxy to ask with.
    """
    job = config.job.of(key.kind)
    if job is None:
        return None
    lfn = job.output_lfn(key.run, key.release, key.iteration, config.bundle.naming().steps)
    # 1
    look = sites.look(lfn)
    if not look.there:
        return RebuiltOutput(key, is_new=False, unasked=tuple(look.unasked.values())) if look.unasked else None
    if find_run(database, key.run) is None:
        trouble = f"{lfn} is stored, but there is no raw bundle of its run: it is not entered"
        return RebuiltOutput(key, is_new=False, troubles=(trouble,), unasked=tuple(look.unasked.values()))
    # 2
    digest = _digest(sites, look)
    if digest is None:
        return RebuiltOutput(key, is_new=False, unasked=tuple(look.unasked.values()))
    # 3
    replicas: list[FoundReplica] = []
    for name, stored in look.there.items():
        if name not in look.unasked:
            try:
                replicas.append(sites.prove(name, stored, digest))
            except StorageError as error:
                look.unasked[name] = f"{name}: {error.message}"
    # 4
    facts = (("rebuilt", "from the storage"),)
    found = FoundBundle(key.run, key.kind, lfn, None, digest, tuple(replicas), facts)
    # Temporary names of earlier days end in small numbers.
    record_found_output(database, found, key, first_upload=int(now.timestamp()), now=now)
    return RebuiltOutput(
        key,
        is_new=True,
        replicas=tuple((one.endpoint, one.state) for one in replicas),
        troubles=tuple(one.problem.message for one in replicas if one.problem),
        unasked=tuple(look.unasked.values()),
    )


def _digest(sites: Sites, look: Look) -> BundleDigest | None:
    """By the nearest replica that can be asked."""
    for name in sites.nearest(list(look.there)):
        stored = look.there[name]
        try:
            adler32 = sites.adler32(name, stored)
        except StorageError as error:
            look.unasked[name] = f"{name}: {error.message}"
        else:
            # Its own only member. The sha256 is the proof's to tell.
            member = MemberDigest(stored.path.rpartition("/")[2], stored.size_bytes, ())
            return BundleDigest(stored.size_bytes, adler32, (member,))
    return None
