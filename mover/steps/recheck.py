"""Ask the storage itself whether the replica policy holds for a run at this moment: before a release."""

from collections.abc import Callable, Mapping

from mover.catalogue.database import Database
from mover.catalogue.replicas import ReplicaRecord, replicas_of_bundle
from mover.catalogue.runs import BundleRecord, bundle_of
from mover.config import Config
from mover.errors import CredentialError, MoverError, NotSafeError, StoppedError
from mover.model import EndpointKind
from mover.policy import Assessment, ProvenReplica, assess
from mover.ports import StorageEndpoint
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
            hint=f"the local files stay; `mover run retry {run} --look` says what to do about each replica",
        )
    return assessment


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
