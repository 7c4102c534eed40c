"""Jobs and replicas as `--json` tells them, wherever it does."""

from mover.catalogue.jobs import JobKey, JobRecord
from mover.catalogue.replicas import ReplicaRecord
from mover.cli.jsonout import time_or_none
from mover.states import JobState


def key_document(key: JobKey) -> dict[str, object]:
    """Which job it is."""
    return {"run": key.run, "kind": key.kind.value, "release": key.release, "iteration": key.iteration}


def job_document(job: JobRecord) -> dict[str, object]:
    """Where a job is."""
    return key_document(job.key) | {
        "state": job.state.value,
        "since": job.since.isoformat(),
        "campaign": job.campaign_id,
        "attempts": job.attempts,
        "failures": job.failures,
        "next_attempt_at": job.next_attempt_at.isoformat() if job.state is JobState.WANTED else None,
        "batch": job.batch,
        "batch_id": job.batch_id,
        "phase": job.phase,
        "said": job.status,
        "heartbeat_at": time_or_none(job.heartbeat_at),
        "problem": job.problem,
        "hint": job.hint,
    }


def replica_document(replica: ReplicaRecord) -> dict[str, object]:
    """Where a replica is."""
    return {
        "endpoint": replica.endpoint,
        "state": replica.state.value,
        "since": replica.since.isoformat(),
        "backlog": replica.backlog,
        "failures": replica.failures,
        "next_attempt_at": replica.next_attempt_at.isoformat(),
        "problem": replica.problem,
        "hint": replica.hint,
    }
