"""What the statuses of XrdCl, the client of the XRootD protocol, mean."""

from typing import Any

from mover.errors import (
    AccessDeniedError,
    EndpointFullError,
    EndpointUnavailableError,
    FileExistsAtEndpointError,
    FileMissingError,
    ForeignFileError,
    StorageError,
)
from mover.storage.gfalerrors import printable

_Meaning = tuple[type[StorageError], str]

DOWN_HINT = "nothing to do if it is a short outage: it is tried again; else ask the site"
_DENIED: _Meaning = (AccessDeniedError, "check that the endpoint knows our identity and lets it use this path")
_FULL: _Meaning = (EndpointFullError, "make space, or have the quota raised")
_DOWN: _Meaning = (EndpointUnavailableError, DOWN_HINT)

# Errors of the server, XProtocol.hh, XErrorCode. (kXR_FileLocked: somebody, maybe an attempt of ours that the server
# has not given up yet, has the file open for writing.)
_SERVER_ERRORS: dict[int, _Meaning] = {
    3003: (FileExistsAtEndpointError, "somebody is writing it now; it is tried again"),
    3009: _FULL,
    3010: _DENIED,
    3011: (FileMissingError, "look at what the endpoint has"),
    3015: (ForeignFileError, "a file stands where a directory is needed: find out whose it is"),
    3016: (ForeignFileError, "a directory stands where a file is needed: find out whose it is"),
    3018: (FileExistsAtEndpointError, "nothing is overwritten: look whose it is"),
    3021: _FULL,
    3030: _DENIED,
    3000: (StorageError, "the server does not take our request: ask the site"),
    3006: (StorageError, "the server does not take our request: ask the site"),
    3013: (StorageError, "the server does not take our request: ask the site"),
}
# XErrorCode has nothing of its own for it.
_NOT_A_DIRECTORY = "not a directory"
_ERR_RESPONSE = 400  # XrdClStatus.hh: errErrorResponse, the server's own answer
_TLS_ERROR = 110  # errTlsError; fatal if there is no TLS to be had, else a connection that broke
_BAD_TLS: _Meaning = (AccessDeniedError, "check the server's certificate and the CA directory")
_CLIENT_ERRORS: dict[int, _Meaning] = {
    203: _DENIED,  # errLoginFailed
    204: _DENIED,  # errAuthFailed
}


def check(status: Any, url: str) -> None:
    """Raise what a status of XrdCl's means, unless it is good. What is not known counts as a passing failure."""
    if status.ok:
        return
    if status.code == _ERR_RESPONSE and _NOT_A_DIRECTORY in status.message:
        kind, hint = _SERVER_ERRORS[3015]
    elif status.code == _ERR_RESPONSE:
        kind, hint = _SERVER_ERRORS.get(status.errno, _DOWN)
    elif status.code == _TLS_ERROR and status.fatal:
        kind, hint = _BAD_TLS
    else:
        kind, hint = _CLIENT_ERRORS.get(status.code, _DOWN)
    raise kind(f"{url}: {printable(status.message)}", hint=hint)
