"""A person's look at the proven replicas of a run: what is lost is wanted again, what is wrong needs that person."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mover.catalogue.database import Database
from mover.catalogue.outputs import is_nowhere, job_of_bundle
from mover.catalogue.replicas import ReplicaRecord, replicas_of_bundle
from mover.catalogue.runs import BundleRecord, bundles_of
from mover.catalogue.unproven import record_unproven
from mover.config import Config
from mover.errors import MoverError, NotOnlineError, StorageError, VerificationError
from mover.model import BundleKind, Locality
from mover.ports import Clock, StorageEndpoint
from mover.states import JobState
from mover.steps.standing import final_state
from mover.steps.work import check_stored


@dataclass(frozen=True, slots=True)
class Looked:
    """What a look found, by endpoint, with the LFN of what is no raw data.

    What is `lost` is wanted again, `wrong` is quarantined, and of what is `unasked` nothing is known: the storage did
    not answer, or has to bring it online first. `nowhere` are the LFNs of proven outputs of which nothing is left.
    """

    lost: tuple[str, ...]
    wrong: Mapping[str, MoverError]
    unasked: Mapping[str, MoverError]
    nowhere: tuple[str, ...] = ()


def look_again(
    database: Database,
    config: Config,
    run: int,
    endpoints: Mapping[str, StorageEndpoint],
    *,
    clock: Clock,
    alive: Callable[[int], None] = lambda _: None,
) -> Looked:
    """Ask the storage for the presence, size and checksum of each proven replica, and record what it says.

    The outputs of its jobs are looked at like its raw data. What is lost is made again from the local files, or, where
    those are released, from another proven replica. What is
    wrong is left where it is: it is evidence, and what was once proven is not the mover's to remove. `alive` is called
    now and then; what it raises ends the looking, and nothing is recorded.

    Raises:
        CredentialError: there is no proxy to ask with.
    """
    lost: dict[str, ReplicaRecord] = {}
    wrong: dict[str, tuple[ReplicaRecord, MoverError]] = {}
    unasked: dict[str, MoverError] = {}
    bundles = bundles_of(database, run)
    for bundle in bundles:
        for replica in _proven(database, config, bundle):
            where = replica.endpoint if bundle.kind is BundleKind.RAW else f"{replica.endpoint} ({bundle.lfn})"
            try:
                if not _is_there(bundle, endpoints[replica.endpoint], alive):
                    lost[where] = replica
            except VerificationError as error:
                hint = f"{error.hint}; then `mover run retry {run}` looks at it, and makes it again if it is gone"
                wrong[where] = replica, VerificationError(error.message, hint=hint)
            except NotOnlineError as error:
                unasked[where] = NotOnlineError(
                    error.message, hint="it is being brought online to be checked; look again later"
                )
            except StorageError as error:
                unasked[where] = error
    if lost or wrong:
        record_unproven(database, run, lost=lost.values(), wrong=wrong.values(), now=clock.now())
    nowhere = tuple(bundle.lfn for bundle in bundles if _is_lost_for_good(database, bundle))
    return Looked(tuple(lost), {where: error for where, (_, error) in wrong.items()}, unasked, nowhere)


def _is_lost_for_good(database: Database, bundle: BundleRecord) -> bool:
    """Whether it is a job's output that was proven, and that no right replica is left of."""
    return is_nowhere(database, bundle.id) and job_of_bundle(database, bundle.id).state is JobState.PROVEN


def _proven(database: Database, config: Config, bundle: BundleRecord) -> list[ReplicaRecord]:
    """The bundle's replicas that nothing is left to do for."""
    return [
        replica
        for replica in replicas_of_bundle(database, bundle.id)
        if (place := config.places.get(replica.endpoint)) and replica.state is final_state(place.kind)
    ]


def _is_there(bundle: BundleRecord, endpoint: StorageEndpoint, alive: Callable[[int], None]) -> bool:
    """Hold a replica against its bundle; False if nothing stands under its name.

    Raises:
        VerificationError: what stands there is not what was proven; the hint says what to have done at the site.
        StorageError: the storage does not answer, or has to bring it online first.
    """
    stored = endpoint.stat(bundle.lfn)
    if stored is None:
        return False
    url, tape = endpoint.url(bundle.lfn), endpoint.capabilities.tape
    if tape and (locality := endpoint.locality(bundle.lfn)) in {Locality.LOST, Locality.NONE}:
        raise VerificationError(
            f"{url} is {locality} at its storage, which keeps the name", hint="ask the site to remove the name"
        )
    if bundle.digest is not None:
        try:
            check_stored(endpoint, stored, bundle.digest, alive)
        except VerificationError as error:
            raise VerificationError(
                error.message, hint="it is left there as evidence; have the site mend it, remove it or rename it"
            ) from error
    if tape and not endpoint.on_tape(bundle.lfn):
        raise VerificationError(f"{url} is not on tape any more", hint="ask the site to write it to tape again")
    return True
