"""How a bundle stands by the catalogue: what has been proven of it, held against the replica policy."""

from collections.abc import Iterable, Iterator

from mover.catalogue.database import Database
from mover.catalogue.replicas import raw_replica_states, replicas_of_bundle
from mover.catalogue.runs import BundleRecord
from mover.config import Config
from mover.model import EndpointKind
from mover.policy import Assessment, Policy, ProvenReplica, assess
from mover.states import ReplicaState, RunState


def final_state(kind: EndpointKind) -> ReplicaState:
    """The last state of a replica at an endpoint of that kind: nothing is left to do for it."""
    return ReplicaState.ARCHIVED if kind is EndpointKind.TAPE else ReplicaState.VERIFIED


def standing(database: Database, config: Config, bundle: BundleRecord, policy: Policy) -> Assessment:
    """What the catalogue's facts come to; the storage is not asked."""
    return _assess(config, policy, [(one.endpoint, one.state) for one in replicas_of_bundle(database, bundle.id)])


def standings(database: Database, config: Config, policy: Policy, state: RunState) -> Iterator[tuple[int, Assessment]]:
    """The same for the raw data of every run in `state`; neither plans nor members are read."""
    for run, states in raw_replica_states(database, state).items():
        yield run, _assess(config, policy, states)


def _assess(config: Config, policy: Policy, states: Iterable[tuple[str, ReplicaState]]) -> Assessment:
    places = config.places
    return assess(
        policy,
        [
            ProvenReplica(endpoint, place.kind, place.site, state)
            for endpoint, state in states
            if (place := places.get(endpoint))
        ],
    )
