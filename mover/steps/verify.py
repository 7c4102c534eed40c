"""Copied → verified: compare size and adler32 from a fresh query; on disk, give the file its final name."""

from mover.catalogue.replicas import record_event
from mover.errors import FileExistsAtEndpointError, ForeignFileError, VerificationError
from mover.model import StoredFile
from mover.states import ReplicaEvent
from mover.steps.checksums import origin
from mover.steps.work import Work


def verify(work: Work) -> None:
    """Prove that the stored bytes are the bundle's.

    1. Find the file: under the name written to, or, after a crash, under the final one already. 2. Compare; remove our
    own wrong file. 3. Rename on disk, and look again. 4. Commit.

    Raises:
        VerificationError: the file was wrong, and is removed; or it is gone.
        ForeignFileError: the final name is taken by a file that is not ours.
        StorageError: the endpoint failed.
    """
    # 1
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
        _rename(work, stored.path)
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


def _rename(work: Work, temporary: str) -> None:
    try:
        work.endpoint.rename(temporary, work.lfn)
    except FileExistsAtEndpointError:
        # Another attempt of ours may have come this far before; then the bytes are right.
        _check_final(work)
        work.remove(temporary)
    else:
        _check_final(work)


def _check_final(work: Work) -> None:
    final = work.endpoint.stat(work.lfn)
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
