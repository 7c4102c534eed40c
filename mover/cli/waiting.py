"""Wait until a run is safe, or say what it waits for."""

import time

from mover.catalogue.database import Database
from mover.catalogue.replicas import replicas_of
from mover.catalogue.runs import find_run
from mover.errors import NotSafeError, RunError
from mover.states import ReplicaState, RunState

_LOOK_SECONDS = 0.1


def wait_until_safe(database: Database, run: int, *, deadline_seconds: float) -> None:
    """Return when the catalogue says that the run is safe (or released).

    Raises:
        RunError: it is quarantined, or was dismissed.
        NotSafeError: a replica needs a person, or is not safe when the deadline has passed; the message says why.
    """
    deadline = time.monotonic() + deadline_seconds
    while not _is_safe(database, run):
        if time.monotonic() > deadline:
            raise NotSafeError(
                f"run {run} is not safe after {deadline_seconds:.0f} s: {_waits_for(database, run)}",
                hint="if the reasons are being mended, wait again; else mend them, and see `mover run show`",
            )
        time.sleep(_LOOK_SECONDS)


def _is_safe(database: Database, run: int) -> bool:
    record = find_run(database, run)
    if record is None:
        return False
    if record.state is RunState.QUARANTINED:
        raise RunError(record.problem or f"run {run} is quarantined", hint=record.hint or "look at the run's files")
    if record.state is RunState.DISMISSED:
        raise RunError(f"run {run} was dismissed: it is no run", hint=f"`mover run show {run}` says why, and by whom")
    if record.state in {RunState.SAFE, RunState.RELEASED}:
        return True
    for replica in replicas_of(database, run):
        if replica.state is ReplicaState.QUARANTINED:
            raise NotSafeError(
                f"run {run} at {replica.endpoint} is quarantined: {replica.problem}",
                hint=replica.hint or "look at the endpoint",
            )
    return False


def _waits_for(database: Database, run: int) -> str:
    replicas = replicas_of(database, run)
    if not replicas:
        return "it is not closed (its marker is not there, the engine does not run, or the number is wrong)"
    return "; ".join(f"{one.endpoint} is {one.state}" + (f", {one.problem}" if one.problem else "") for one in replicas)
