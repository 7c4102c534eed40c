"""What goes wrong in the simulation: a script of faults for each action, by hypothesis or by a seeded generator."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from hypothesis import strategies as st

from mover.errors import (
    AccessDeniedError,
    CredentialError,
    EndpointFullError,
    EndpointUnavailableError,
    FileExistsAtEndpointError,
    FileMissingError,
    ForeignFileError,
    StorageError,
    ThirdPartyCopyError,
)

#: Part of every message that the simulation makes up.
MADE_UP = "made up by the simulation"


class CrashError(BaseException):
    """The process is gone: nothing that it still tries has any effect."""


class Moment(StrEnum):
    """Where a fault can strike."""

    CALL = "a call of the storage port"
    COMMIT = "before a commit"
    COMMITTED = "after a commit"
    UNLINK = "before a local file is removed"


class Kind(StrEnum):
    """The faults."""

    REFUSED = "the call fails before its effect"
    BROKEN = "the call fails after its effect"
    CUT = "the upload is cut, and what was written is removed"
    LEFT = "the upload is cut, and what was written stays"
    SHORT = "the upload ends well, but only a piece is stored"
    NOTHING = "the upload ends well, but nothing is stored"
    FLIPPED = "the upload ends well, but one bit is another"
    STALE = "the checksum is that of another file"
    STALLED = "the call takes long"
    TAKEN = "the call takes longer than the lease, and others work meanwhile"
    OVERSLEPT = "the upload takes longer than the lease, and others do it meanwhile"
    JUMPED = "the clock is set an hour back or forward"
    STOP = "the engine is asked to stop"
    GONE = "somebody removes the file"
    FOREIGN = "somebody else's file appears under the final name"
    CHANGED = "a local part is changed"
    CRASH = "the process dies before the effect, or in the middle of an upload"
    CRASH_AFTER = "the process dies after the effect"
    UNCOMMITTED = "the process dies before its commit"
    COMMITTED = "the process dies after its commit"
    UNLINKED = "the process dies while it removes local files"


MOMENTS = {
    Kind.UNCOMMITTED: Moment.COMMIT,
    Kind.COMMITTED: Moment.COMMITTED,
    Kind.UNLINKED: Moment.UNLINK,
}

_STREAMS = frozenset({"upload", "copy_from"})
#: The calls that a fault is about; the others can strike at any.
CALLS = {
    **dict.fromkeys((Kind.CUT, Kind.LEFT, Kind.SHORT, Kind.NOTHING, Kind.FLIPPED, Kind.OVERSLEPT), _STREAMS),
    Kind.STALE: frozenset({"checksum"}),
}

#: How likely each is, against the others, in the random week.
WEIGHTS = dict.fromkeys(Kind, 3) | {
    Kind.REFUSED: 12,
    Kind.BROKEN: 6,
    Kind.TAKEN: 8,
    Kind.OVERSLEPT: 8,
    Kind.LEFT: 8,
    Kind.SHORT: 6,
    Kind.GONE: 1,
    Kind.CHANGED: 1,
    Kind.JUMPED: 1,
}

_ERRORS: tuple[Callable[[str], Exception], ...] = (
    *([lambda what: EndpointUnavailableError(what, hint=MADE_UP)] * 4),
    lambda what: EndpointFullError(what, hint=MADE_UP),
    lambda what: AccessDeniedError(what, hint=MADE_UP),
    lambda what: FileMissingError(what, hint=MADE_UP),
    lambda what: FileExistsAtEndpointError(what, hint=MADE_UP),
    lambda what: ThirdPartyCopyError(what, hint=MADE_UP),
    lambda what: ForeignFileError(what, hint=MADE_UP),
    lambda what: StorageError(what, hint=MADE_UP),
    lambda what: CredentialError(what, hint=MADE_UP),
    RuntimeError,
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. It strikes after `skip` moments of its kind; `share` and `error` say how much, and how."""

    kind: Kind
    skip: int
    share: float
    error: int

    @property
    def moment(self) -> Moment:
        """Where it strikes."""
        return MOMENTS.get(self.kind, Moment.CALL)

    def concerns(self, moment: Moment, call: str) -> bool:
        """Whether it can strike there."""
        return self.moment is moment and (self.kind not in CALLS or call in CALLS[self.kind])

    def make_error(self, what: str) -> Exception:
        """The error that a call fails with."""
        return _ERRORS[self.error % len(_ERRORS)](f"{what} failed, {MADE_UP}")


Script = list[Fault]


def random_script(choice: random.Random, rate: float) -> Script:
    """Mostly no faults; `rate` is how many an action has in the mean."""
    script: Script = []
    while choice.random() < rate / (1 + rate):
        (kind,) = choice.choices(list(WEIGHTS), list(WEIGHTS.values()))
        script.append(Fault(kind, choice.randrange(5), choice.random(), choice.randrange(len(_ERRORS))))
    return script


SCRIPTS: st.SearchStrategy[Script] = st.lists(
    st.builds(
        Fault,
        kind=st.sampled_from(Kind),
        skip=st.integers(0, 5),
        share=st.floats(0, 1, exclude_max=True, width=16),
        error=st.integers(0, len(_ERRORS) - 1),
    ),
    max_size=3,
)
