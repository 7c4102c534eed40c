"""The local files of a run that was found on the storage: are they the bundle's?"""

from dataclasses import dataclass, replace
from pathlib import Path

from mover.bundle.plan import BundlePlan, mtime_seconds
from mover.bundle.scan import list_run, open_directory
from mover.errors import RunChangedError, UnsafeNameError
from mover.model import Part
from mover.naming import RunNaming


@dataclass(frozen=True, slots=True)
class Here:
    """Whether the run has files here, the plan with their own times, and what is wrong with them."""

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
            parts, _ = list_run(opened, naming, plan.run)
        except UnsafeNameError as error:
            return Here(True, plan, _problem(plan, error.message))
    if not parts:
        return Here(False, plan)
    local = {part.name: part for part in parts}
    strange = [part.name for part in parts if not any(_same(part, planned) for planned in plan.parts)]
    if strange:
        return Here(True, plan, _problem(plan, f"{', '.join(strange[:5])} is not in its bundle like that"))
    return Here(True, replace(plan, parts=tuple(local.get(part.name, part) for part in plan.parts)))


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
