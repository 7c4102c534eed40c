"""What the agent that hands out Grid proxies says of itself, as far as the mover tells it on."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path


class Urgency(StrEnum):
    """How soon a person is needed for a credential."""

    OK = "ok"
    SOON = "soon"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class IdentityState:
    """One robot. `not_after` is when it ends if nobody does anything, `plug_before` when its dongle is needed."""

    name: str
    urgency: Urgency
    not_after: datetime | None
    plug_before: datetime | None
    advice: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AgentState:
    """An agent, by its socket: its identities, or the problem that kept it from answering, and what to do."""

    socket: Path
    identities: tuple[IdentityState, ...] = ()
    problem: str | None = None
    hint: str | None = None
