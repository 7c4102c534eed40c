"""Look at a run's proven replicas on the storage itself: before a release, and when a person asks."""

from collections.abc import Callable, Mapping
from datetime import datetime

from mover.catalogue.database import Database
from mover.catalogue.replicas import ReplicaRecord, record_lost, replicas_of_bundle
from mover.catalogue.runs import BundleRecord, bundle_of, get_run, record_run_event
from mover.config import Config
from mover.errors import CredentialError, MoverError, NotSafeError, StoppedError
from mover.model import EndpointKind, Locality
from mover.policy import Assessment, ProvenReplica, assess
from mover.ports import StorageEndpoint
from mover.states import RunEvent, RunState
from mover.steps.standing import final_state
from mover.steps.work import check_stored


def recheck(
    database: Database,
    config: Config,
    run: int,
    endpoints: Mapping[str, StorageEndpoint],
    *,
    alive: Callable[[int], None] = lambda _: None,
) -> Assessment:
    """Ask every endpoint afresh for size, checksum and tape state, and hold what it says against the policy.

    `alive` is called now and then; what it raises ends the asking.

    Raises:
        NotSafeError: the policy does not hold; the message says which replica failed and why.
        CredentialError: there is no proxy to ask with.
    """
    bundle = bundle_of(database, run)
    if bundle is None:
        raise NotSafeError(f"run {run} has no bundle", hint=f"`mover run show {run}` says why")
    places = {endpoint.name: endpoint for endpoint in config.endpoint}
    proven, failures = [], []
    for replica in replicas_of_bundle(database, bundle.id):
        if replica.endpoint not in places:
            continue
        place = places[replica.endpoint]
        try:
            _recheck_replica(replica, bundle, place.kind, endpoints[replica.endpoint], alive)
        except (CredentialError, StoppedError):
            # They say nothing about the storage.
            raise
        except MoverError as error:
            failures.append(f"{replica.endpoint}: {error.message}")
        else:
            proven.append(ProvenReplica(place.name, place.kind, place.site, replica.state))
    assessment = assess(config.raw_policy(), proven)
    if not assessment.holds:
        raise NotSafeError(
            f"run {run} is {assessment}" + "".join(f"; {failure}" for failure in failures),
            hint=f"the local files stay; ask the site; what is lost, `mover run retry {run} --look` uploads again",
        )
    return assessment


def want_lost_again(
    database: Database, config: Config, run: int, endpoints: Mapping[str, StorageEndpoint], *, now: datetime
) -> list[str]:
    """Look for proven replicas that are gone, and want them again.

    They are made from the local files, or, where those are released, from another proven replica.

    Returns:
        The endpoints that have lost theirs.

    Raises:
        StorageError: an endpoint does not answer, so that nothing is known of its replica.
    """
    lfn, proven = _proven(database, config, run)
    lost = [replica for replica in proven if endpoints[replica.endpoint].stat(lfn) is None]
    if lost and get_run(database, run).state is RunState.SAFE:
        record_run_event(database, run, RunEvent.REPLICA_LOST, now=now, endpoints=[one.endpoint for one in lost])
    for replica in lost:
        record_lost(database, replica, now=now)
    return [replica.endpoint for replica in lost]


def lost_behind_its_name(
    database: Database, config: Config, run: int, endpoints: Mapping[str, StorageEndpoint]
) -> list[str]:
    """The tape endpoints that still list a proven replica, but say that they have lost its bytes.

    The name is in the way of a new upload, and what was once on tape is not the mover's to remove.

    Raises:
        StorageError: an endpoint does not answer.
    """
    lfn, proven = _proven(database, config, run)
    return [
        replica.endpoint
        for replica in proven
        if config.places[replica.endpoint].kind is EndpointKind.TAPE
        and endpoints[replica.endpoint].stat(lfn) is not None
        and endpoints[replica.endpoint].locality(lfn) in {Locality.LOST, Locality.NONE}
    ]


def _proven(database: Database, config: Config, run: int) -> tuple[str, list[ReplicaRecord]]:
    """The LFN of the run's bundle, and its replicas that nothing is left to do for."""
    bundle = bundle_of(database, run)
    if bundle is None:
        return "", []
    return bundle.lfn, [
        replica
        for replica in replicas_of_bundle(database, bundle.id)
        if (place := config.places.get(replica.endpoint)) and replica.state is final_state(place.kind)
    ]


def _recheck_replica(
    replica: ReplicaRecord,
    bundle: BundleRecord,
    kind: EndpointKind,
    endpoint: StorageEndpoint,
    alive: Callable[[int], None],
) -> None:
    if replica.state is not final_state(kind) or bundle.digest is None:
        raise NotSafeError(f"only {replica.state}", hint="the engine goes on with it")
    lfn = bundle.lfn
    stored = endpoint.stat(lfn)
    if stored is None:
        raise NotSafeError(f"{endpoint.url(lfn)} is not there any more", hint="ask the site")
    check_stored(endpoint, stored, bundle.digest, alive)
    if kind is EndpointKind.TAPE and not endpoint.on_tape(lfn):
        raise NotSafeError(f"{endpoint.url(lfn)} is not on tape any more", hint="ask the site")
