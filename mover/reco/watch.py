"""What the batch system says of submitted jobs: which have ended, which have vanished, which show no sign of life."""

import logging
from datetime import datetime, timedelta

from mover.catalogue.database import Database
from mover.catalogue.jobs import (
    JobRecord,
    jobs_in,
    jobs_to_end,
    record_batch_id,
    record_heartbeat,
    record_look,
    record_missing,
)
from mover.errors import BatchError
from mover.ports import BatchSystem, Clock, JobPhase, JobStatus
from mover.reco.jobdescription import HEARTBEAT_NAME
from mover.reco.jobfiles import read_job_file
from mover.recoconfig import RecoConfig
from mover.states import JobState

log = logging.getLogger("mover")

_LONGEST_HEARTBEAT_BYTES = 4096


class Watch:
    """Asks the batch system, in as few queries as there can be, and notes its answers; workers act on them."""

    def __init__(self, reco: RecoConfig, batch: BatchSystem, clock: Clock) -> None:
        self._reco = reco
        self._batch = batch
        self._clock = clock
        self._trouble = ""

    def look(self, database: Database) -> None:
        """Look after every submitted job, and end those that were cancelled.

        Raises:
            CatalogueError: the catalogue fails.
        """
        try:
            self._end_cancelled(database)
            self._look(database)
            self._say("")
        except BatchError as error:
            # It says nothing of any job.
            self._say(f"{self._batch.name}: {error.message} ({error.hint})")

    def _look(self, database: Database) -> None:
        submitted = [one for one in jobs_in(database, JobState.SUBMITTED) if not one.ended and one.owner is None]
        for job in submitted:
            if job.batch_id is None:
                self._find(database, job)
        known = {one.batch_id: one for one in submitted if one.batch_id is not None and one.name is not None}
        found = self._batch.look(list(known)) if known else {}
        for batch_id, job in known.items():
            status = found.get(batch_id)
            if status is None:
                self._missing(database, job)
            else:
                self._note(database, job, status)
                if status.phase is JobPhase.RUNNING:
                    self._heartbeat(database, job)

    def _find(self, database: Database, job: JobRecord) -> None:
        """Look for an attempt whose submission was never answered."""
        name = job.name or ""
        if batch_id := self._batch.find(name):
            record_batch_id(database, name, batch_id)
        else:
            self._missing(database, job)

    def _missing(self, database: Database, job: JobRecord) -> None:
        now = self._clock.now()
        if self._lasts(job.missing_since, now, self._reco.vanished_after_seconds):
            words = f"vanished: {self._batch.name} does not know it any more"
            self._note(database, job, JobStatus(JobPhase.FAILED, words))
        else:
            record_missing(database, job.name or "", now=now)

    def _heartbeat(self, database: Database, job: JobRecord) -> None:
        directory = self._reco.scratch / "jobs" / (job.name or "")
        raw = read_job_file(self._batch, job, directory, HEARTBEAT_NAME, limit_bytes=_LONGEST_HEARTBEAT_BYTES)
        now = self._clock.now()
        # Before its first sign of life, its start is one.
        heartbeat = (raw or b"").decode("utf-8", "backslashreplace")
        record_heartbeat(database, job.name or "", heartbeat, now=now)
        if heartbeat == job.heartbeat and self._lasts(job.heartbeat_at, now, self._reco.silent_after_seconds):
            self._batch.cancel(job.batch_id or "")
            words = f"ended by us: no sign of life for {self._reco.silent_after_seconds:.0f} s"
            self._note(database, job, JobStatus(JobPhase.FAILED, words))

    def _end_cancelled(self, database: Database) -> None:
        for job in jobs_to_end(database):
            batch_id = job.batch_id or self._batch.find(job.name or "")
            if batch_id is not None:
                self._batch.cancel(batch_id)
                self._batch.forget(batch_id)
            self._note(database, job, JobStatus(JobPhase.CANCELLED, "cancelled by a person"))

    def _note(self, database: Database, job: JobRecord, status: JobStatus) -> None:
        record_look(
            database,
            job.name or "",
            phase=status.phase,
            status=status.words,
            exit_code=status.exit_code,
            ended=status.ended,
        )

    @staticmethod
    def _lasts(since: datetime | None, now: datetime, seconds: float) -> bool:
        return since is not None and now - since >= timedelta(seconds=seconds)

    def _say(self, trouble: str) -> None:
        """Log the trouble once when it begins, and once when it ends."""
        if trouble != self._trouble:
            log.warning("%s", trouble or f"{self._batch.name} answers again")
            self._trouble = trouble
