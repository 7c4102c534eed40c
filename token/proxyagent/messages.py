"""What clients ask of the agent, and what it answers: the fields of every message, strictly."""

from datetime import UTC, datetime
from typing import Annotated, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from proxyagent.errors import ProtocolError
from proxyagent.forecast import Level
from proxyagent.protocol import Message
from proxyagent.sealing import Seal

_HINT = "update client and agent to the same version"

NOT_RENEWED = "will not be renewed until `proxyagent renew` succeeds"
"""What it means for a session that the agent is not logged in to the dongle."""


Name = Annotated[str, Field(max_length=64)]


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
    """Log in to a dongle. The PIN follows in a frame of its own, unless it is entered at the reader's pin pad."""

    verb: Literal["unlock"] = "unlock"
    identity: Name | None = None
    """May be left out while there is one identity."""
    serial: Annotated[str, Field(max_length=64)] | None = None
    """The dongle that the person was asked for; no other one gets the PIN."""
    pin_pad: bool = False


class PinRetryRequest(_Message):
    """Let the sealed PIN of a robot be tried once more."""

    verb: Literal["pin-retry"] = "pin-retry"
    identity: Name | None = None


class WantedAttributes(_Message):
    """An attribute certificate that some profile needs."""

    identity: Name
    vo: Name
    fqans: Annotated[tuple[Annotated[str, Field(max_length=2048)], ...], Field(strict=False, max_length=16)]


class VomsWaitRequest(_Message):
    """Wait for attribute certificates that are wanted. Only for the user of `proxyagent voms`, like all below."""

    verb: Literal["voms-wait"] = "voms-wait"


class VomsProxyRequest(_Message):
    """Issue a short, limited proxy with which to ask a VOMS server."""

    verb: Literal["voms-proxy"] = "voms-proxy"
    identity: Name
    csr: Annotated[str, Field(max_length=16 * 1024)]


class VomsDeliverRequest(_Message):
    """Deliver what a VOMS server answered."""

    verb: Literal["voms-deliver"] = "voms-deliver"
    want: WantedAttributes
    ac: Annotated[str, Field(max_length=44 * 1024)] | None = None
    """The attribute certificate: DER in base64."""
    kind: Annotated[str, Field(max_length=64)] | None = None
    problem: Annotated[str, Field(max_length=2000)] | None = None
    hint: Annotated[str, Field(max_length=2000)] | None = None


AnyRequest = (
    StatusRequest
    | IssueRequest
    | UnlockRequest
    | PinRetryRequest
    | VomsWaitRequest
    | VomsProxyRequest
    | VomsDeliverRequest
)
_REQUESTS: TypeAdapter[AnyRequest] = TypeAdapter(Annotated[AnyRequest, Field(discriminator="verb")])
_Time = Annotated[AwareDatetime, Field(strict=False)]


class SessionStatus(_Message):
    """The session proxy."""

    identity: str
    """The end-entity certificate's name in slash form."""
    not_after: _Time


class DongleStatus(_Message):
    """The dongle: what it says of itself, or why nothing can be said (`kind`, `problem`, `hint`)."""

    present: bool
    serial: str | None = None
    label: str | None = None
    pin_state: str | None = None
    """'ok', 'low' (a wrong PIN was entered), 'final' (one attempt left) or 'locked'."""
    pin_pad: bool = False
    """Whether the PIN is entered at the reader."""
    logged_in: bool = False
    """Whether the session is renewed without a person while the dongle stays in."""
    kind: str | None = None
    problem: str | None = None
    hint: str | None = None


class AttributesStatus(_Message):
    """A VOMS attribute certificate that some profile needs."""

    vo: str
    fqans: Annotated[tuple[str, ...], Field(strict=False)]
    not_after: _Time | None = None
    problem: str | None = None
    hint: str | None = None


class IdentityStatus(_Message):
    """One robot."""

    name: str
    level: Annotated[Level, Field(strict=False)]
    """'ok', 'soon' (a person is needed soon) or 'expired' (no proxies are issued, or not all of them)."""
    not_after: _Time | None
    """When the first of session, certificate, attribute certificates and revocation lists ends."""
    plug_before: _Time | None
    """When the dongle and its PIN are needed; null if no person is needed for that."""
    advice: Annotated[tuple[str, ...], Field(strict=False)]
    """What to do, the most urgent first."""
    session: SessionStatus | None
    dongle: DongleStatus
    certificate_not_after: _Time | None
    crl_next_update: _Time | None
    attributes: Annotated[tuple[AttributesStatus, ...], Field(strict=False)]
    unattended: Literal["no", "ready", "waits"]
    """Whether a sealed PIN is used, and whether it waits for `proxyagent pin retry`."""
    seal: Annotated[Seal, Field(strict=False)] | None = None
    """What the sealed PIN is sealed to; null if none is used."""
    confined: bool | None
    """Whether the PKCS#11 module runs behind a system call filter; null if it does not run."""


class StrangerStatus(_Message):
    """A dongle that is plugged in, and that no identity means."""

    serial: str
    label: str


class AgentStatus(_Message):
    """The answer to a StatusRequest."""

    identities: Annotated[tuple[IdentityStatus, ...], Field(strict=False)]
    """Those whose proxies the peer may use; all of them for operators."""
    profiles: Annotated[tuple[str, ...], Field(strict=False)]
    memory_locked: bool
    """Whether the agent's memory is kept out of swap."""
    audit_problem: str | None
    """Why the audit log is not written, if it is not."""
    strangers: Annotated[tuple[StrangerStatus, ...], Field(strict=False)] = ()
    """Dongles that are in and nobody's: they are asked for nothing, and somebody should see to them."""

    @property
    def level(self) -> Level:
        """The most urgent level of all identities; a stranger, or an audit log that is not written, is 'soon'."""
        order = list(Level)
        levels = [each.level for each in self.identities]
        return max([*levels, Level.SOON if self.audit_problem or self.strangers else Level.OK], key=order.index)


class IssueAnswer(_Message):
    """The answer to an IssueRequest: the chain in PEM, the client's certificate first, without any key."""

    chain: Annotated[str, Field(max_length=60 * 1024)]


class UnlockAnswer(_Message):
    """The answer to an UnlockRequest."""

    session: SessionStatus


class PinRetryAnswer(_Message):
    """The answer to a PinRetryRequest."""

    waited: bool
    """Whether the sealed PIN had to wait."""


class VomsWaitAnswer(_Message):
    """The answer to a VomsWaitRequest: nothing after some seconds without anything to do."""

    wants: Annotated[tuple[WantedAttributes, ...], Field(strict=False)]
    lifetime_seconds: int


class VomsDeliverAnswer(_Message):
    """The answer to a VomsDeliverRequest."""


_AnswerT = TypeVar("_AnswerT", bound=_Message)


def parse_request(message: Message) -> AnyRequest:
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
