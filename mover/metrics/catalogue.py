"""What the catalogue says, as metrics: runs, replicas, jobs, tapes, endpoints."""

import math
from collections.abc import Iterator
from datetime import datetime, timedelta

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from mover.catalogue import custody
from mover.catalogue.database import Database
from mover.catalogue.endpoints import sick_endpoints
from mover.config import Config
from mover.model import BundleKind, EndpointKind
from mover.states import JobState, ReplicaState, RunState

_LATENCY_OVER = timedelta(days=1)
_QUANTILES = (0.5, 0.9, 1.0)


def run_metrics(database: Database, now: datetime) -> Iterator[Metric]:
    """Runs by state, how long the oldest is in it, and those with a problem."""
    number = GaugeMetricFamily("mover_runs", "Runs by state.", labels=["state"])
    age = GaugeMetricFamily("mover_run_oldest_seconds", "Age of the oldest run in a state.", labels=["state"])
    rows = database.query("SELECT state, count(*) AS number, min(since) AS since FROM run GROUP BY state")
    found = {row["state"]: row for row in rows}
    for state in RunState:
        if state is RunState.UNKNOWN:
            continue
        row = found.get(state)
        number.add_metric([state], row["number"] if row else 0)
        if row and state not in {RunState.RELEASED, RunState.DISMISSED}:
            age.add_metric([state], _age(row["since"], now))
    (row,) = database.query("SELECT count(*) AS number FROM run WHERE problem NOTNULL")
    yield from (number, age)
    yield GaugeMetricFamily("mover_runs_with_problem", "Runs that need a person.", row["number"])
    yield CounterMetricFamily("mover_custody_records", "Records in the custody chain.", custody.head(database).seq)


def bundle_metrics(database: Database) -> Iterator[Metric]:
    """Bundles and their bytes, by kind."""
    number = GaugeMetricFamily("mover_bundles", "Bundles by kind.", labels=["kind"])
    size = GaugeMetricFamily("mover_bundle_bytes", "Bytes of all bundles by kind.", labels=["kind"])
    rows = database.query("SELECT kind, count(*) AS number, sum(size_bytes) AS bytes FROM bundle GROUP BY kind")
    found = {row["kind"]: (row["number"], row["bytes"]) for row in rows}
    for kind in BundleKind:
        count, total = found.get(kind, (0, 0))
        number.add_metric([kind], count)
        size.add_metric([kind], total)
    yield from (number, size)


def replica_metrics(database: Database, config: Config, now: datetime) -> Iterator[Metric]:
    """Replicas of configured endpoints by state: how many, their bytes, the oldest, and how often they were tried."""
    labels = ["endpoint", "state"]
    number = GaugeMetricFamily("mover_replicas", "Replicas by endpoint and state.", labels=labels)
    size = GaugeMetricFamily("mover_replica_bytes", "Bytes of replicas by endpoint and state.", labels=labels)
    age = GaugeMetricFamily(
        "mover_replica_oldest_seconds", "Age of the oldest replica in a state that is not its last.", labels=labels
    )
    failures = GaugeMetricFamily(
        "mover_replica_failures", "Attempts in a row that failed, of replicas that wait.", labels=["endpoint"]
    )
    uploads = CounterMetricFamily("mover_uploads", "Uploads and copies that were begun.", labels=["endpoint"])
    rejections = GaugeMetricFamily(
        "mover_replica_rejections", "Files that were found wrong or missing and are made again.", labels=["endpoint"]
    )
    rows = database.query(
        "SELECT endpoint, replica.state, count(*) AS number, sum(size_bytes) AS bytes, min(since) AS since, "
        "sum(failures) AS failures, sum(uploads) AS uploads, sum(rejections) AS rejections "
        "FROM replica JOIN bundle ON bundle.id = replica.bundle_id GROUP BY endpoint, replica.state"
    )
    found = {(row["endpoint"], row["state"]): row for row in rows}
    for place in config.endpoint:
        last = ReplicaState.ARCHIVED if place.kind is EndpointKind.TAPE else ReplicaState.VERIFIED
        here = [row for state in ReplicaState if (row := found.get((place.name, state)))]
        for state in ReplicaState:
            row = found.get((place.name, state))
            number.add_metric([place.name, state], row["number"] if row else 0)
            size.add_metric([place.name, state], row["bytes"] if row else 0)
            if row and state is not last:
                age.add_metric([place.name, state], _age(row["since"], now))
        failures.add_metric([place.name], sum(row["failures"] for row in here))
        uploads.add_metric([place.name], sum(row["uploads"] for row in here))
        rejections.add_metric([place.name], sum(row["rejections"] for row in here))
    yield from (number, size, age, failures, uploads, rejections)


