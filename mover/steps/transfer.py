"""Wanted → copied: look at what is there, adopt what is right, else bring the bundle's bytes to the endpoint."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from mover.bundle.prefetch import Prefetch
from mover.bundle.stream import check_same, same_as
from mover.catalogue.replicas import postpone, record_event, record_failed_copy, record_intent, withdraw_intent
from mover.catalogue.runs import record_digest
from mover.errors import (
    CopyFailedError,
    FileExistsAtEndpointError,
    FileMissingError,
    ForeignFileError,
    NoSourceError,
    RunChangedError,
    StorageError,
    VerificationError,
)
from mover.model import Locality, StoredFile
from mover.naming import temporary_path
from mover.ports import StorageEndpoint
from mover.states import ReplicaEvent
from mover.steps.route import Local, Relay, ThirdParty, Wait, choose_route, files_are_here
from mover.steps.work import Work

#: How soon to look whether the replica that is to be copied from has come; what has waited longer is looked at less
#: often, since every look asks the endpoint, and thousands may wait.
_SOURCE_POLL = timedelta(seconds=2)
_WAITED_SHARE = 0.1
_HOW = {Local: "streamed from the local files", ThirdParty: "third-party copy", Relay: "copy through this machine"}


def transfer(work: Work) -> None:
    """Bring the bundle's bytes to the endpoint: to the final name on tape, to a temporary one on disk.

    1. Adopt what an earlier attempt left, if it is right; remove it, if it is ours and wrong. 2. Choose the way: the
    local files, or a proven replica; if there is nothing to do yet, look again soon. 3. Commit the intent, move
    the bytes, and commit that they are copied.

    Raises:
        ForeignFileError: the name is taken by a file that is not ours.
        RunChangedError: the local files are not those that were planned.
        NoSourceError: there is nothing to make the replica from, or no longer.
        StorageError: the endpoint, or the source, failed.
    """
    # 1
    if _adopt(work):
        return
    # 2
    route = choose_route(work)
    # 3
    if isinstance(route, Wait):
        now = work.clock.now()
        pause = max(_SOURCE_POLL, (now - work.replica.since) * _WAITED_SHARE)
        postpone(work.database, work.claim, until=now + min(work.poll, pause))
    elif isinstance(route, Local):
        _stream(work)
    else:
        _copy(work, route)


def _stream(work: Work) -> None:
    """Make the bundle from the local files; commit its digests, or hold them against those of an earlier reading."""
    path = _intend(work)
    reader = work.reader()
    try:
        with _withdrawn_on_failure(work, path), Prefetch(reader.chunks(), work.waiting) as chunks:
            work.endpoint.upload(path, work.sent(chunks), work.bundle.size_bytes, may_remove=work.may_remove)
    except RunChangedError as error:
        if files_are_here(work):
            raise
        # A release waits for no optional endpoint.
        raise NoSourceError(
            f"local files of run {work.bundle.run} are gone",
            hint="nothing to do: this replica is made from another one instead",
        ) from error
    digest = record_digest(work.database, work.bundle, reader.digest, now=work.clock.now())
    try:
        check_same(digest, reader.digest, work.lfn)
    except RunChangedError:
        work.remove(path)
        _withdraw_if_absent(work, path)
        raise
    _record_copied(work, path, route=_HOW[Local])


def _copy(work: Work, route: ThirdParty | Relay) -> None:
    """Make the replica from a proven one; a source that is on tape only is brought online before."""
    source = work.endpoints[route.source]
    try:
        if not _is_online(source, work.lfn):
            # Tapes may take for ever, so another way has its turn too.
            record_failed_copy(work.database, work.claim)
            postpone(work.database, work.claim, until=work.clock.now() + work.poll)
            return
        path = _intend(work)
        with _withdrawn_on_failure(work, path):
            if isinstance(route, ThirdParty):
                size_bytes, may_remove = work.bundle.size_bytes, work.may_remove
                work.endpoint.copy_from(source, work.lfn, path, size_bytes, alive=work.alive, may_remove=may_remove)
            else:
                _relay(work, source, path)
    except FileExistsAtEndpointError:
        raise
    except (StorageError, VerificationError) as error:
        record_failed_copy(work.database, work.claim)
        raise CopyFailedError(
            f"{_HOW[type(route)]} from {route.source} failed: {error.message}", hint=error.hint
        ) from error
    _record_copied(work, path, route=_HOW[type(route)], source=route.source)


def _relay(work: Work, source: StorageEndpoint, path: str) -> None:
    """Stream a stored replica to the endpoint, which never gets the last piece of one that is not right."""
    stored = same_as(work.digest(), source.read(work.lfn), source.url(work.lfn))
    with Prefetch(stored, work.waiting) as chunks:
        work.endpoint.upload(path, work.sent(chunks), work.bundle.size_bytes, may_remove=work.may_remove)


def _is_online(source: StorageEndpoint, lfn: str) -> bool:
    """Whether the source can be read now; if it is on tape only, it is asked to bring the file online.

    Raises:
        FileMissingError: the storage has lost it.
        StorageError: the storage does not answer.
    """
    if not source.capabilities.tape:
        return True
    locality = source.locality(lfn)
    if locality in {Locality.LOST, Locality.NONE}:
        raise FileMissingError(
            f"{source.url(lfn)} is {locality} at its storage", hint="ask the site; `mover run retry --look` tells more"
        )
    if locality is Locality.TAPE:
        source.bring_online(lfn)
    return locality.online


def _intend(work: Work) -> str:
    """Commit under which name the bytes will be written, and return it."""
    tape = work.endpoint.capabilities.tape
    path = work.lfn if tape else temporary_path(work.lfn, work.replica.uploads + 1)
    record_intent(work.database, work.claim, path, now=work.clock.now())
    return path


@contextmanager
def _withdrawn_on_failure(work: Work, path: str) -> Iterator[None]:
    """After a failure that left nothing of ours under `path`, what stands there later is not ours."""
    try:
        yield
    except FileExistsAtEndpointError:
        withdraw_intent(work.database, work.claim, now=work.clock.now())
        raise
    except (StorageError, RunChangedError, VerificationError):
        _withdraw_if_absent(work, path)
        raise


def _adopt(work: Work) -> bool:
    """Whether a right copy is there already; what is ours and wrong is removed."""
    intent = work.replica.intent_path
    for path in dict.fromkeys(filter(None, (intent, work.lfn))):
        stored = work.endpoint.stat(path)
        if stored is None:
            continue
        if _is_right(work, stored):
            if intent is not None and path != intent:
                # Adopted is not written by us: should it turn out wrong later, it is not ours to remove.
                withdraw_intent(work.database, work.claim, now=work.clock.now())
            _record_copied(work, path, route="found there and right")
            return True
        if not work.is_ours(stored):
            raise ForeignFileError(
                f"{work.endpoint.url(path)} is taken by another file of {stored.size_bytes} bytes",
                hint="find out whose it is; when it is gone, `mover run retry` takes the run up again",
            )
        work.remove(path)
    return False


def _record_copied(work: Work, path: str, *, route: str, source: str | None = None) -> None:
    record_event(
        work.database,
        work.claim,
        ReplicaEvent.UPLOADED,
        now=work.clock.now(),
        url=work.endpoint.url(path),
        size_bytes=work.bundle.size_bytes,
        route=route,
        source=source,
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
        work.check(stored)
    except VerificationError:
        return False
    return True
