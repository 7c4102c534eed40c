"""A worker does what there is to do for jobs, one after the other: claim → step → commit."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

from mover.catalogue.database import Database
from mover.catalogue.jobs import (
    JobClaim,
    claim_job,
    get_job,
    record_job_event,
    record_job_failure,
    release_job_claim,
    renew_job_claim,
)
from mover.catalogue.owner import this_process
from mover.errors import (
    BatchUnavailableError,
    CatalogueError,
    JobFailedError,
    JobRefusedError,
    JobTransientError,
    LeaseLostError,
    LfnTakenError,
    MoverError,
    OutputContractError,
    StateError,
    StoppedError,
    UnexpectedError,
    UnsafeNameError,
)
from mover.ports import StorageEndpoint
from mover.reco.collect import collect, note_failure
from mover.reco.prove import prove
from mover.reco.submit import submit
from mover.reco.threads import AgentThread, RecoSurroundings
from mover.reco.work import JobWork
from mover.states import JobEvent, JobState

log = logging.getLogger("mover")

#: What does not pass by itself.
_HOPELESS = (OutputContractError, JobFailedError, JobRefusedError, LfnTakenError, UnsafeNameError)


class Worker(AgentThread):
    """Does what there is to do for one job after the other."""

    def work_once(self, database: Database, endpoints: Mapping[str, StorageEndpoint]) -> bool:
        """Claim one piece of work that is due, and do it; False if none is.

        Raises:
            CatalogueError: the catalogue fails.
        """
        around = self._around
        claim = claim_job(
            database,
            owner=this_process(),
            lease=timedelta(seconds=around.config.engine.lease_seconds),
            now=around.clock.now(),
            most=around.reco.most_jobs,
            ahead=around.reco.ahead,
        )
        if claim is None:
            return False
        work = JobWork(
            database=database,
            claim=claim,
            job=get_job(database, claim.job_id),
            config=around.config,
            reco=around.reco,
            batch=around.batch,
            endpoints=endpoints,
            clock=around.clock,
            alive=_Alive(database, claim, around),
            recalls=around.recalls,
        )
        try:
            self._try_step(work)
        except (LeaseLostError, StoppedError, StateError) as error:
            log.info("%s: %s", claim.key, error.message)
        finally:
            release_job_claim(database, claim)
            if get_job(database, claim.job_id).state is not work.job.state:
                around.wake.set()
        return True

    def _try_step(self, work: JobWork) -> None:
        try:
            self._step(work)
        except (CatalogueError, StoppedError):
            raise
        except MoverError as error:
            self._failed(work, error)
        except Exception as error:
            log.exception("%s", work.claim.key)
            self._failed(work, UnexpectedError(error))
        else:
            after = get_job(work.database, work.job.id)
            if after.state is not work.job.state:
                log.info("%s: %s", work.claim.key, after.state)

    def _step(self, work: JobWork) -> None:
        if work.job.state is JobState.WANTED:
            submit(work, self._around.releases)
        elif work.job.state is JobState.SUBMITTED:
            collect(work)
        else:
            prove(work)

    def _failed(self, work: JobWork, error: MoverError) -> None:
        """Note it; should that fail too, it is our own trouble, and the job is looked at again later."""
        try:
            self._note(work, error)
        except (CatalogueError, StoppedError):
            raise
        except Exception as another:
            log.exception("%s", work.claim.key)
            self._postpone(work, UnexpectedError(another))

    def _note(self, work: JobWork, error: MoverError) -> None:
        job = get_job(work.database, work.job.id)
        log.warning("%s: %s (%s)", job.key, error.message, error.hint)
        now = self._around.clock.now()
        begun = work.job.state is JobState.WANTED and job.state is JobState.SUBMITTED
        if begun and isinstance(error, BatchUnavailableError):
            # Nobody knows whether it was taken: the next look finds out.
            return
        if job.state is JobState.SUBMITTED and isinstance(error, JobTransientError | JobFailedError | JobRefusedError):
            note_failure(replace(work, job=job), error)
        elif isinstance(error, _HOPELESS):
            record_job_event(work.database, work.claim, JobEvent.GAVE_UP, now=now, problem=error)
        else:
            self._postpone(work, error)

    def _postpone(self, work: JobWork, error: MoverError) -> None:
        """Try the same step again later: after as long as it has been tried for, within the limits."""
        reco, now = self._around.reco, self._around.clock.now()
        tried = now - get_job(work.database, work.job.id).since
        first, longest = timedelta(seconds=reco.first_retry_seconds), timedelta(seconds=reco.longest_retry_seconds)
        until = now + min(max(tried, first), longest)
        record_job_failure(work.database, work.claim, error, now=now, next_attempt_at=until, again=False)


class _Alive:
    """Called for every chunk: stops when asked to, renews the claim."""

    def __init__(self, database: Database, claim: JobClaim, around: RecoSurroundings) -> None:
        self._database = database
        self._claim = claim
        self._around = around
        self._renewed = around.clock.now()

    def __call__(self) -> None:
        if self._around.stop.is_set():
            raise StoppedError("interrupted, to be taken up again", hint="start the agent again")
        now = self._around.clock.now()
        if now - self._renewed > self._claim.lease / 3:
            renew_job_claim(self._database, self._claim, now=now)
            self._renewed = now