def tape_metrics(database: Database, config: Config, now: datetime) -> Iterator[Metric]:
    """How long raw data took from the end of the run to tape, of what came to tape within the last day."""
    latency = GaugeMetricFamily(
        "mover_tape_latency_seconds",
        "From the end of the run to its raw data on tape: quantiles over the last 24 hours.",
        labels=["endpoint", "quantile"],
    )
    number = GaugeMetricFamily("mover_taped_last_day", "Raw replicas that came to tape in 24 h.", labels=["endpoint"])
    since = (now - _LATENCY_OVER).isoformat()
    for place in config.endpoint:
        if place.kind is not EndpointKind.TAPE:
            continue
        # What is archived is never put off, so that the index of what is due finds the latest.
        rows = database.query(
            "SELECT replica.since, run.closed_at FROM replica JOIN bundle ON bundle.id = replica.bundle_id "
            "JOIN run ON run.number = bundle.run WHERE replica.endpoint = ? AND replica.state = 'archived' "
            "AND replica.next_attempt_at >= ? AND replica.since >= ? AND bundle.kind = 'raw' AND replica.backlog = 0",
            place.name,
            since,
            since,
        )
        seconds = sorted(_age(row["closed_at"], datetime.fromisoformat(row["since"])) for row in rows)
        number.add_metric([place.name], len(seconds))
        for quantile in _QUANTILES if seconds else ():
            at = math.ceil(quantile * len(seconds)) - 1
            latency.add_metric([place.name, f"{quantile:g}"], seconds[at])
    yield from (latency, number)


def job_metrics(database: Database, now: datetime) -> Iterator[Metric]:
    """Jobs by kind and state, and how long the oldest is in it."""
    labels = ["kind", "state"]
    number = GaugeMetricFamily("mover_jobs", "Jobs by kind and state.", labels=labels)
    age = GaugeMetricFamily("mover_job_oldest_seconds", "Age of the job that is in a state for longest.", labels=labels)
    attempts = CounterMetricFamily("mover_job_attempts", "Attempts that were submitted.", labels=["kind"])
    rows = database.query(
        "SELECT kind, state, count(*) AS number, min(since) AS since, sum(attempts) AS attempts FROM job "
        "GROUP BY kind, state"
    )
    found = {(row["kind"], row["state"]): row for row in rows}
    for kind in (BundleKind.RECO, BundleKind.MC):
        for state in JobState:
            row = found.get((kind, state))
            number.add_metric([kind, state], row["number"] if row else 0)
            if row and state in {JobState.WANTED, JobState.SUBMITTED, JobState.COLLECTED, JobState.QUARANTINED}:
                age.add_metric([kind, state], _age(row["since"], now))
        attempts.add_metric([kind], sum(row["attempts"] for key, row in found.items() if key[0] == kind))
    yield from (number, age, attempts)


def endpoint_metrics(database: Database, config: Config, now: datetime) -> Iterator[Metric]:
    """Whether each endpoint answers, as far as the engine has asked."""
    well = GaugeMetricFamily(
        "mover_endpoint_up", "1 if the endpoint answered last, 0 if it is left alone.", labels=["endpoint"]
    )
    silent = GaugeMetricFamily("mover_endpoint_silent_seconds", "Since when it has not answered.", labels=["endpoint"])
    sick = sick_endpoints(database)
    for place in config.endpoint:
        health = sick.get(place.name)
        well.add_metric([place.name], health is None)
        silent.add_metric([place.name], (now - health.since).total_seconds() if health else 0)
    yield from (well, silent)


def _age(since: str, now: datetime) -> float:
    """Seconds from then to now; 0 where a clock was ahead."""
    return max(0.0, (now - datetime.fromisoformat(since)).total_seconds())
