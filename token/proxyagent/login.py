"""Everything between a PIN and a dongle: which dongle may be asked, and which PIN may be sent to it, how often."""

import logging

from proxyagent.attempts import Attempt, UnattendedAttempts
from proxyagent.audit import AuditLog
from proxyagent.chain import grid_name
from proxyagent.clock import Clock
from proxyagent.errors import (
    BusyError,
    ConfigError,
    ModuleError,
    NoDongleError,
    PinAtRiskError,
    PinLockedError,
    PinNotSentError,
    ProxyAgentError,
    RequestError,
    SeveralDonglesError,
    WrongDongleError,
    WrongPinError,
)
from proxyagent.hsm import DongleState, Helper
from proxyagent.pin import PinGuard, Secret
from proxyagent.policy import AgentSection, IdentitySection
from proxyagent.sealing import WARNINGS, Seal, seal_of
from proxyagent.systemd import credential

_log = logging.getLogger(__name__)
_JUST_PLUGGED_SECONDS = 30.0
_MAX_NAMED = 4
_NOT_SENT = (
    BusyError,
    ConfigError,
    NoDongleError,
    PinAtRiskError,
    PinNotSentError,
    SeveralDonglesError,
    WrongDongleError,
)
_ONCE_MORE = (
    "a right PIN may be refused just after plugging or by a confused dongle: "
    "replug it, wait half a minute, and enter the PIN once more; the second refusal is final"
)

WRONG_DONGLE_HINT = "plug the right one in, or restart the agent if the robot's name has changed"
_SEAL = "seal the right PIN if it is wrong, restart the agent, and say `proxyagent pin retry`"


