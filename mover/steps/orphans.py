"""Files that earlier attempts of ours left at an endpoint, told apart from everybody else's."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from mover.catalogue.database import Database
from mover.catalogue.replicas import ReplicaRecord, get_replica, replicas_at
from mover.catalogue.runs import list_lfns, note
from mover.model import StoredFile
from mover.naming import temporary_attempt
from mover.ports import StorageEndpoint


@dataclass(frozen=True, slots=True)
class Orphan:
    """A temporary file of an attempt that is over: the catalogue gave its name, and will not use it again."""

    file: StoredFile
    replica: ReplicaRecord


@dataclass(frozen=True, slots=True)
class Stranger:
    """A file in a directory of ours that the catalogue knows nothing of. It is never touched."""

    file: StoredFile
    why: str


def find_orphans(database: Database, endpoint: StorageEndpoint) -> Iterator[Orphan | Stranger]:
    """What is in the directories of our bundles at an endpoint and is neither a bundle nor being written.

    Raises:
        StorageError: the endpoint does not list its directories.
    """
    replicas = dict(replicas_at(database, endpoint.name))
    folders = {lfn.rpartition("/")[0] for lfn in list_lfns(database)}
    for folder in sorted(folders):
        for file in endpoint.list(folder):
            found = _judge(file, replicas)
            if found is not None:
                yield found


def _judge(file: StoredFile, replicas: dict[str, ReplicaRecord]) -> Orphan | Stranger | None:
    if file.path in replicas:
        return None
    parsed = temporary_attempt(file.path)
    if parsed is None:
        return Stranger(file, "no file of a replica that the catalogue knows here")
    lfn, attempt = parsed
    replica = replicas.get(lfn)
    if replica is None or attempt > replica.uploads:
        return Stranger(file, "named like a temporary file of ours, but this catalogue never gave that name")
    return None if file.path == replica.intent_path else Orphan(file, replica)


def remove_orphan(database: Database, endpoint: StorageEndpoint, orphan: Orphan, *, now: datetime) -> bool:
    """Remove it, unless the catalogue has come to mean it after all; whether it was removed.

    Names are given once (`naming.temporary_path` counts attempts), so that no later attempt can be writing it.

    Raises:
        StorageError: the endpoint failed.
    """
    if get_replica(database, orphan.replica.id).intent_path == orphan.file.path:
        return False
    endpoint.remove(orphan.file.path)
    path, size_bytes = orphan.file.path, orphan.file.size_bytes
    note(
        database,
        orphan.replica.run,
        "orphan removed",
        now=now,
        endpoint=endpoint.name,
        path=path,
        size_bytes=size_bytes,
    )
    return True
