"""Files that earlier attempts of ours left at an endpoint, told apart from everybody else's."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from mover.catalogue.database import Database
from mover.catalogue.replicas import ReplicaRecord, get_replica, replicas_at
from mover.catalogue.runs import list_lfns, note
from mover.errors import ForeignFileError, StorageError
from mover.model import StoredFile
from mover.naming import temporary_attempt, temporary_path
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


@dataclass(frozen=True, slots=True)
class Unlisted:
    """A directory of ours that the endpoint does not list, so that others' files in it stay unknown."""

    folder: str
    error: StorageError


def find_orphans(database: Database, endpoint: StorageEndpoint) -> Iterator[Orphan | Stranger | Unlisted]:
    """What is in the directories of our bundles at an endpoint and is neither a bundle nor being written.

    Some storage cannot list a directory in which anybody has made a file of an odd name (XrdHttp: control characters;
    root:// and GridFTP: a newline). There, what may be ours is looked for by name.

    Raises:
        StorageError: the endpoint does not answer at all.
    """
    replicas = dict(replicas_at(database, endpoint.name))
    folders = {lfn.rpartition("/")[0]: lfn for lfn in list_lfns(database)}
    for folder, some_lfn in sorted(folders.items()):
        try:
            files = endpoint.list(folder)
        except StorageError as error:
            # Whether it answers at all is to be known before the next directory.
            _stat(endpoint, some_lfn, error)
            ours = {lfn: one for lfn, one in replicas.items() if lfn.rpartition("/")[0] == folder}
            files = [file for path in _temporary_paths(ours) if (file := _stat(endpoint, path, error))]
            yield Unlisted(folder, error)
        for file in files:
            found = _judge(file, replicas)
            if found is not None:
                yield found


def _temporary_paths(replicas: dict[str, ReplicaRecord]) -> list[str]:
    """All that attempts for these replicas were given, by LFN."""
    return [temporary_path(lfn, attempt) for lfn, one in replicas.items() for attempt in range(1, one.uploads + 1)]


def _stat(endpoint: StorageEndpoint, path: str, unlisted: StorageError) -> StoredFile | None:
    """The file of that name, if there is one; if that cannot be told either, why the directory was not listed."""
    try:
        return endpoint.stat(path)
    except ForeignFileError:
        return None
    except StorageError:
        raise unlisted from None


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
