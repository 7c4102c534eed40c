"""What a person wants of a job: that it be done again, or not at all."""

from datetime import datetime

from mover.catalogue.database import Database
from mover.catalogue.jobs import JobKey, JobRecord, last_iteration, move_job, read_job, want_jobs_within
from mover.errors import StateError
from mover.states import JobEvent, JobState


def retry_job(database: Database, job: JobRecord, *, now: datetime) -> JobKey:
    """Have a job done again. What has an output, however wrong, keeps its name: then it is the next iteration.

    What counts is the job as it is now, not as it was when somebody looked.

    Raises:
        StateError: it is not quarantined or cancelled, or was done again already.
    """
    key = job.key
    with database.transaction() as connection:
        current = read_job(connection, job.id)
        last = last_iteration(connection, key)
        if last > key.iteration:
            raise StateError(
                f"the {key} was done again already, as iteration {last}",
                hint=f"`mover reco status {key.run}` shows what became of that",
            )
        if current.bundle_id is None:
            move_job(connection, job.id, JobEvent.RETRIED, now=now)
            return key
        if current.state is not JobState.CANCELLED:
            move_job(connection, job.id, JobEvent.CANCELLED, now=now)
        again = JobKey(key.run, key.kind, key.release, last + 1)
        want_jobs_within(connection, [again], now=now, campaign_id=current.campaign_id)
        return again


def cancel_job(database: Database, job: JobRecord, *, now: datetime) -> None:
    """Have a job not done: the agent ends it in the batch system, too.

    Raises:
        StateError: its output is on its way, or proven.
    """
    with database.transaction() as connection:
        move_job(connection, job.id, JobEvent.CANCELLED, now=now)