class Login:
    """Logs one identity's helper in. Not for use from several threads at once."""

    def __init__(
        self, section: IdentitySection, agent: AgentSection, helper: Helper, clock: Clock, audit: AuditLog
    ) -> None:
        self._section = section
        self._pin_pad_seconds = agent.pin_pad_timeout_seconds
        self._helper = helper
        self._clock = clock
        self._audit = audit
        self._guard = PinGuard()
        self._attempts = UnattendedAttempts(agent.state_directory)
        self._seen: DongleState | None = None
        self._plugged_boot_seconds: float | None = None
        self._looked = False
        self.seal = self._find_seal()
        """What the sealed PIN is sealed to; None if none is used."""

    @property
    def last_seen(self) -> DongleState | None:
        """The dongle as of the last look, if it was there."""
        return self._seen

    def has_pin_pad(self, state: DongleState) -> bool:
        """Whether the PIN is entered at the reader."""
        return state.pin_pad and self._section.pin_pad

    def look(self, subject: str | None) -> DongleState:
        """The dongle that is in, which must be this identity's.

        Args:
            subject: the certificate's name that it must have, in slash form, if that is known.

        Raises:
            NoDongleError, SeveralDonglesError: there is none, or more than one.
            WrongDongleError: it shows certificates, and only others' ones.
            ProxyAgentError: as `hsm.Helper.describe`.
        """
        try:
            state = self._helper.describe()
        except NoDongleError:
            self._note(None)
            raise
        self._note(state)
        found = tuple(dict.fromkeys(grid_name(each.subject) for each in state.certificates))
        if subject is not None and found and subject not in found:
            names = " and of ".join(found[:_MAX_NAMED]) + (" and others" if len(found) > _MAX_NAMED else "")
            raise WrongDongleError(
                f"dongle {state.label!r} (serial {state.serial}) holds the certificate of {names}, not of {subject}",
                hint=f"nothing was asked of this one; {WRONG_DONGLE_HINT}",
            )
        return state

    def by_person(self, pin: Secret | None, serial: str | None, state: DongleState) -> None:
        """Log in with what a person enters, once: a PIN, or None for the reader's pin pad.

        Args:
            serial: the dongle that the person was asked for, if they were told one.
            state: what `look` has just found.

        Raises:
            PinNotSentError: the PIN is malformed or failed before.
            WrongPinError, LoginFailedError, PinExpiredError, PinCancelledError: the dongle refused.
            PinLockedError: it is locked or a wrong PIN would lock it.
            RequestError: there is no pin pad.
            ProxyAgentError: as `hsm.Helper.login`.
        """
        if serial is not None and serial != state.serial:
            raise WrongDongleError(
                f"dongle {serial} was exchanged for {state.serial} meanwhile",
                hint="enter the PIN of the dongle that is in now",
            )
        if pin is not None:
            self._guard.check(state.serial, pin)
        elif not self.has_pin_pad(state):
            raise RequestError("this reader has no pin pad that is used", hint="enter the PIN at the keyboard")
        self._send(pin, state)

    def unattended(self, state: DongleState) -> bool:
        """Log in to the dongle that `look` has just found with the PIN from systemd's credentials, if there is one.

        Tells whether it was done.

        It is tried once. After a failure, even one that nobody survived to record, a person must say so first.

        Raises: as `by_person`.
        """
        name = self._section.pin_credential
        if name is None:
            return False
        attempt = self._attempts.unfinished(state.serial)
        if attempt is not None:
            raise _waiting(state.serial, attempt)
        with self._sealed_pin(name, state.serial) as pin:
            self._attempts.begin(state.serial, self._clock.now())
            try:
                self._send(pin, state)
            except ProxyAgentError as error:
                if not _was_sent(error):
                    self._attempts.forget(state.serial)
                raise
        self._attempts.forget(state.serial)
        return True

    def waiting(self) -> Attempt | None:
        """The unattended attempt that a person must look at, for the dongle that was last seen.

        Raises:
            ProxyAgentError: the record of them cannot be read.
        """
        if self._section.pin_credential is None or self._seen is None:
            return None
        return self._attempts.unfinished(self._seen.serial)

    def allow_unattended(self, serial: str) -> bool:
        """Let the sealed PIN be tried again on the dongle with this serial number; tell whether it had to wait.

        Raises:
            PinNotSentError: it would not be sent, whatever a person says: it failed before, or there is none.
            ProxyAgentError: the record of attempts cannot be read or written.
        """
        name = self._section.pin_credential
        if name is None or self._attempts.unfinished(serial) is None:
            return False
        self._sealed_pin(name, serial).wipe()
        return self._attempts.forget(serial)

    def _find_seal(self) -> Seal | None:
        if self._section.pin_credential is None:
            return None
        seal = seal_of(self._section.pin_credential)
        if seal in WARNINGS:
            _log.warning("%s: the sealed PIN is %s", self._section.name, WARNINGS[seal])
        return seal

    def _sealed_pin(self, name: str, serial: str) -> Secret:
        """The PIN in the systemd credential `name`, if it may be sent to the dongle.

        Raises:
            PinNotSentError, ConfigError: there is none, or it may not.
        """
        pin = credential(name)
        if pin is None:
            raise PinNotSentError(
                f"there is no systemd credential {name!r}",
                hint="seal the PIN with `systemd-creds encrypt` and name it in LoadCredentialEncrypted=",
            )
        try:
            self._guard.check(serial, pin)
        except PinNotSentError as error:
            pin.wipe()
            raise PinNotSentError(f"{error.message} (the sealed one)", hint=_SEAL) from error
        return pin

    def _send(self, pin: Secret | None, state: DongleState) -> None:
        if state.pin_state == "low":
            _log.warning("a wrong PIN was entered on dongle %s before; few attempts are left", state.serial)
        try:
            self._helper.login(pin, state.serial, timeout_seconds=self._pin_pad_seconds if pin is None else None)
        except ProxyAgentError as error:
            if not _was_sent(error):
                raise
            # Whatever went wrong once the PIN was on its way, it may have cost an attempt.
            again = pin is not None and self._guard.failed(state.serial, pin, suspect=self._is_suspect(error))
            self._audit.record(
                "login-failed", identity=self._section.name, serial=state.serial, error=error.kind, may_repeat=again
            )
            hint = f"{error.hint}; {_ONCE_MORE}" if again else error.hint
            raise type(error)(error.message, hint=hint) from error
        if pin is not None:
            self._guard.succeeded(state.serial, pin)

    def _is_suspect(self, error: ProxyAgentError) -> bool:
        plugged = self._plugged_boot_seconds
        just_plugged = plugged is not None and self._clock.boot_seconds() - plugged < _JUST_PLUGGED_SECONDS
        return not isinstance(error, PinLockedError) and (just_plugged or not isinstance(error, WrongPinError))

    def _note(self, state: DongleState | None) -> None:
        before, self._seen = self._seen, state
        first, self._looked = not self._looked, True
        if (before and before.serial) == (state and state.serial):
            return
        # One that is there when we first look was not plugged just now, as far as anybody knows.
        self._plugged_boot_seconds = None if first else self._clock.boot_seconds()
        if before is not None:
            self._audit.record("dongle-removed", identity=self._section.name, serial=before.serial)
            _log.info("%s: dongle %s was removed", self._section.name, before.serial)
        if state is not None:
            self._audit.record("dongle-plugged", identity=self._section.name, serial=state.serial, label=state.label)
            _log.info("%s: dongle %s (%s) is in", self._section.name, state.label, state.serial)


def _was_sent(error: ProxyAgentError) -> bool:
    """Whether the PIN may have been on its way to the dongle, as far as the helper's error tells."""
    # The module's own errors are of a subclass, or named after the login, once C_Login is called.
    return not isinstance(error, _NOT_SENT) and type(error) is not ModuleError


def _waiting(serial: str, attempt: Attempt) -> PinNotSentError:
    return PinNotSentError(
        f"the sealed PIN was sent to dongle {serial} at {attempt.time:%Y-%m-%d %H:%M} UTC and did not log in",
        hint="log in with `proxyagent renew`, or say `proxyagent pin retry` once you know that the sealed PIN is right",
    )
