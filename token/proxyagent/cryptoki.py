"""C_Login, called directly: python-pkcs11 would copy the PIN to where it cannot be wiped, and hide what came back."""

import ctypes
import os
from typing import Protocol, cast

import pkcs11

from proxyagent.errors import ModuleError
from proxyagent.pin import Secret

CKR_OK = 0
CKR_CANCEL = 0x01
CKR_FUNCTION_CANCELED = 0x50
CKR_PIN_INCORRECT = 0xA0
CKR_PIN_EXPIRED = 0xA3
CKR_PIN_LOCKED = 0xA4
CKR_FUNCTION_REJECTED = 0x200
_CKR_VENDOR_DEFINED = 0x80000000

# What C_Login may answer (PKCS#11 v2.40 section 5.6, and what modules answer besides).
_NAMES = {
    0x01: "CKR_CANCEL",
    0x02: "CKR_HOST_MEMORY",
    0x03: "CKR_SLOT_ID_INVALID",
    0x05: "CKR_GENERAL_ERROR",
    0x06: "CKR_FUNCTION_FAILED",
    0x07: "CKR_ARGUMENTS_BAD",
    0x30: "CKR_DEVICE_ERROR",
    0x31: "CKR_DEVICE_MEMORY",
    0x32: "CKR_DEVICE_REMOVED",
    0x50: "CKR_FUNCTION_CANCELED",
    0x54: "CKR_FUNCTION_NOT_SUPPORTED",
    0xA0: "CKR_PIN_INCORRECT",
    0xA1: "CKR_PIN_INVALID",
    0xA2: "CKR_PIN_LEN_RANGE",
    0xA3: "CKR_PIN_EXPIRED",
    0xA4: "CKR_PIN_LOCKED",
    0xB0: "CKR_SESSION_CLOSED",
    0xB3: "CKR_SESSION_HANDLE_INVALID",
    0xB7: "CKR_SESSION_READ_ONLY_EXISTS",
    0xE0: "CKR_TOKEN_NOT_PRESENT",
    0xE1: "CKR_TOKEN_NOT_RECOGNIZED",
    0x100: "CKR_USER_ALREADY_LOGGED_IN",
    0x102: "CKR_USER_PIN_NOT_INITIALIZED",
    0x103: "CKR_USER_TYPE_INVALID",
    0x104: "CKR_USER_ANOTHER_ALREADY_LOGGED_IN",
    0x105: "CKR_USER_TOO_MANY_TYPES",
    0x190: "CKR_CRYPTOKI_NOT_INITIALIZED",
    0x200: "CKR_FUNCTION_REJECTED",
}

_CKU_USER = 1
_LOGIN = 18  # C_Login's place in CK_FUNCTION_LIST, which begins with a version (PKCS#11 v2.40 section 3.6)


class _FunctionList(ctypes.Structure):
    _fields_ = (("version", ctypes.c_ubyte * 2), ("functions", ctypes.c_void_p * (_LOGIN + 1)))


class _Session(Protocol):
    handle: int


_login_type = ctypes.CFUNCTYPE(
    ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.POINTER(ctypes.c_char), ctypes.c_ulong
)
_libc = ctypes.CDLL(None)
_libc.dlopen.restype = ctypes.c_void_p
_libc.dlsym.restype = ctypes.c_void_p


def log_in(module: str, session: pkcs11.Session, pin: Secret | None) -> int:
    """Call C_Login once, for the user, and return what it answers (CK_RV).

    Args:
        module: the path by which python-pkcs11 has loaded the module.
        pin: it is read from its own buffer; without one, the reader's pin pad asks for it.

    Raises:
        ModuleError: the module has lost its functions; C_Login was not called.
    """
    function = _login_type(_login_address(module))
    handle = ctypes.c_ulong(cast("_Session", session).handle)
    if pin is None:
        return int(function(handle, _CKU_USER, None, 0))
    buffer = (ctypes.c_char * len(pin.buffer)).from_buffer(pin.buffer)
    return int(function(handle, _CKU_USER, buffer, len(pin.buffer)))


def name_of(code: int) -> str:
    """What the specification calls a return value."""
    if code >= _CKR_VENDOR_DEFINED:
        return f"vendor code {code:#x}"
    return _NAMES.get(code, f"code {code:#x}")


def _login_address(module: str) -> int:
    # The module as it is loaded, and nothing of it bound again.
    library = _libc.dlopen(os.fsencode(module), os.RTLD_LAZY | os.RTLD_NOLOAD)
    getter = _libc.dlsym(ctypes.c_void_p(library), b"C_GetFunctionList") if library else None
    functions = ctypes.POINTER(_FunctionList)()
    if getter:
        get = ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_void_p)(getter)
        if get(ctypes.addressof(functions)) == CKR_OK and functions and functions.contents.functions[_LOGIN]:
            return int(functions.contents.functions[_LOGIN])
    raise ModuleError(f"{module} does not tell its functions", hint="install the vendor's PKCS#11 module again")
