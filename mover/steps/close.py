"""An ended run → planned: look at its files, judge its completeness, and commit what is wanted."""

from datetime import datetime
from enum import StrEnum

from mover.bundle.plan import plan_bundle
from mover.bundle.scan import ScannedRun, list_run, open_directory, scan
from mover.catalogue.database import Database
from mover.catalogue.runs import (
    RunRecord,
    bundle_of,
    find_run,
    record_incomplete,
    record_planned,
    record_problem,
    record_replanned,
    record_same_again,
)
from mover.config import Config
from mover.errors import RunChangedError, RunError, RunIncompleteError, UnsafeNameError
from mover.states import RunState

#: How many changed files a message names.
_SHOWN = 3


class Closed(StrEnum):
    """What closing a run came to."""

    PLANNED = "planned"
    ALREADY = "already closed with the same files"
    RELEASED = "already released, and no file of it is here"
    HELD = "already closed with the same files, and quarantined by a person"


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
        RunError: it is not complete or has an unsafe file (then it is quarantined, unless a command names a run that
            nobody has heard of and that has no file), or it was closed before with other files (then the first
            closing stands, and the problem is recorded).
        RunDirectoryError: the run directory cannot be read; nothing is recorded.
        CatalogueError: `force` is to plan a closed run anew, but something of it is stored.
    """
    known = find_run(database, run)
    held = is_held(database, known)
    closed = held or (known is not None and known.state not in {RunState.QUARANTINED, RunState.DISMISSED})
    change = _change(database, config, run) if closed else None
    if held and change is None:
        return Closed.HELD
    if closed and change is None:
        record_same_again(database, run, marker_ns=marker_ns, now=now)
        return Closed.ALREADY
    if known is not None and known.state is RunState.RELEASED and has_no_part(config, run):
        record_same_again(database, run, marker_ns=marker_ns, now=now)
        return Closed.RELEASED
    replan = force and known is not None and known.state is RunState.PLANNED
    if closed and not replan:
        problem = RunChangedError(
            f"run {run} ended a second time, with other files: {change}",
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
        # A number that a person mistyped is no run, and nothing would ever come of it.
        unknown = known is None or known.state is RunState.DISMISSED
        mistyped = unknown and marker_ns is None and isinstance(error, RunIncompleteError)
        if not closed and not (mistyped and has_no_part(config, run)):
            record_incomplete(database, run, error, marker_ns=marker_ns, now=now)
        raise
    return Closed.PLANNED


def _scan(config: Config, run: int) -> ScannedRun:
    runs = config.runs
    return scan(runs.directory, runs.naming(), run, date_format=runs.format == "date", first_part=runs.first_part)


def is_held(database: Database, record: RunRecord | None) -> bool:
    """Whether a person has quarantined a run that was closed well: one that closing quarantines is not planned."""
    return (
        record is not None and record.state is RunState.QUARANTINED and bundle_of(database, record.number) is not None
    )


def has_no_part(config: Config, run: int) -> bool:
    """Whether the run directory has nothing under the names of the run's parts.

    Raises:
        RunDirectoryError: it cannot be read.
    """
    with open_directory(config.runs.directory) as directory:
        parts, others = list_run(directory, config.runs.naming(), run)
    return not parts and not others


def _change(database: Database, config: Config, run: int) -> str | None:
    """How the files in the run directory differ from those of the plan, if they do; nothing is read of them."""
    try:
        with open_directory(config.runs.directory) as directory:
            parts, others = list_run(directory, config.runs.naming(), run)
    except UnsafeNameError as error:
        return error.message
    bundle = bundle_of(database, run)
    if bundle is None or bundle.plan is None:
        return "its bundle was not made here"
    planned, found = ({part.name: part for part in these} for these in (bundle.plan.parts, parts))
    changes = [f"{name} is gone" for name in planned if name not in found]
    changes += [f"{name} is new" for name in found if name not in planned]
    changes += [f"{name} has another size or time" for name in found if planned.get(name, found[name]) != found[name]]
    changes += [other for other in others if other not in bundle.plan.findings]
    more = len(changes) - _SHOWN
    return ", ".join(changes[:_SHOWN]) + (f", and {more} more" if more > 0 else "") or None
