"""What clients ask of the agent, and what it answers: the fields of every message, strictly."""

from datetime import UTC, datetime
from typing import Annotated, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from proxyagent.errors import ProtocolError
from proxyagent.protocol import Message

_HINT = "update client and agent to the same version"

NOT_RENEWED = "will not be renewed until `proxyagent renew` succeeds"
"""What it means for a session that the agent is not logged in to the dongle."""


class _Message(BaseModel):
    # Input is hostile or secret: it is never repeated in an error.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


class StatusRequest(_Message):
    """Tell the session's end, the dongle's state and the profiles that the peer may use."""

    verb: Literal["status"] = "status"


class IssueRequest(_Message):
    """Issue a client proxy for the key of a certificate request."""

    verb: Literal["issue"] = "issue"
    profile: Annotated[str, Field(max_length=64)]
    csr: Annotated[str, Field(max_length=16 * 1024)]
    lifetime_seconds: Annotated[int, Field(ge=1, le=10 * 86400)]


class UnlockRequest(_Message):
    """Log in to the dongle. The PIN follows in a frame of its own."""

    verb: Literal["unlock"] = "unlock"


Request = Annotated[StatusRequest | IssueRequest | UnlockRequest, Field(discriminator="verb")]
_REQUESTS: TypeAdapter[StatusRequest | IssueRequest | UnlockRequest] = TypeAdapter(Request)


class SessionStatus(_Message):
    """The session proxy."""

    identity: str
    not_after: Annotated[AwareDatetime, Field(strict=False)]


class DongleStatus(_Message):
    """The dongle: what it says of itself, or why nothing can be said (`kind`, `problem`, `hint`)."""

    present: bool
    serial: str | None = None
    label: str | None = None
    pin_state: str | None = None
    """'ok', 'low' (a wrong PIN was entered), 'final' (one attempt left) or 'locked'."""
    logged_in: bool = False
    """Whether the session is renewed without a person while the dongle stays in."""
    kind: str | None = None
    problem: str | None = None
    hint: str | None = None


class AgentStatus(_Message):
    """The answer to a StatusRequest."""

    session: SessionStatus | None
    dongle: DongleStatus
    profiles: Annotated[tuple[str, ...], Field(strict=False)]
    memory_locked: bool
    """Whether the agent's memory is kept out of swap."""


class IssueAnswer(_Message):
    """The answer to an IssueRequest: the chain in PEM, the client's certificate first, without any key."""

    chain: Annotated[str, Field(max_length=60 * 1024)]


class UnlockAnswer(_Message):
    """The answer to an UnlockRequest."""

    session: SessionStatus


_AnswerT = TypeVar("_AnswerT", SessionStatus, AgentStatus, IssueAnswer, UnlockAnswer)


def parse_request(message: Message) -> StatusRequest | IssueRequest | UnlockRequest:
    """The request in a message.

    Raises:
        ProtocolError: it is none of ours.
    """
    try:
        return _REQUESTS.validate_python(message)
    except ValidationError as error:
        raise _unreadable("request", error) from None


def parse_answer(kind: type[_AnswerT], message: Message) -> _AnswerT:
    """The answer in a message.

    Raises:
        ProtocolError: it is not of that kind.
    """
    try:
        return kind.model_validate(message)
    except ValidationError as error:
        raise _unreadable("answer", error) from None


def session_status(identity: str, not_after: datetime) -> SessionStatus:
    """A SessionStatus with its time in UTC."""
    return SessionStatus(identity=identity, not_after=not_after.astimezone(UTC))


def _unreadable(what: str, error: ValidationError) -> ProtocolError:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    # Only names of our own fields are repeated; an unknown field's name is foreign.
    fields = [str(part) for part in first["loc"] if first["type"] != "extra_forbidden"]
    where = f" at {'.'.join(fields)}" if fields else ""
    return ProtocolError(f"an unreadable {what}{where}", hint=_HINT)
