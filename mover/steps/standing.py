"""How a bundle stands by the catalogue: what has been proven of it, held against the replica policy."""

from mover.catalogue.database import Database
from mover.catalogue.replicas import replicas_of_bundle
from mover.catalogue.runs import BundleRecord
from mover.config import Config
from mover.model import EndpointKind
from mover.policy import Assessment, Policy, ProvenReplica, assess
from mover.states import ReplicaState


def final_state(kind: EndpointKind) -> ReplicaState:
    """The last state of a replica at an endpoint of that kind: nothing is left to do for it."""
    return ReplicaState.ARCHIVED if kind is EndpointKind.TAPE else ReplicaState.VERIFIED


def standing(database: Database, config: Config, bundle: BundleRecord, policy: Policy) -> Assessment:
    """What the catalogue's facts come to; the storage is not asked."""
    proven = [
        ProvenReplica(replica.endpoint, place.kind, place.site, replica.state)
        for replica in replicas_of_bundle(database, bundle.id)
        if (place := config.places.get(replica.endpoint))
    ]
    return assess(policy, proven)
