"""Alarms about runs, replicas and jobs that need a person."""

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from mover.alarms.alarm import Alarm, AlarmKind, Severity
from mover.catalogue.database import Database
from mover.catalogue.jobs import JobKey
from mover.config import Config
from mover.model import BundleKind
from mover.steps.lease import overlong_claims

#: Of each kind; what is beyond is said in one.
MOST = 20


def need_people(database: Database, config: Config, *, now: datetime) -> Iterator[Alarm]:
    """What does not go on before somebody acts."""
    for sort in (_RUNS, *(_replicas_at(name) for name in config.places), _JOBS):
        # The texts are those of this module.
        rows = database.query(
            f"SELECT {sort.columns} {sort.source} ORDER BY {sort.order} LIMIT {MOST + 1}",
            *sort.values,
        )
        yield from (sort.make(row) for row in rows[:MOST])
        if len(rows) > MOST:
            (count,) = database.query(f"SELECT count(*) AS number {sort.source}", *sort.values)
            says = f"{count['number'] - MOST} more {sort.what}"
            yield Alarm(sort.kind, sort.what, Severity.WARNING, says, "`mover status` shows all of them", None)
    for one in overlong_claims(database, config, now=now):
        subject = f"run {one.claim.run} at {one.claim.endpoint}"
        remedy = f"see that no engine runs on {one.claim.host}, then `mover run retry {one.claim.run}`"
        yield Alarm(AlarmKind.CLAIM, subject, Severity.WARNING, str(one), remedy, None)


def _run(row: sqlite3.Row) -> Alarm:
    number = row["number"]
    says = row["problem"] or f"run {number} is quarantined"
    return Alarm(
        AlarmKind.RUN,
        f"run {number}",
        Severity.WARNING,
        says if says.startswith(f"run {number} ") else f"run {number}: {says}",
        f"{row['hint'] or 'look at its files'}; `mover why {number}` says more",
        datetime.fromisoformat(row["since"]),
    )


def _replica(row: sqlite3.Row) -> Alarm:
    run = row["run"]
    what = f"{row['kind']} of run {run} at {row['endpoint']}"
    return Alarm(
        AlarmKind.REPLICA,
        what,
        Severity.WARNING,
        f"{what}: {row['problem'] or 'quarantined'}",
        f"{row['hint'] or 'look at the endpoint'}; then `mover run retry {run}`",
        datetime.fromisoformat(row["since"]),
    )


def _job(row: sqlite3.Row) -> Alarm:
    key = JobKey(row["run"], BundleKind(row["kind"]), row["release"], row["iteration"])
    return Alarm(
        AlarmKind.JOB,
        str(key),
        Severity.WARNING,
        f"the {key}: {row['problem'] or 'quarantined'}",
        f"{row['hint'] or 'look at its logs'}; then `mover reco retry {key.run}`, or `mover reco cancel {key.run}`",
        datetime.fromisoformat(row["since"]),
    )


@dataclass(frozen=True, slots=True)
class _Sort:
    """One sort of things that need a person: where they are in the catalogue, and how each is told."""

    kind: AlarmKind
    what: str
    columns: str
    source: str
    order: str
    make: Callable[[sqlite3.Row], Alarm]
    values: tuple[str, ...] = ()


_RUNS = _Sort(
    AlarmKind.RUN,
    "runs",
    "number, problem, hint, since",
    "FROM run WHERE state = 'quarantined' OR problem NOTNULL",
    "number",
    _run,
)
# One that was done again since is only history.
_JOBS = _Sort(
    AlarmKind.JOB,
    "jobs",
    "run, kind, release, iteration, problem, hint, since",
    "FROM job WHERE state = 'quarantined' AND NOT EXISTS (SELECT 1 FROM job AS later WHERE later.run = job.run "
    "AND later.kind = job.kind AND later.release = job.release AND later.iteration > job.iteration)",
    "run, kind",
    _job,
)


def _replicas_at(endpoint: str) -> _Sort:
    return _Sort(
        AlarmKind.REPLICA,
        f"replicas at {endpoint}",
        "run, kind, endpoint, replica.since, problem, hint",
        "FROM replica JOIN bundle ON bundle.id = replica.bundle_id "
        "WHERE endpoint = ? AND replica.state = 'quarantined'",
        "run, kind",
        _replica,
        (endpoint,),
    )
