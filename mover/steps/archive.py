"""Verified → archived: wait until the tape endpoint says that the verified bytes are on tape."""

from mover.catalogue.replicas import postpone, record_event
from mover.errors import FileMissingError, ForeignFileError, VerificationError
from mover.states import ReplicaEvent
from mover.steps.checksums import origin
from mover.steps.work import Work


def archive(work: Work) -> None:
    """Ask once; look again after the endpoint's poll interval if the file is not on tape yet.

    'On tape' counts only with equal size and checksum: tape systems do not check against ours.

    Raises:
        VerificationError: the file is gone.
        ForeignFileError: the stored file changed after it was verified.
        StorageError: the endpoint failed.
    """
    stored = work.endpoint.stat(work.lfn)
    try:
        on_tape = stored is not None and work.endpoint.on_tape(work.lfn)
    except FileMissingError:
        stored = None
    if stored is None:
        record_event(work.database, work.claim, ReplicaEvent.MISSING, now=work.clock.now())
        raise VerificationError(
            f"{work.endpoint.url(work.lfn)} is gone although it was verified",
            hint="it is uploaded again; if this repeats, ask the site who removes files",
        )
    if not on_tape:
        postpone(work.database, work.claim, until=work.clock.now() + work.poll)
        return
    try:
        work.check(stored)
    except VerificationError as error:
        raise ForeignFileError(
            f"changed after it was verified: {error.message}",
            hint="ask the site who wrote to it; the local files stay; when it is mended or gone, "
            f"`mover run retry {work.claim.run}`",
        ) from error
    record_event(
        work.database,
        work.claim,
        ReplicaEvent.ON_TAPE,
        now=work.clock.now(),
        url=work.endpoint.url(work.lfn),
        checksum=origin(work.endpoint),
    )
