"""Safe → released: remove the local files of a run, after one more look at the storage itself."""

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from mover.bundle.scan import changed, open_directory
from mover.catalogue.database import Database
from mover.catalogue.replicas import ReplicaRecord, replicas_of
from mover.catalogue.runs import BundleRecord, bundle_of, get_run, note, record_run_event
from mover.config import Config
from mover.errors import MoverError, NotSafeError
from mover.model import EndpointKind, Part
from mover.policy import Assessment, ProvenReplica, assess
from mover.ports import StorageEndpoint
from mover.states import ReplicaState, RunEvent, RunState
from mover.steps.work import check_stored


def release_run(
    database: Database, config: Config, run: int, endpoints: Mapping[str, StorageEndpoint], *, now: datetime
) -> Assessment:
    """Remove the run's local parts and its marker.

    1. The catalogue says safe and nothing waits for a person. 2. The storage itself says so now. 3. The local files are
    those that were bundled. 4. The intent is committed. 5. The files are removed. 6. The fact is committed.

    Raises:
        NotSafeError: the policy does not hold at this moment.
        RunChangedError: a local file is not the one that was bundled.
    """
    # 1
    record = get_run(database, run)
    bundle = bundle_of(database, run)
    if record.state is not RunState.SAFE or bundle is None or record.problem:
        raise NotSafeError(
            f"run {run} is {record.state}" + (f": {record.problem}" if record.problem else ""),
            hint=record.hint or f"`mover run show {run}` says what it waits for",
        )
    # 2
    assessment = recheck(database, config, run, endpoints)
    # 3
    with open_directory(config.runs.directory) as directory:
        present = [part for part in bundle.plan.parts if _is_present(directory, part)]
        # 4
        note(database, run, "release intended", now=now, files=[part.name for part in present], found=str(assessment))
        # 5
        for name in [part.name for part in present] + [config.runs.naming().marker_name(run)]:
            Path(f"/proc/self/fd/{directory}/{name}").unlink(missing_ok=True)
        os.fsync(directory)
    # 6
    record_run_event(database, run, RunEvent.FILES_REMOVED, now=now)
    return assessment


def recheck(database: Database, config: Config, run: int, endpoints: Mapping[str, StorageEndpoint]) -> Assessment:
    """Ask every endpoint afresh for size, checksum and tape state, and hold what it says against the policy.

    Raises:
        NotSafeError: the policy does not hold; the message says which replica failed and why.
    """
    bundle = bundle_of(database, run)
    if bundle is None or bundle.digest is None:
        raise NotSafeError(f"run {run} has no bundle that was read", hint=f"`mover run show {run}` says why")
    places = {endpoint.name: endpoint for endpoint in config.endpoint}
    proven, failures = [], []
    for replica in replicas_of(database, run):
        if replica.endpoint not in places:
            continue
        place = places[replica.endpoint]
        try:
            _recheck_replica(replica, bundle, place.kind, endpoints[replica.endpoint])
        except MoverError as error:
            failures.append(f"{replica.endpoint}: {error.message}")
        else:
            proven.append(ProvenReplica(place.name, place.kind, place.site, replica.state))
    assessment = assess(config.policy.policy(), proven)
    if not assessment.holds:
        raise NotSafeError(
            f"run {run} is {assessment}" + "".join(f"; {failure}" for failure in failures),
            hint="the local files stay; see what the endpoints say and try again",
        )
    return assessment


def _recheck_replica(
    replica: ReplicaRecord, bundle: BundleRecord, kind: EndpointKind, endpoint: StorageEndpoint
) -> None:
    final = ReplicaState.ARCHIVED if kind is EndpointKind.TAPE else ReplicaState.VERIFIED
    hint = "the engine goes on with it"
    if replica.state is not final:
        raise NotSafeError(f"only {replica.state}", hint=hint)
    lfn = bundle.plan.lfn
    stored = endpoint.stat(lfn)
    if stored is None:
        raise NotSafeError(f"{endpoint.url(lfn)} is not there any more", hint="ask the site")
    assert bundle.digest is not None  # noqa: S101 - checked by the only caller
    check_stored(endpoint, stored, bundle.digest)
    if kind is EndpointKind.TAPE and not endpoint.on_tape(lfn):
        raise NotSafeError(f"{endpoint.url(lfn)} is not on tape any more", hint="ask the site")


def _is_present(directory: int, part: Part) -> bool:
    """Whether the part is still there; an earlier release may have been cut short."""
    try:
        found = os.stat(part.name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    if (found.st_size, found.st_mtime_ns) != (part.size_bytes, part.mtime_ns):
        raise changed(part, "has another size or time than when the run was closed")
    return True
