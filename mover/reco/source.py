"""Where a job gets its raw data from: the nearest proven replica that can be read now."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from mover.bundle.stream import same_as
from mover.catalogue.endpoints import sick_endpoints
from mover.catalogue.replicas import replicas_of_bundle
from mover.catalogue.runs import BundleRecord
from mover.errors import FileMissingError, NoSourceError, NotOnlineError, OutputError, StorageError, VerificationError
from mover.model import Locality
from mover.ports import StorageEndpoint
from mover.reco.work import JobWork
from mover.states import ReplicaState

_PROVEN = {ReplicaState.VERIFIED, ReplicaState.ARCHIVED}


def sources(work: JobWork, bundle: BundleRecord) -> Iterator[StorageEndpoint]:
    """The endpoints that have a proven replica and are well, nearest first."""
    reco, policy = work.reco, work.config.raw_policy()
    order = list(dict.fromkeys([*reco.sources, reco.endpoint, *policy.endpoints]))
    sick = sick_endpoints(work.database)
    proven = {one.endpoint for one in replicas_of_bundle(work.database, bundle.id) if one.state in _PROVEN}
    for name in [one for one in order if one in proven and one not in sick] or [one for one in order if one in proven]:
        yield work.endpoints[name]


def choose_source(work: JobWork, bundle: BundleRecord) -> StorageEndpoint:
    """An endpoint from which the bundle can be read at once; disks first, then what a tape has on disk.

    Raises:
        NotOnlineError: it is on tape only; the recaller asks that it be staged.
        NoSourceError: no proven replica can be read now.
    """
    tapes: list[str] = []
    coming, why = None, ""
    for endpoint in sorted(sources(work, bundle), key=lambda one: one.capabilities.tape):
        try:
            _check_online(endpoint, bundle.lfn)
        except NotOnlineError as error:
            tapes.append(endpoint.name)
            coming = coming or error
        except StorageError as error:
            why += f"; {error.message}"
        else:
            return endpoint
    if coming is not None:
        work.recalls.want(bundle.lfn, tapes)
        raise coming
    raise NoSourceError(
        f"run {bundle.run} has no proven replica that can be read now{why}",
        hint=f"`mover run show {bundle.run}` says where it is stored; it is tried again",
    )


def _check_online(endpoint: StorageEndpoint, lfn: str) -> None:
    """See that the file can be read at once.

    Raises:
        NotOnlineError: it is on tape only.
        StorageError: it is gone or lost, or the endpoint does not answer.
    """
    if not endpoint.capabilities.tape:
        if endpoint.stat(lfn) is None:
            raise FileMissingError(f"{endpoint.url(lfn)} is gone", hint="`mover run retry --look` makes it again")
        return
    locality = endpoint.locality(lfn)
    if locality is Locality.TAPE:
        raise NotOnlineError(
            f"{endpoint.url(lfn)} is on tape only",
            hint="it is being brought online, and the job begins when it has come; nothing to do",
        )
    if not locality.online:
        raise FileMissingError(f"{endpoint.url(lfn)} is {locality}", hint="ask the site what became of it")


def stage(work: JobWork, endpoint: StorageEndpoint, bundle: BundleRecord, target: Path) -> None:
    """Copy the bundle from the endpoint into a new file; it is the bundle, to the last byte, or an error.

    Raises:
        VerificationError: what is stored there is not the bundle.
        OutputError: the disk is full, or fails.
        StorageError: the endpoint failed.
    """
    if bundle.digest is None:
        raise VerificationError(f"{bundle.lfn} was never read", hint="nothing to do: it is looked at again")
    stored = same_as(bundle.digest, endpoint.read(bundle.lfn), endpoint.url(bundle.lfn))
    try:
        with closing(stored), target.open("xb") as file:
            for chunk in stored:
                work.alive()
                file.write(chunk)
    except OSError as error:
        raise OutputError(
            f"cannot write {target}: {error.strerror}", hint="make space in the scratch area, or look at its disk"
        ) from error
