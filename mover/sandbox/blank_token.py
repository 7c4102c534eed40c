"""Initialising a blank SoftHSM token, which is the maker's work with a real dongle.

``python -m mover.sandbox.blank_token MODULE LABEL`` reads the SO PIN and the user PIN, a line each, from standard
input: softhsm2-util would want them in its arguments, and python-pkcs11 has no C_InitToken.
"""

import ctypes
import sys

_CKU_SO = 0
_CKF_RW_SESSION = 2
_CKF_SERIAL_SESSION = 4
_LABEL_BYTES = 32


def initialise(module: str, label: str, so_pin: bytes, user_pin: bytes) -> None:
    """Initialise the first token without one and give it its PINs (PKCS#11 v2.40 sections 5.5 and 5.6)."""
    library = ctypes.CDLL(module)
    _check("C_Initialize", library.C_Initialize(None))
    slot = ctypes.c_ulong()
    count = ctypes.c_ulong(1)
    # A fresh token directory has exactly one slot, with a blank token.
    _check("C_GetSlotList", library.C_GetSlotList(ctypes.c_char(1), ctypes.byref(slot), ctypes.byref(count)))
    padded = label.encode().ljust(_LABEL_BYTES)[:_LABEL_BYTES]
    _check("C_InitToken", library.C_InitToken(slot, so_pin, ctypes.c_ulong(len(so_pin)), padded))
    session = ctypes.c_ulong()
    flags = ctypes.c_ulong(_CKF_RW_SESSION | _CKF_SERIAL_SESSION)
    _check("C_OpenSession", library.C_OpenSession(slot, flags, None, None, ctypes.byref(session)))
    _check("C_Login", library.C_Login(session, ctypes.c_ulong(_CKU_SO), so_pin, ctypes.c_ulong(len(so_pin))))
    _check("C_InitPIN", library.C_InitPIN(session, user_pin, ctypes.c_ulong(len(user_pin))))
    _check("C_Finalize", library.C_Finalize(None))


def _check(function: str, result: int) -> None:
    if result != 0:
        raise OSError(f"{function} answered {result & 0xFFFFFFFF:#x}")


if __name__ == "__main__":
    initialise(sys.argv[1], sys.argv[2], *(sys.stdin.buffer.readline().rstrip(b"\n") for _ in range(2)))
