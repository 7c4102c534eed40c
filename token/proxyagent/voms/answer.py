"""What VOMS servers answer, over REST and in the legacy protocol: XML with a certificate, warnings and errors."""

import base64
import http.client
import io
import re
import socket
import string
from dataclasses import dataclass
from typing import cast
from xml.etree import ElementTree

from proxyagent.errors import VomsError, VomsRefusedError
from proxyagent.voms import MAX_AC_BYTES
from proxyagent.voms.names import printable

_HINT = "look into the VOMS server's log, or ask the VO's manager"
_REFUSED_HINT = "ask the VO's manager whether the robot is a member, and has the groups and roles of the profile"

# The legacy protocol's numbers: 1000 and below are warnings.
_FIRST_ERROR = 1001
_REFUSALS = frozenset({1001, 1002, 1004})  # not a member or no such role; none that may be granted; suspended

# Servers of old write base64 with an alphabet of their own, unless they are asked not to and know that they can.
_THEIRS = string.ascii_lowercase + string.ascii_uppercase + string.digits + "[]"
_USUAL = string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/"
_FROM_THEIRS = str.maketrans(_THEIRS, _USUAL)


class NoRestError(VomsError):
    """What came is not an answer of a VOMS server's REST interface."""


@dataclass(frozen=True, slots=True)
class FetchedAc:
    """An attribute certificate as a server sent it. Nothing of it has been checked."""

    der: bytes
    warning: str | None
    """What the server had to say about it, such as that its life is shorter than asked for."""


def rest_answer(data: bytes) -> FetchedAc:
    """What a whole HTTP response grants. The status counts for little: a warning alone makes it 500.

    Raises:
        NoRestError: it is not from the REST interface; the server may understand the legacy protocol.
        VomsRefusedError: the server refuses.
        VomsError: the server has a problem of its own, or the answer is unreadable.
    """
    status, body = _http(data)
    if not re.search(rb"<voms\b", body):
        raise NoRestError(f"has no REST interface (HTTP status {status})", hint=_HINT)
    root = _xml(body)
    error = root.find("error")
    if error is not None:
        # The server answers 4xx only if asking again would be in vain.
        kind = VomsRefusedError if 400 <= status < 500 else VomsError
        words = f"{error.findtext('code') or 'error'}, {error.findtext('message') or ''}"
        raise kind(f"says {printable(words)}", hint=_REFUSED_HINT if kind is VomsRefusedError else _HINT)
    warning = _joined([each.text or "" for each in root.iter("warning")])
    if root.find("ac") is None:
        # A refusal is left out where there is a warning besides; the legacy protocol tells it.
        raise NoRestError(f"says nothing of why it grants nothing, but {warning}", hint=_HINT)
    return FetchedAc(_certificate(root), warning)


def legacy_answer(data: bytes) -> FetchedAc:
    """What an answer of the legacy protocol grants. With an error it has a certificate too, of one byte.

    Raises:
        VomsRefusedError: the server refuses.
        VomsError: the server has a problem of its own, or the answer is unreadable.
    """
    root = _xml(data)
    errors, warnings, refused = [], [], False
    for item in root.iterfind("error/item"):
        message = item.findtext("message") or ""
        number = item.findtext("number") or ""
        if number.isdecimal() and int(number[:9]) < _FIRST_ERROR:
            warnings.append(message)
        else:
            errors.append(message)
            refused = refused or number in map(str, _REFUSALS)
    if errors:
        kind = VomsRefusedError if refused else VomsError
        raise kind(f"says {_joined(errors)}", hint=_REFUSED_HINT if refused else _HINT)
    return FetchedAc(_certificate(root), _joined(warnings))


class _Received:
    """Bytes in the shape from which http.client reads a response."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, *_: object, **__: object) -> io.BufferedReader:
        return cast("io.BufferedReader", io.BytesIO(self._data))


def _http(data: bytes) -> tuple[int, bytes]:
    response = http.client.HTTPResponse(cast("socket.socket", _Received(data)), method="GET")
    try:
        response.begin()
        return response.status, response.read()
    except (http.client.HTTPException, ValueError) as error:
        raise NoRestError("does not speak HTTP", hint=_HINT) from error


def _xml(data: bytes) -> ElementTree.Element:
    text = data.decode("utf-8", errors="replace").rstrip("\0\r\n ")
    # Neither document types nor what they could define: nothing in an answer expands. Zeros would be UTF-16, which the
    # parser goes by whatever it is told, and in which we would not see them.
    if "<!" in text or "\0" in text:
        raise VomsError("answers with XML that has declarations", hint=_HINT)
    try:
        return ElementTree.fromstring(text)  # noqa: S314 - bounded, and without declarations
    except (ElementTree.ParseError, ValueError) as error:
        raise VomsError("answers with unreadable XML", hint=_HINT) from error


def _certificate(root: ElementTree.Element) -> bytes:
    text = "".join((root.findtext("ac") or "").split())
    # DER of this length begins with the bytes 30 82, which both alphabets spell with the same letters.
    if text.startswith("mi"):
        text = text.translate(_FROM_THEIRS)
        text += "=" * (-len(text) % 4)
    try:
        der = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise VomsError("sends an attribute certificate that is not base64", hint=_HINT) from error
    if not 0 < len(der) <= MAX_AC_BYTES:
        raise VomsError(f"sends an attribute certificate of {len(der)} bytes", hint=_HINT)
    return der


def _joined(messages: list[str]) -> str | None:
    return printable("; ".join(messages)) or None
