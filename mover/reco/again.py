"""What a person wants of a job: that it be done again, or not at all."""

from datetime import datetime

from mover.catalogue.database import Database
from mover.catalogue.jobs import JobKey, JobRecord, last_iteration, move_job, want_jobs_within
from mover.states import JobEvent, JobState


def retry_job(database: Database, job: JobRecord, *, now: datetime) -> JobKey:
    """Have a job done again. What has an output, however wrong, keeps its name: then it is the next iteration.

    Raises:
        StateError: it is not quarantined or cancelled.
    """
    key = job.key
    with database.transaction() as connection:
        if job.bundle_id is None:
            move_job(connection, job, JobEvent.RETRIED, now=now)
            return key
        if job.state is not JobState.CANCELLED:
            move_job(connection, job, JobEvent.CANCELLED, now=now)
        again = JobKey(key.run, key.kind, key.release, last_iteration(connection, key) + 1)
        want_jobs_within(connection, [again], now=now, campaign_id=job.campaign_id)
        return again


def cancel_job(database: Database, job: JobRecord, *, now: datetime) -> None:
    """Have a job not done: the agent ends it in the batch system, too.

    Raises:
        StateError: its output is taken already.
    """
    with database.transaction() as connection:
        move_job(connection, job, JobEvent.CANCELLED, now=now)
