"""Run an audit: a thread an endpoint, each asking for one bundle after the other. Every answer is committed at once."""

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass

from mover.audit.conclude import conclude
from mover.audit.replica import Limits, ReplicaAudit
from mover.catalogue.audits import (
    Audit,
    Finding,
    Outcome,
    ReplicaResult,
    counts,
    end_audit,
    incomplete_bundles,
    pending_bundles,
    record_result,
)
from mover.catalogue.database import Database
from mover.catalogue.runs import get_bundle
from mover.config import Config
from mover.errors import (
    CatalogueError,
    CredentialError,
    EndpointUnavailableError,
    MoverError,
    NotOnlineError,
    StoppedError,
    StorageError,
    UnexpectedError,
)
from mover.model import Locality
from mover.ports import Clock, StorageEndpoint

log = logging.getLogger("mover")

_RETRY_SECONDS = (5.0, 20.0)
_FAILURES_BEFORE_LEAVING = 3
_STAGED_AHEAD = 10
_JOIN_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an audit has come at an endpoint, for people: nothing depends on it."""

    endpoint: str
    done: int
    total: int
    read_bytes: int


class Auditor:
    """Works an audit off, from where it is.

    Args:
        open_endpoints: makes an adapter for each configured endpoint, for one thread.
        observe: told of progress, from the endpoints' threads; must be quick.
        retry_seconds: how long to wait before each further attempt, where an endpoint does not answer.
    """

    def __init__(
        self,
        config: Config,
        audit: Audit,
        open_endpoints: Callable[[], Mapping[str, StorageEndpoint]],
        clock: Clock,
        limits: Limits,
        *,
        observe: Callable[[Progress], None] = lambda _: None,
        retry_seconds: tuple[float, ...] = _RETRY_SECONDS,
    ) -> None:
        self.config = config
        self.audit = audit
        self.open_endpoints = open_endpoints
        self.clock = clock
        self.limits = limits
        self.observe = observe
        self.retry_seconds = retry_seconds

    def run(self, database: Database) -> bool:
        """Ask everything that is still to be asked.

        Returns:
            Whether the audit is complete; False if it was stopped.

        Raises:
            CredentialError: there is no proxy to ask with. What was found until then stands.
            CatalogueError: the catalogue cannot be read or written.
        """
        names = [name for name, (done, total) in counts(database, self.audit).items() if done < total]
        lanes = [_Lane(self, name) for name in names]
        threads = [threading.Thread(target=lane.run, name=f"audit {lane.name}", daemon=True) for lane in lanes]
        for thread in threads:
            thread.start()
        try:
            while any(thread.is_alive() for thread in threads):
                self._conclude(database)
                for thread in threads:
                    thread.join(_JOIN_SECONDS)
        finally:
            # Also on Ctrl-C: each lane ends with its next chunk or call.
            stopped = self.limits.stop.is_set()
            self.limits.stop.set()
            for thread in threads:
                thread.join()
        self._conclude(database)
        for lane in lanes:
            if lane.failure is not None:
                raise lane.failure
        return not stopped and end_audit(database, self.audit, now=self.clock.now())

    def _conclude(self, database: Database) -> None:
        for bundle_id in incomplete_bundles(database, self.audit):
            conclude(database, self.config, self.audit, bundle_id, now=self.clock.now())


class _Lane:
    """The audit at one endpoint. `failure` is why it ended before its end."""

    def __init__(self, auditor: Auditor, name: str) -> None:
        self.name = name
        self.failure: BaseException | None = None
        self._auditor = auditor
        self._failures = 0
        self._read_bytes = 0
        self._staged: set[int] = set()

    def run(self) -> None:
        """Ask until everything is asked, or the audit stops."""
        auditor = self._auditor
        try:
            with ExitStack() as stack:
                database = stack.enter_context(closing(Database(auditor.config.catalogue)))
                endpoints = auditor.open_endpoints()
                for endpoint in endpoints.values():
                    stack.callback(endpoint.close)
                self._work(database, endpoints[self.name])
        except StoppedError:
            return
        except BaseException as error:  # the auditor raises it again when all lanes have ended
            self.failure = error
            auditor.limits.stop.set()

    def _work(self, database: Database, endpoint: StorageEndpoint) -> None:
        auditor = self._auditor
        done, total = counts(database, auditor.audit)[self.name]
        while pending := pending_bundles(database, auditor.audit, self.name, most=_STAGED_AHEAD):
            auditor.observe(Progress(self.name, done, total, self._read_bytes))
            # An adapter may be between two calls when the audit is stopped.
            auditor.limits.wait(0)
            self._stage_ahead(database, endpoint, pending)
            result = self._audit(database, endpoint, pending[0])
            record_result(database, auditor.audit, pending[0], result, now=auditor.clock.now())
            done += 1
        auditor.observe(Progress(self.name, done, total, self._read_bytes))

    def _audit(self, database: Database, endpoint: StorageEndpoint, bundle_id: int) -> ReplicaResult:
        auditor = self._auditor
        if self._failures >= _FAILURES_BEFORE_LEAVING:
            unasked = Finding(
                Outcome.NOT_KNOWN,
                f"not asked: {self.name} did not answer for {self._failures} bundles in a row before this one",
                "audit again when it is well",
            )
            return ReplicaResult(self.name, auditor.clock.now(), (unasked,))
        bundle = get_bundle(database, bundle_id)
        place = auditor.config.places[self.name]
        for wait_seconds in (*auditor.retry_seconds, None):
            asked = ReplicaAudit(
                bundle, place, endpoint, auditor.limits, deep=auditor.audit.deep, observe=self._has_read
            )
            error = self._ask(asked)
            # A file that did not come from tape in hours is not waited for once more.
            if wait_seconds is None or not isinstance(error, EndpointUnavailableError):
                silent = isinstance(error, EndpointUnavailableError | NotOnlineError)
                self._failures = self._failures + 1 if silent else 0
                break
            log.warning("run %d at %s: %s; again in %.0f s", bundle.run, self.name, error.message, wait_seconds)
            auditor.limits.wait(wait_seconds)
        if error is not None:
            asked.findings.append(Finding(Outcome.NOT_KNOWN, error.message, error.hint))
        return ReplicaResult(self.name, auditor.clock.now(), tuple(asked.findings), asked.read_bytes)

    def _ask(self, asked: ReplicaAudit) -> MoverError | None:
        """Ask; the answer is why something could not be asked."""
        try:
            asked.run()
        except (CredentialError, CatalogueError, StoppedError):
            raise
        except MoverError as error:
            return error
        except Exception as error:
            log.exception("auditing at %s", self.name)
            return UnexpectedError(error)
        return None

    def _stage_ahead(self, database: Database, endpoint: StorageEndpoint, pending: list[int]) -> None:
        """Ask for the next files that are on tape only, so that the drives need not wait for us."""
        if not (self._auditor.audit.deep and endpoint.capabilities.tape) or self._failures:
            return
        for bundle_id in (one for one in pending if one not in self._staged):
            self._staged.add(bundle_id)
            # What is wrong with it comes to light when it is its turn.
            with suppress(StorageError):
                lfn = get_bundle(database, bundle_id).lfn
                if endpoint.locality(lfn) is Locality.TAPE:
                    endpoint.bring_online(lfn)

    def _has_read(self, size_bytes: int) -> None:
        self._read_bytes += size_bytes
