"""What the batch system says of submitted jobs: which have ended, which have vanished, which show no sign of life."""

import logging
from datetime import datetime, timedelta

from mover.catalogue.attempts import (
    record_batch_id,
    record_end,
    record_heartbeat,
    record_job_problem,
    record_look,
    record_missing,
)
from mover.catalogue.database import Database
from mover.catalogue.jobs import JobRecord, jobs_in, jobs_to_end
from mover.errors import BatchError, JobTransientError
from mover.ports import BatchSystem, Clock, JobPhase, JobStatus
from mover.reco.jobdescription import HEARTBEAT_NAME
from mover.reco.jobfiles import read_job_file
from mover.reco.tidy import forget_attempt
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
        self._others = ""

    def look(self, database: Database) -> None:
        """Look after every submitted job, and end those that are not wanted any more.

        Raises:
            CatalogueError: the catalogue fails.
        """
        trouble = ""
        for step in (self._look, self._end_unwanted):
            try:
                step(database)
            except BatchError as error:
                # It says nothing of any job.
                trouble = f"{self._batch.name}: {error.message} ({error.hint})"
        self._say(trouble)

    def _look(self, database: Database) -> None:
        now = self._clock.now()
        submitted = [one for one in jobs_in(database, JobState.SUBMITTED) if not one.ended and not one.is_claimed(now)]
        submitted = self._ours(submitted)
        for job in submitted:
            if job.batch_id is None:
                self._find(database, job)
        known = {one.batch_id: one for one in submitted if one.batch_id is not None}
        found = self._batch.look(list(known)) if known else {}
        for batch_id, job in known.items():
            status = found.get(batch_id)
            if status is None:
                self._missing(database, job)
            else:
                self._note(database, job, status)
                if status.phase is JobPhase.RUNNING:
                    self._heartbeat(database, job)

    def _ours(self, jobs: list[JobRecord]) -> list[JobRecord]:
        """Those that this batch system was given: of another's it knows nothing, which says nothing of them."""
        ours = [one for one in jobs if one.batch == self._batch.name]
        if others := sorted({one.batch or "" for one in jobs} - {self._batch.name}):
            self._say_others(f"jobs at {', '.join(others)} are not looked after: [reco.batch] is {self._batch.name}")
        else:
            self._say_others("")
        return ours

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
        name, now = job.name or "", self._clock.now()
        try:
            raw = read_job_file(
                self._batch,
                job,
                self._reco.scratch / "jobs" / name,
                HEARTBEAT_NAME,
                limit_bytes=_LONGEST_HEARTBEAT_BYTES,
            )
        except BatchError as error:
            log.info("the heartbeat of %s: %s", name, error.message)
            raw = None
        # Before its first sign of life, its start is one.
        heartbeat = (raw or b"").decode("utf-8", "backslashreplace")
        record_heartbeat(database, name, heartbeat, now=now)
        if heartbeat == job.heartbeat and self._lasts(job.heartbeat_at, now, self._reco.silent_after_seconds):
            silent = f"ended by us after no sign of life for {self._reco.silent_after_seconds:.0f} s"
            record_job_problem(
                database, name, JobTransientError(silent, hint="it is submitted again once it has ended")
            )
            # When it has ended is the batch system's to say.
            self._batch.cancel(job.batch_id or "")

    def _end_unwanted(self, database: Database) -> None:
        unwanted = self._ours(jobs_to_end(database))
        for job in unwanted:
            if job.batch_id is None:
                # It may be on its way there.
                self._find(database, job)
        known = {one.batch_id: one for one in unwanted if one.batch_id is not None}
        found = self._batch.look(list(known)) if known else {}
        for batch_id, job in known.items():
            status = found.get(batch_id)
            try:
                if status is None:
                    self._missing(database, job)
                elif status.ended:
                    self._end(database, job, status)
                else:
                    self._batch.cancel(batch_id)
            except BatchError as error:
                log.warning("%s cannot be ended: %s (%s)", job.name, error.message, error.hint)

    def _end(self, database: Database, job: JobRecord, status: JobStatus) -> None:
        now, name = self._clock.now(), job.name or ""
        record_end(database, name, phase=status.phase, status=status.words, exit_code=status.exit_code, now=now)
        forget_attempt(database, self._batch, name, now=now)

    def _note(self, database: Database, job: JobRecord, status: JobStatus) -> None:
        known = (job.phase, job.status, job.exit_code, job.ended, job.missing_since)
        if known == (status.phase, status.words, status.exit_code, status.ended, None):
            return
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

    def _say_others(self, trouble: str) -> None:
        """Log it once when it begins."""
        if trouble and trouble != self._others:
            log.warning("%s", trouble)
        self._others = trouble

    def _say(self, trouble: str) -> None:
        """Log the trouble once when it begins, and once when it ends."""
        if trouble != self._trouble:
            log.warning("%s", trouble or f"{self._batch.name} answers again")
            self._trouble = trouble
