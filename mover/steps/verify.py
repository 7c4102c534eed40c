"""Copied → verified: compare size and adler32 from a fresh query; on disk, give the file its final name."""

import time

from mover.catalogue.replicas import record_event
from mover.errors import FileExistsAtEndpointError, ForeignFileError, VerificationError
from mover.model import ChecksumKind, StoredFile
from mover.states import ReplicaEvent
from mover.steps.checksums import origin
from mover.steps.work import Work

#: Storages tell times in whole seconds.
_TIMES_TELL_SECONDS = 2.0


def verify(work: Work) -> None:
    """Prove that the stored bytes are the bundle's.

    1. Find the file: under the name written to, or, after a crash, under the final one already. 2. Compare; remove our
    own wrong file. 3. Rename on disk, and look again: at the checksum too, or, where that means to read the file back
    once more, at what tells whether it is still the same. 4. Commit.

    Raises:
        VerificationError: the file was wrong, and is removed; or it is gone.
        ForeignFileError: the final name is taken by a file that is not ours.
        StorageError: the endpoint failed.
    """
    # 1
    looked = time.monotonic()
    written = work.replica.intent_path or work.lfn
    stored = work.endpoint.stat(written)
    if stored is None and written != work.lfn:
        stored = work.endpoint.stat(work.lfn)
    if stored is None:
        record_event(work.database, work.claim, ReplicaEvent.MISSING, now=work.clock.now())
        raise VerificationError(
            f"{work.endpoint.url(written)} is gone although it was uploaded",
            hint="it is uploaded again; if this repeats, ask the site who removes files",
        )
    # 2
    _compare(work, stored)
    # 3
    if stored.path != work.lfn:
        _rename(work, stored, looked)
    # 4
    record_event(
        work.database,
        work.claim,
        ReplicaEvent.CHECKED,
        now=work.clock.now(),
        url=work.endpoint.url(work.lfn),
        size_bytes=work.bundle.size_bytes,
        adler32=work.digest().adler32,
        checksum=origin(work.endpoint),
    )


def _compare(work: Work, stored: StoredFile) -> None:
    try:
        work.check(stored)
    except VerificationError as error:
        if not work.is_ours(stored):
            raise _foreign(work, stored.path) from error
        work.remove(stored.path)
        record_event(work.database, work.claim, ReplicaEvent.REJECTED, now=work.clock.now(), found=error.message)
        raise


def _rename(work: Work, temporary: StoredFile, looked: float) -> None:
    """Give the file, which has just been compared, its final name, and look again."""
    try:
        work.endpoint.rename(temporary.path, work.lfn)
    except FileExistsAtEndpointError:
        # Another attempt of ours may have come this far before; then the bytes are right.
        _check_final(work, work.endpoint.stat(work.lfn))
        work.remove(temporary.path)
        return
    final = work.endpoint.stat(work.lfn)
    at_once = time.monotonic() - looked < _TIMES_TELL_SECONDS
    if final is None or at_once or not _only_renamed(work, temporary, final):
        _check_final(work, final)


def _only_renamed(work: Work, temporary: StoredFile, final: StoredFile) -> bool:
    """Whether the file need not be read back once more, where the storage itself computes no checksum.

    It is the one that was read if the size and the time of the last change are those from before that reading, and the
    temporary name is gone. A storage that renames by copying gives it another time, unless it does so at once.
    """
    if ChecksumKind.ADLER32 in work.endpoint.capabilities.checksums:
        return False
    unchanged = (final.size_bytes, final.modified) == (temporary.size_bytes, temporary.modified)
    return unchanged and work.endpoint.stat(temporary.path) is None


def _check_final(work: Work, final: StoredFile | None) -> None:
    try:
        if final is None:
            raise VerificationError(f"{work.endpoint.url(work.lfn)} is gone after its rename", hint="ask the site")
        work.check(final)
    except VerificationError as error:
        raise _foreign(work, work.lfn) from error


def _foreign(work: Work, path: str) -> ForeignFileError:
    return ForeignFileError(
        f"{work.endpoint.url(path)} is not what was uploaded",
        hint="find out whose file it is; when it is gone, `mover run retry` takes the run up again",
    )
