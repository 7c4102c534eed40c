"""An ended run → planned: look at its files, judge its completeness, and commit what is wanted."""

from datetime import datetime
from enum import StrEnum

from mover.bundle.plan import BundlePlan, plan_bundle
from mover.bundle.scan import ScannedRun, scan
from mover.catalogue.database import Database
from mover.catalogue.runs import (
    bundle_of,
    find_run,
    record_incomplete,
    record_planned,
    record_problem,
)
from mover.config import Config
from mover.errors import RunChangedError, RunError
from mover.states import RunState


class Closed(StrEnum):
    """What closing a run came to."""

    PLANNED = "planned"
    ALREADY = "already closed with the same files"


def close_run(
    database: Database,
    config: Config,
    run: int,
    *,
    now: datetime,
    marker_ns: int | None = None,
    force: bool = False,
) -> Closed:
    """Close a run: plan its bundle and want its replicas, or quarantine it.

    Args:
        marker_ns: the mtime of the marker that says so, or None for a command.
        force: take it although it is not complete; the findings go into the manifest.

    Raises:
        RunError: it is not complete or has an unsafe file (then it is quarantined), or it was closed before with other
            files (then the first closing stands, and the problem is recorded).
        RunDirectoryError: the run directory cannot be read; nothing is recorded.
    """
    known = find_run(database, run)
    if known is not None and known.state is not RunState.QUARANTINED:
        return _close_again(database, config, run, marker_ns=marker_ns, now=now)
    try:
        plan = plan_bundle(
            _scan(config, run),
            experiment=config.experiment,
            lfn=config.bundle.naming().lfn(run),
            digests=config.bundle.digests,
            force=force,
        )
    except RunError as error:
        record_incomplete(database, run, error, marker_ns=marker_ns, now=now)
        raise
    endpoints = [endpoint.name for endpoint in config.endpoint]
    record_planned(database, plan, marker_ns=marker_ns, endpoints=endpoints, now=now)
    return Closed.PLANNED


def _scan(config: Config, run: int) -> ScannedRun:
    runs = config.runs
    return scan(runs.directory, runs.naming(), run, date_format=runs.format == "date", first_part=runs.first_part)


def _close_again(database: Database, config: Config, run: int, *, marker_ns: int | None, now: datetime) -> Closed:
    bundle = bundle_of(database, run)
    try:
        if bundle is None or _scan(config, run).parts != bundle.plan.parts:
            raise _other_files(run, bundle.plan if bundle else None)
    except RunError as error:
        problem = error if isinstance(error, RunChangedError) else _other_files(run, None, str(error))
        record_problem(database, run, problem, marker_ns=marker_ns, now=now)
        raise problem from error
    return Closed.ALREADY


def _other_files(run: int, plan: BundlePlan | None, why: str = "") -> RunChangedError:
    planned = f" (closed with {len(plan.parts)} parts)" if plan else f" ({why})" if why else ""
    return RunChangedError(
        f"run {run} ended a second time, with other files{planned}",
        hint="the first bundle stands and nothing of it is changed; give the new files another run number",
    )
