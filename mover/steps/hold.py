"""A person holds a run back, lets it go on, or says that it is none; the reason goes into custody."""

from datetime import datetime
from enum import StrEnum

from mover.catalogue.custody import who
from mover.catalogue.database import Database
from mover.catalogue.runs import get_run, record_held, record_let_go
from mover.config import Config
from mover.errors import RunError
from mover.states import RunEvent, RunState
from mover.steps.close import has_no_part, is_held

_LONGEST_REASON = 500


class LetGo(StrEnum):
    """What letting a run out of quarantine came to."""

    PLANNED = "goes on"
    DISMISSED = "dismissed: it is no run, and nothing waits for it any more"


def check_reason(reason: str) -> str:
    """The reason, without blanks around it.

    Raises:
        ValueError: it is empty, or too long to be read.
    """
    text = " ".join(reason.split())
    if not text:
        raise ValueError("give a reason: it goes into the run's custody story")
    if len(text) > _LONGEST_REASON:
        raise ValueError(f"the reason is over {_LONGEST_REASON} characters long")
    return text


def hold_run(database: Database, number: int, *, reason: str, now: datetime) -> None:
    """Quarantine a run: nothing more of it is moved, submitted or released until somebody lets it go on.

    What an engine is at goes on to the end of its step; what was submitted goes on to its proof.

    Raises:
        CatalogueError: it is not in the catalogue.
        StateError: it is quarantined or released already.
    """
    get_run(database, number)
    problem = RunError(
        f"run {number} was quarantined by {who()}: {reason}",
        hint=f"when that is settled, `mover run unquarantine {number} --reason …` lets it go on",
    )
    record_held(database, number, problem, reason=reason, now=now)


def let_go_run(database: Database, config: Config, number: int, *, reason: str, now: datetime) -> LetGo:
    """Let a run out of quarantine: it goes on where it was; one that was never planned is dismissed.

    Raises:
        CatalogueError: it is not in the catalogue.
        StateError: it is not quarantined.
        RunError: it was never planned, but there are files of it: they would be forgotten.
        RunDirectoryError: it cannot be seen whether there are files.
    """
    record = get_run(database, number)
    held = is_held(database, record)
    if record.state is RunState.QUARANTINED and not held and not has_no_part(config, number):
        raise RunError(
            f"run {number} was never planned, and there are files of it in {config.runs.directory}",
            hint=f"mend them and `mover run close {number}`, or take them as they are with --force; if they are no "
            "run's, move them elsewhere first",
        )
    event = RunEvent.LET_GO if held or record.state is not RunState.QUARANTINED else RunEvent.DISMISSED
    record_let_go(database, number, event, reason=reason, now=now)
    return LetGo.PLANNED if event is RunEvent.LET_GO else LetGo.DISMISSED
