"""The local files of a run that was found on the storage: are they the bundle's?"""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from mover.bundle.plan import BundlePlan, mtime_seconds
from mover.bundle.scan import list_run, open_directory
from mover.errors import RunChangedError, RunDirectoryError, UnsafeNameError
from mover.model import Part
from mover.naming import RunNaming


@dataclass(frozen=True, slots=True)
class Here:
    """Whether the run has parts here, the plan with their own times, and what is wrong with its files here."""

    any: bool
    plan: BundlePlan
    problem: RunChangedError | None = None


def compare_local_files(directory: Path, naming: RunNaming, plan: BundlePlan) -> Here:
    """Hold the run's local files against a plan that was made from a manifest, by name, size and time.

    A manifest has times in whole seconds, as the bundle's bytes have. Where a file is right by that, the plan gets its
    full time: a bundle can then be made from it again, and every part is held against its sha256 while it is read.
    Files that are missing are no problem: a release may have been cut short.

    Raises:
        RunDirectoryError: the directory cannot be read.
    """
    with open_directory(directory) as opened:
        try:
            parts, others = list_run(opened, naming, plan.run)
        except UnsafeNameError as error:
            return Here(True, plan, _problem(plan, error.message))
    right = {part.name: part for part in parts if any(_same(part, planned) for planned in plan.parts)}
    strange = [f"{part.name} is not in its bundle like that" for part in parts if part.name not in right]
    strange += [other for other in others if other not in plan.findings]
    own_times = replace(plan, parts=tuple(right.get(part.name, part) for part in plan.parts))
    return Here(bool(parts), own_times, _problem(plan, ", ".join(strange[:5])) if strange else None)


def check_runs_are_here(directory: Path, naming: RunNaming) -> None:
    """See that there is a file of any run in the directory.

    Raises:
        RunDirectoryError: there is none, as in the folder of a disk that is not mounted; or it cannot be read.
    """
    try:
        with os.scandir(directory) as entries:
            if any(naming.part.match(one.name) or naming.marked_run(one.name) is not None for one in entries):
                return
    except OSError as error:
        raise RunDirectoryError(
            f"cannot list the run directory {directory}: {error.strerror}",
            hint="check `runs.directory`, its mount and its rights",
        ) from error
    raise RunDirectoryError(
        f"no file of any run is in {directory}: every stored run would count as released",
        hint="see that its disk is mounted and `runs.directory` is right; if there are none any more, say so with "
        "--no-local-files",
    )


def _same(part: Part, planned: Part) -> bool:
    return (part.name, part.size_bytes, mtime_seconds(part)) == (
        planned.name,
        planned.size_bytes,
        mtime_seconds(planned),
    )


def _problem(plan: BundlePlan, why: str) -> RunChangedError:
    return RunChangedError(
        f"run {plan.run} has files here that are not those of its stored bundle: {why}",
        hint="nothing is removed; find out which are right, and take the others away, then close the run again",
    )
