"""Wanted → copied: look at what is there, adopt what is right, else stream the bundle to the endpoint."""

from mover.bundle.prefetch import Prefetch
from mover.bundle.stream import check_same
from mover.catalogue.replicas import record_event, record_intent, withdraw_intent
from mover.catalogue.runs import record_digest
from mover.errors import (
    FileExistsAtEndpointError,
    ForeignFileError,
    RunChangedError,
    StorageError,
    VerificationError,
)
from mover.model import StoredFile
from mover.naming import temporary_path
from mover.states import ReplicaEvent
from mover.steps.work import Work, check_stored


def transfer(work: Work) -> None:
    """Bring the bundle's bytes to the endpoint: to the final name on tape, to a temporary one on disk.

    1. Adopt what an earlier attempt left, if it is right; remove it, if it is ours and wrong. 2. Commit the intent.
    3. Stream. 4. Commit the digests, or hold them against those of an earlier reading. 5. Commit that it is copied.

    Raises:
        ForeignFileError: the name is taken by a file that is not ours.
        RunChangedError: the local files are not those that were planned.
        StorageError: the endpoint failed.
    """
    # 1
    if _adopt(work):
        return
    # 2
    tape = work.endpoint.capabilities.tape
    path = work.lfn if tape else temporary_path(work.lfn, work.replica.uploads + 1)
    record_intent(work.database, work.claim, path, now=work.clock.now())
    # 3
    reader = work.reader()
    try:
        with Prefetch(reader.chunks(), work.waiting) as chunks:
            size_bytes = work.bundle.size_bytes
            work.endpoint.upload(path, work.watched(chunks), size_bytes, may_remove=work.may_remove)
    except FileExistsAtEndpointError:
        withdraw_intent(work.database, work.claim, now=work.clock.now())
        raise
    except (StorageError, RunChangedError):
        _withdraw_if_absent(work, path)
        raise
    # 4
    digest = record_digest(work.database, work.bundle, reader.digest, now=work.clock.now())
    try:
        check_same(digest, reader.digest, work.lfn)
    except RunChangedError:
        work.remove(path)
        _withdraw_if_absent(work, path)
        raise
    # 5
    _record_copied(work, path, adopted=False)


def _adopt(work: Work) -> bool:
    """Whether a right copy is there already. Ours is what stands under the committed intent, up to the planned size."""
    intent = work.replica.intent_path
    for path in dict.fromkeys(filter(None, (intent, work.lfn))):
        stored = work.endpoint.stat(path)
        if stored is None:
            continue
        if _is_right(work, stored):
            _record_copied(work, path, adopted=True)
            return True
        if path != intent or stored.size_bytes > work.bundle.size_bytes:
            raise ForeignFileError(
                f"{work.endpoint.url(path)} is taken by another file of {stored.size_bytes} bytes",
                hint="find out whose it is; when it is gone, `mover run retry` takes the run up again",
            )
        work.remove(path)
    return False


def _record_copied(work: Work, path: str, *, adopted: bool) -> None:
    record_event(
        work.database,
        work.claim,
        ReplicaEvent.UPLOADED,
        now=work.clock.now(),
        path=path,
        url=work.endpoint.url(path),
        size_bytes=work.bundle.size_bytes,
        adopted=adopted,
    )


def _withdraw_if_absent(work: Work, path: str) -> None:
    """Take the intent back after a failure that left nothing: what stands there later is not ours."""
    try:
        absent = work.endpoint.stat(path) is None
    except StorageError:
        # Nobody knows; the next attempt looks.
        return
    if absent:
        withdraw_intent(work.database, work.claim, now=work.clock.now())


def _is_right(work: Work, stored: StoredFile) -> bool:
    if stored.size_bytes != work.bundle.size_bytes:
        return False
    try:
        check_stored(work.endpoint, stored, work.digest())
    except VerificationError:
        return False
    return True
