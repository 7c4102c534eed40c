"""PINs: held in wipeable memory, sent once per human entry, and never again after they failed."""

import hashlib
import hmac
import secrets
from types import TracebackType
from typing import Self

from proxyagent.errors import PinAtRiskError, PinNotSentError
from proxyagent.hardening import protect_buffer

MAX_PIN_BYTES = 255
UNBLOCK_HINT = "unblock it with the PUK or SO PIN and the vendor's own tool"
_MAX_REMEMBERED = 256


class Secret:
    """A PIN in a buffer that is locked in memory where possible and overwritten when it is no longer needed."""

    def __init__(self, buffer: bytearray) -> None:
        """Take over `buffer`; the caller keeps no other copy."""
        self.buffer = buffer
        protect_buffer(buffer)

    def wipe(self) -> None:
        """Overwrite the PIN."""
        self.buffer[:] = bytes(len(self.buffer))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.wipe()

    def __repr__(self) -> str:
        return "Secret(…)"


def check_form(pin: Secret) -> None:
    """See that the PIN could be one at all, before it costs an attempt.

    Raises:
        PinNotSentError: it is empty, too long, not UTF-8, or contains a control character.
    """
    hint = "enter the PIN alone, on one line"
    if not pin.buffer:
        raise PinNotSentError("the PIN is empty", hint=hint)
    if len(pin.buffer) > MAX_PIN_BYTES:
        raise PinNotSentError(f"the PIN is longer than {MAX_PIN_BYTES} bytes", hint=hint)
    if any(byte < 0x20 or byte == 0x7F for byte in pin.buffer):
        raise PinNotSentError("the PIN contains a control character", hint=hint)
    try:
        pin.buffer.decode()
    except UnicodeDecodeError:
        # The cause would carry the PIN.
        raise PinNotSentError("the PIN is not UTF-8", hint=hint) from None


def check_at_no_risk(pin_state: str | None) -> None:
    """See that a wrong PIN would not lock the dongle; a PIN that will not be sent is not asked for either.

    Args:
        pin_state: as `description.DongleState` has it.

    Raises:
        PinAtRiskError: it is locked, or this is the last attempt.
    """
    if pin_state == "locked":
        raise PinAtRiskError("the dongle's PIN is locked, so none was sent", hint=UNBLOCK_HINT)
    if pin_state == "final":
        raise PinAtRiskError(
            "one more wrong PIN would lock the dongle, so none was sent",
            hint="log in once with the vendor's own tool and the right PIN; that resets the counter",
        )


class PinGuard:
    """Remembers which PINs failed on which dongle, as keyed hashes in memory only.

    A short PIN's hash on disk would be the PIN: it is found by trial in seconds. The key dies with the process.

    A failure is 'suspect' if the PIN may be right all the same: some dongles refuse a right one just after they were
    plugged, or for reasons of their own. Such a PIN may be entered once more.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._suspect: dict[bytes, bool] = {}

    def check(self, serial: str, pin: Secret) -> None:
        """See that this PIN may be sent to the dongle.

        Raises:
            PinNotSentError: it is malformed, or it failed on this dongle before.
        """
        check_form(pin)
        if self._suspect.get(self._digest(serial, pin), True):
            return
        raise PinNotSentError(
            f"this PIN failed on dongle {serial} before and was not sent again",
            hint="enter another PIN; if you are sure of this one, restart the agent and enter it again",
        )

    def failed(self, serial: str, pin: Secret, *, suspect: bool) -> bool:
        """Remember that an attempt with this PIN did not log in; tell whether it may be entered once more."""
        digest = self._digest(serial, pin)
        again = suspect and digest not in self._suspect
        while len(self._suspect) >= _MAX_REMEMBERED:
            del self._suspect[next(iter(self._suspect))]
        self._suspect[digest] = again
        return again

    def succeeded(self, serial: str, pin: Secret) -> None:
        """Forget an earlier failure of this PIN, which was right after all: its next one may be suspect again."""
        self._suspect.pop(self._digest(serial, pin), None)

    def _digest(self, serial: str, pin: Secret) -> bytes:
        mac = hmac.new(self._key, digestmod=hashlib.sha256)
        mac.update(hashlib.sha256(serial.encode()).digest())
        mac.update(pin.buffer)
        return mac.digest()
