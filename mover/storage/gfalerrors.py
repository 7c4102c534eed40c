"""What gfal2's error codes and texts mean, for root://, davs:// and gsiftp://."""

import errno
import re
from dataclasses import dataclass

from mover.errors import (
    AccessDeniedError,
    EndpointFullError,
    EndpointUnavailableError,
    FileExistsAtEndpointError,
    FileMissingError,
    ForeignFileError,
    StorageError,
)

_DENIED_HINT = (
    "check that the endpoint knows our identity and lets it use this path, that clocks agree, and that each side knows "
    "the other's CA"
)
_DOWN_HINT = "nothing to do if it is a short outage: it is tried again; else ask the site"


@dataclass(frozen=True, slots=True)
class _Meaning:
    kind: type[StorageError]
    what: str
    hint: str


_MISSING = _Meaning(FileMissingError, "there is no such file", "look at what the endpoint has")
_EXISTS = _Meaning(FileExistsAtEndpointError, "the name is taken", "nothing is overwritten: look whose it is")
_DENIED = _Meaning(AccessDeniedError, "access denied", _DENIED_HINT)
_FULL = _Meaning(EndpointFullError, "no space left", "make space, or have the quota raised")
_DOWN = _Meaning(EndpointUnavailableError, "not available", _DOWN_HINT)
_ODD_KIND = _Meaning(
    ForeignFileError, "a file where a directory is needed, or the reverse", "find out who made it, and why"
)
_REFUSED = _Meaning(StorageError, "refused", "read the endpoint's answer above; trying again will not help")
_NO_CHECKSUMS = _Meaning(
    StorageError,
    "the endpoint computes no such checksum",
    "give it `checksums = []` in the configuration, so that files are read back instead",
)

# davix says 1 for HTTP 403. XrdCl says 52 when the login failed. gfal2's archive_poll says 70 for XrdCl's failures, and
# gsiftp:// for whatever Globus' text does not tell.
_CODES: dict[int, _Meaning] = {
    errno.ENOENT: _MISSING,
    errno.EEXIST: _EXISTS,
    errno.EPERM: _DENIED,
    errno.EACCES: _DENIED,
    errno.EBADE: _DENIED,
    errno.EROFS: _DENIED,
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: _FULL,
    errno.ENOTDIR: _ODD_KIND,
    errno.EISDIR: _ODD_KIND,
    errno.EFAULT: _REFUSED,
    errno.EAGAIN: _Meaning(
        EndpointUnavailableError,
        "not available",
        "it is tried again; by roots:// this is all that is told when our CA directory does not know the server's CA",
    ),
    errno.EINVAL: _REFUSED,
    errno.ENOSYS: _REFUSED,
    errno.EPROTONOSUPPORT: _REFUSED,
    errno.EOPNOTSUPP: _REFUSED,
    errno.ENODEV: _REFUSED,
}

# The text wins over the code, most telling first. TLS refuses a client by an alert, which davix reports as 112, and a
# TLS handshake that timed out as 13.
_TEXTS: tuple[tuple[re.Pattern[str], _Meaning], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), meaning)
    for pattern, meaning in (
        (r"tim(?:ed|e) ?out|could not connect", _DOWN),
        (r"\balert\b.*(?:certificate|unknown ca|access denied|bad certificate|handshake)", _DENIED),
        (r"certificate (?:verify|verification)|server certificate", _DENIED),
        (r"the user (?:certificate|private key|credentials)", _DENIED),
        (r"\bHTTP 40[13]\b|auth failed", _DENIED),
        (r"\bHTTP 404\b", _MISSING),
        (r"\bHTTP 400\b", _REFUSED),
        (r"checksum calculation for \w+ not supported", _NO_CHECKSUMS),
        (r"\bXML pars", _REFUSED),
        (r"\bHTTP 507\b|no space left|quota exceeded", _FULL),
        (r"\bHTTP (?:408|429|5\d\d)\b", _DOWN),
    )
)


def storage_error(code: int, text: str, url: str) -> StorageError:
    """The error that gfal2's `code` and `text` stand for; `text` is the server's in part, so it is cut and escaped.

    Codes that nobody has seen yet count as a passing failure: they are tried again, and the text tells.
    """
    text = text.replace(url, "it")  # our own names must not decide
    by_text = (meaning for pattern, meaning in _TEXTS if pattern.search(text))
    meaning = next(by_text, None) or _CODES.get(code, _DOWN)
    # Globus begins with much that is always the same.
    told = printable(text.rpartition("Minor Status Error Chain:")[2])
    return meaning.kind(f"{url}: {meaning.what} ({code}: {told})", hint=meaning.hint)


def printable(text: str) -> str:
    """Foreign text, safe for a terminal and a log line: at most 300 characters, without control characters."""
    flat = " ".join(text.split())
    return flat.encode("ascii", "backslashreplace").decode()[:300].strip().translate(_NO_CONTROLS)


_NO_CONTROLS = dict.fromkeys([*range(32), 127], "?")
