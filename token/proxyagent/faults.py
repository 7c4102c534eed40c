"""What goes wrong in a PKCS#11 module, as our errors."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pkcs11

from proxyagent import cryptoki
from proxyagent.errors import (
    LoginFailedError,
    ModuleError,
    NoDongleError,
    NoSessionError,
    PinCancelledError,
    PinExpiredError,
    PinLockedError,
    ProxyAgentError,
    WrongPinError,
)
from proxyagent.pin import UNBLOCK_HINT

REMOVED = (pkcs11.TokenNotPresent, pkcs11.DeviceRemoved, pkcs11.TokenNotRecognised, pkcs11.SlotIDInvalid)
_LOGGED_OUT = (pkcs11.SessionHandleInvalid, pkcs11.SessionClosed, pkcs11.UserNotLoggedIn)
_UNREADABLE = (ValueError, LookupError, struct.error)  # from python-pkcs11, for attributes that make no sense
_CANCELLED = {cryptoki.CKR_CANCEL, cryptoki.CKR_FUNCTION_CANCELED, cryptoki.CKR_FUNCTION_REJECTED}
_CHANGE = "change it with the vendor's own tool, then log in with the new one"


@contextmanager
def module_errors() -> Iterator[None]:
    """Cryptoki errors as ours. Their messages are empty: the class is all there is to tell."""
    try:
        yield
    except REMOVED as error:
        raise NoDongleError(f"the dongle was pulled ({type(error).__name__})", hint="plug it in again") from error
    except _LOGGED_OUT as error:
        raise NoSessionError(
            f"the dongle has forgotten the login ({type(error).__name__})", hint="run `proxyagent renew`"
        ) from error
    except pkcs11.PinExpired as error:
        raise PinExpiredError("the dongle's PIN has expired", hint=_CHANGE) from error
    except pkcs11.PKCS11Error as error:
        text = f": {error}" if str(error) else ""
        raise ModuleError(
            f"the PKCS#11 module answered {type(error).__name__}{text}",
            hint="try again, which loads the module afresh; "
            "if it still fails, replug the dongle and look whether `pkcs11-tool --module MODULE -L` works",
        ) from error
    except _UNREADABLE as error:
        raise ModuleError(
            f"the PKCS#11 module returned something unreadable ({type(error).__name__})",
            hint="look at the dongle's objects with `pkcs11-tool --module MODULE -O`",
        ) from error


def login_error(code: int, serial: str) -> ProxyAgentError:
    """The error for what C_Login answered, if that is not CKR_OK."""
    name = cryptoki.name_of(code)
    if code == cryptoki.CKR_PIN_INCORRECT:
        return WrongPinError(
            f"dongle {serial} refused the PIN ({name}); one attempt is used up",
            hint="enter the right PIN; the one that failed will not be sent again",
        )
    if code == cryptoki.CKR_PIN_LOCKED:
        return PinLockedError(f"the PIN of dongle {serial} is locked", hint=UNBLOCK_HINT)
    if code == cryptoki.CKR_PIN_EXPIRED:
        return PinExpiredError(f"the PIN of dongle {serial} has expired", hint=_CHANGE)
    if code in _CANCELLED:
        return PinCancelledError(
            f"the login to dongle {serial} was cancelled at the reader ({name})",
            hint="run `proxyagent renew` and enter the PIN while the reader asks for it",
        )
    return LoginFailedError(
        f"dongle {serial} refused the login ({name}); an attempt may be used up",
        hint="see what is left with `proxyagent status`, replug the dongle, and log in again",
    )
