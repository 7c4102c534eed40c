"""An ended run → planned: look at its files, judge its completeness, and commit what is wanted."""

from datetime import datetime
from enum import StrEnum

from mover.bundle.plan import plan_bundle
from mover.bundle.scan import ScannedRun, list_run, open_directory, scan
from mover.catalogue.database import Database
from mover.catalogue.runs import (
    bundle_of,
    find_run,
    record_incomplete,
    record_planned,
    record_problem,
    record_replanned,
    record_same_again,
)
from mover.config import Config
from mover.errors import RunChangedError, RunError, UnsafeNameError
from mover.states import RunState


class Closed(StrEnum):
    """What closing a run came to."""

    PLANNED = "planned"
    ALREADY = "already closed with the same files"
    RELEASED = "already released, and no file of it is here"


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
        force: take it although it is not complete (the findings go into the manifest), or plan it anew although it was
            closed before, if nothing of it is stored.

    Raises:
        RunError: it is not complete or has an unsafe file (then it is quarantined), or it was closed before with other
            files (then the first closing stands, and the problem is recorded).
        RunDirectoryError: the run directory cannot be read; nothing is recorded.
        CatalogueError: `force` is to plan a closed run anew, but something of it is stored.
    """
    known = find_run(database, run)
    closed = known is not None and known.state is not RunState.QUARANTINED
    if closed and _is_same(database, config, run):
        record_same_again(database, run, marker_ns=marker_ns, now=now)
        return Closed.ALREADY
    if known is not None and known.state is RunState.RELEASED and _has_no_part(config, run):
        record_same_again(database, run, marker_ns=marker_ns, now=now)
        return Closed.RELEASED
    replan = force and known is not None and known.state is RunState.PLANNED
    if closed and not replan:
        problem = RunChangedError(
            f"run {run} ended a second time, with other files",
            hint="the first bundle stands and nothing of it is changed; give the new files another run number, "
            "or restore the old ones and close it again; --force plans it anew if nothing is stored yet",
        )
        record_problem(database, run, problem, marker_ns=marker_ns, now=now)
        raise problem
    try:
        plan = plan_bundle(
            _scan(config, run),
            experiment=config.experiment,
            lfn=config.bundle.naming().lfn(run),
            digests=config.bundle.digests,
            force=force,
        )
        if replan:
            record_replanned(database, plan, marker_ns=marker_ns, now=now)
        else:
            record_planned(database, plan, marker_ns=marker_ns, endpoints=config.raw_policy().endpoints, now=now)
    except RunError as error:
        if not closed:
            record_incomplete(database, run, error, marker_ns=marker_ns, now=now)
        raise
    return Closed.PLANNED


def _scan(config: Config, run: int) -> ScannedRun:
    runs = config.runs
    return scan(runs.directory, runs.naming(), run, date_format=runs.format == "date", first_part=runs.first_part)


def _has_no_part(config: Config, run: int) -> bool:
    with open_directory(config.runs.directory) as directory:
        parts, others = list_run(directory, config.runs.naming(), run)
    return not parts and not others


def _is_same(database: Database, config: Config, run: int) -> bool:
    """Whether the files in the run directory are those of the plan; nothing is read of them."""
    bundle = bundle_of(database, run)
    try:
        with open_directory(config.runs.directory) as directory:
            parts, _ = list_run(directory, config.runs.naming(), run)
    except UnsafeNameError:
        return False
    return bundle is not None and bundle.plan is not None and tuple(parts) == bundle.plan.parts
