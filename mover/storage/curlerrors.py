"""What curl's error codes, and a WebDAV server's answers to a PUT or a MOVE, mean."""

import re

import pycurl

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

_DENIED: _Meaning = (AccessDeniedError, "check that the endpoint knows our identity and lets it use this path")
_FULL: _Meaning = (EndpointFullError, "make space, or have the quota raised")
_DOWN: _Meaning = (
    EndpointUnavailableError,
    "nothing to do if it is a short outage: it is tried again; else ask the site",
)
# Of a PUT or a MOVE, 409 means the directory (RFC 4918, sections 9.7.1 and 9.9.4); some servers say 404. It was made
# just before. Apache says 409 too when a directory stands under the name itself, which the next look will find.
_GONE: _Meaning = (FileMissingError, "the file or its directory has gone since it was looked at: it is tried again")
_REFUSED: _Meaning = (StorageError, "read the endpoint's answer above; trying again will not help")

_CURL: dict[int, _Meaning] = {
    pycurl.E_PEER_FAILED_VERIFICATION: (AccessDeniedError, "check the server's certificate and the CA directory"),
    pycurl.E_SSL_CERTPROBLEM: _DENIED,
    pycurl.E_UNSUPPORTED_PROTOCOL: (
        StorageError,
        "the endpoint redirects to something that is not https: ask the site",
    ),
}

_STATUS: dict[int, _Meaning] = {
    401: _DENIED,
    403: _DENIED,
    207: (EndpointUnavailableError, "the server could not do all of it: it is tried again; else ask the site"),
    404: _GONE,
    408: _DOWN,
    409: _GONE,
    412: (FileExistsAtEndpointError, "nothing is overwritten: look whose it is"),
    413: _FULL,
    423: _DOWN,
    425: _DOWN,
    429: _DOWN,
    507: _FULL,
}

# XrdHttp answers 500 to almost anything and says why in the body.
_TEXTS: tuple[tuple[re.Pattern[str], _Meaning], ...] = (
    (re.compile(r"no space left|quota exceeded|disk quota", re.IGNORECASE), _FULL),
    (
        re.compile(r"not a directory|is a directory", re.IGNORECASE),
        (ForeignFileError, "a file stands where a directory is needed, or the reverse: find out whose it is"),
    ),
)


def curl_error(code: int, text: str, url: str) -> StorageError:
    """The error that curl's `code` stands for. The TLS alerts that refuse a client come as a failure to receive."""
    if re.search(r"\balert\b", text):
        kind, hint = _DENIED
    else:
        kind, hint = _CURL.get(code, _DOWN)
    if code == pycurl.E_GOT_NOTHING:
        # There is no other sign of it: XrdHttp closes the connection without an answer.
        text += " (XRootD hangs up like this when its disk is full)"
    return kind(f"{url}: {printable(text)}", hint=hint)


def answer_error(status: int, body: str, url: str) -> StorageError:
    """The error that an HTTP status (RFC 9110, section 15) other than 2xx stands for, with what the server says."""
    telling = status == 409 or status >= 500
    by_text = (meaning for pattern, meaning in _TEXTS if telling and pattern.search(body))
    kind, hint = next(by_text, None) or _STATUS.get(status) or (_DOWN if status >= 500 else _REFUSED)
    return kind(f"{url}: HTTP {status}: {printable(body)}", hint=hint)
