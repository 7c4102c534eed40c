"""VOMS's own C library as a judge: what it refuses, storage elements refuse too.

It checks an attribute certificate's signature, holder, times, and its issuer against vomsdir and the CA directory.
voms-proxy-info and voms-verify check none of these.
"""

import ctypes
from ctypes import POINTER, c_char_p, c_int, c_void_p
from pathlib import Path

import pytest

_LIBRARY = "libvomsapi.so.1"


class _Voms(ctypes.Structure):
    """``struct voms`` of voms_apic.h, as far as it is needed."""

    _fields_ = [
        ("siglen", c_int),
        *((name, c_char_p) for name in ("signature", "user", "userca", "server", "serverca")),
        *((name, c_char_p) for name in ("voname", "uri", "date1", "date2")),
        ("type", c_int),
        ("std", c_void_p),
        ("custom", c_char_p),
        ("datalen", c_int),
        ("version", c_int),
        ("fqan", POINTER(c_char_p)),
    ]


class _VomsData(ctypes.Structure):
    """``struct vomsdata``, as far as it is needed."""

    _fields_ = [("cdir", c_char_p), ("vdir", c_char_p), ("data", POINTER(POINTER(_Voms)))]


class VomsApiError(Exception):
    """The library does not accept the attribute certificate, or finds none."""


def need_vomsapi() -> None:
    """Skip the test if the library is not installed."""
    try:
        ctypes.CDLL(_LIBRARY)
    except OSError:
        pytest.skip(f"{_LIBRARY} is not installed: apt install voms-clients")


def fqans_by_vomsapi(proxy: str, vomsdir: Path, ca_directory: Path) -> list[str]:
    """The FQANs in the first attribute certificate of a proxy file, in their long form.

    Raises:
        VomsApiError: with the library's reason.
    """
    library, libc = ctypes.CDLL(_LIBRARY), ctypes.CDLL(None)
    library.VOMS_Init.restype = POINTER(_VomsData)
    library.VOMS_RetrieveFromFile.argtypes = [c_void_p, c_int, POINTER(_VomsData), POINTER(c_int)]
    library.VOMS_ErrorMessage.argtypes = [POINTER(_VomsData), c_int, c_char_p, c_int]
    library.VOMS_Destroy.argtypes = [POINTER(_VomsData)]
    libc.fopen.restype, libc.fclose.argtypes = c_void_p, [c_void_p]
    data = library.VOMS_Init(str(vomsdir).encode(), str(ca_directory).encode())
    file = libc.fopen(proxy.encode(), b"r")
    assert data
    assert file
    try:
        error = c_int(0)
        if not library.VOMS_RetrieveFromFile(file, 0, data, ctypes.byref(error)):
            message = ctypes.create_string_buffer(4096)
            library.VOMS_ErrorMessage(data, error, message, len(message))
            raise VomsApiError(message.value.decode())
        return _strings(data.contents.data[0].contents.fqan)
    finally:
        libc.fclose(file)
        library.VOMS_Destroy(data)


def _strings(array: "ctypes._Pointer[c_char_p]") -> list[str]:
    found: list[str] = []
    while (each := array[len(found)]) is not None:
        found.append(bytes(each).decode())
    return found
