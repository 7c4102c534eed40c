"""Safe → released: remove the local files of a run, after one more look at the storage itself."""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from mover.bundle.plan import BundlePlan
from mover.bundle.scan import changed, list_run, open_directory
from mover.catalogue import custody
from mover.catalogue.database import Database
from mover.catalogue.replicas import replicas_of_bundle
from mover.catalogue.runs import bundle_of, get_run, note, record_released
from mover.config import Config
from mover.errors import NotSafeError, RunChangedError
from mover.model import Part
from mover.naming import RunNaming
from mover.policy import Assessment
from mover.ports import Clock, StorageEndpoint
from mover.states import RunState
from mover.steps.recheck import recheck
from mover.steps.standing import final_state

_INTENDED = "release intended"


@dataclass(frozen=True, slots=True)
class Releasable:
    """What the storage said just now, and the local files that may go because of it."""

    assessment: Assessment
    names: tuple[str, ...]
    size_bytes: int


def check_release(
    database: Database,
    config: Config,
    run: int,
    endpoints: Mapping[str, StorageEndpoint],
    *,
    gone: bool = False,
    alive: Callable[[int], None] = lambda _: None,
) -> Releasable:
    """Whether the run's local files may go at this moment. Nothing is changed.

    `alive` is called now and then; what it raises ends the asking. `gone`: a person says that none of them is left.

    1. The catalogue says safe, nothing waits for a person, and no endpoint that the policy relies on still needs the
    files. 2. The storage itself says so now. 3. The local files are those that were bundled, and no more.

    Raises:
        NotSafeError: the policy does not hold at this moment, or somebody still needs the files, or there are none.
        RunChangedError: a local file is not one that was bundled.
    """
    # 1
    plan = _check_catalogue(database, config, run)
    # 2
    assessment = recheck(database, config, run, endpoints, alive=alive)
    # 3
    with open_directory(config.runs.directory) as directory:
        present = _bundled_parts(directory, config.runs.naming(), plan)
    if not present and not gone and not _was_begun(database, run):
        # Most likely they are elsewhere: 'released' would have nobody look for them again.
        raise NotSafeError(
            f"no local file of run {run} is in {config.runs.directory}",
            hint="see that its disk is mounted and `runs.directory` is right; if somebody has removed the files, "
            f"`mover release {run} --now --gone` takes note of it",
        )
    return Releasable(assessment, tuple(part.name for part in present), sum(part.size_bytes for part in present))


def release_run(
    database: Database,
    config: Config,
    run: int,
    endpoints: Mapping[str, StorageEndpoint],
    *,
    clock: Clock,
    gone: bool = False,
    alive: Callable[[int], None] = lambda _: None,
) -> Releasable:
    """Remove the run's local parts and its marker.

    1. `check_release`. 2. What the catalogue says is looked at once more, since asking the storage may take hours; the
    intent is committed. 3. The files are looked at once more; the marker is removed, then the parts. 4. The fact is
    committed.

    Raises:
        NotSafeError: the policy does not hold at this moment, or somebody still needs the files, or somebody else
            released it at the same time.
        RunChangedError: a local file is not one that was bundled.
    """
    # 1
    found = check_release(database, config, run, endpoints, gone=gone, alive=alive)
    # 2
    plan = _check_catalogue(database, config, run)
    note(database, run, _INTENDED, now=clock.now(), files=found.names, found=str(found.assessment))
    # 3. The marker first: without its parts it would be a second end of run.
    naming = config.runs.naming()
    with open_directory(config.runs.directory) as directory:
        present = _bundled_parts(directory, naming, plan)
        for name in (naming.marker_name(run), *(part.name for part in present)):
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=directory)
        os.fsync(directory)
    # 4
    before = record_released(database, run, now=clock.now())
    if before is RunState.RELEASED:
        raise NotSafeError(
            f"run {run} was released by somebody else at the same time",
            hint="nothing is left to do: its local files are removed",
        )
    if before is not RunState.SAFE:
        raise NotSafeError(
            f"run {run} is {before} again: while its local files were removed, a replica was found lost or wrong, or "
            "the policy asked for more",
            hint=f"it is made again from another replica; when the run is safe, `mover release {run} --now` takes note",
        )
    return found


def _was_begun(database: Database, run: int) -> bool:
    """Whether an earlier release may have removed files before it was cut short."""
    return any(record.event == _INTENDED for record in custody.records(database, run))


def _check_catalogue(database: Database, config: Config, run: int) -> BundlePlan:
    record = get_run(database, run)
    bundle = bundle_of(database, run)
    if record.state is RunState.RELEASED:
        raise NotSafeError(f"run {run} is released already", hint="nothing is left to do: its local files are removed")
    if record.state is not RunState.SAFE or bundle is None or record.problem:
        raise NotSafeError(
            f"run {run} is {record.state}" + (f": {record.problem}" if record.problem else ""),
            hint=record.hint or f"`mover run show {run}` says what it waits for",
        )
    if bundle.plan is None:
        raise NotSafeError(f"run {run} was adopted: its files were never here", hint="nothing is left to do")
    policy = config.raw_policy()
    needed = set(policy.endpoints) - policy.optional
    unfinished = [
        replica.endpoint
        for replica in replicas_of_bundle(database, bundle.id)
        if replica.endpoint in needed and replica.state is not final_state(config.places[replica.endpoint].kind)
    ]
    if unfinished:
        raise NotSafeError(
            f"run {run} is safe, but {', '.join(unfinished)} still needs its files",
            hint=f"let the engine finish, or mend what `mover run show {run}` says of it",
        )
    return bundle.plan


def _bundled_parts(directory: int, naming: RunNaming, plan: BundlePlan) -> list[Part]:
    """The parts that are still there (an earlier release may have been cut short), if all of them were bundled."""
    parts, others = list_run(directory, naming, plan.run)
    planned = {part.name for part in plan.parts}
    for part in parts:
        if part.name in planned and part not in plan.parts:
            raise changed(part, "has another size or time than when the run was closed")
    strange = [part.name for part in parts if part.name not in planned]
    strange += [other for other in others if other not in plan.findings]
    if strange:
        raise RunChangedError(
            f"run {plan.run} has local files that are not in its bundle: {', '.join(strange)}",
            hint="nothing is removed; find out whether the DAQ wrote to the run after its end",
        )
    return parts
