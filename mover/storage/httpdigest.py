"""Asks a WebDAV server for its checksum of a file: Want-Digest and Digest (RFC 3230, section 4.3).

davix would wait for the answer as long as the server takes, whatever it is told.
"""

import base64
import binascii
import re

import pycurl

from mover.errors import StorageError
from mover.model import ChecksumKind
from mover.storage.davsrequest import Request
from mover.storage.gfalerrors import printable

_MOST_HEADER_BYTES = 4096
_MD5_BASE64 = re.compile(r"[A-Za-z0-9+/]{22}==")


class Digest(Request):
    """One HEAD that may take a while, since the server reads the file for it."""

    done = frozenset({200})

    def __init__(self, url: str, kind: ChecksumKind, patience_seconds: int) -> None:
        super().__init__(url)
        self._kind = kind
        self._patience_seconds = patience_seconds
        self._headers: list[str] = []

    def prepare(self, curl: pycurl.Curl) -> None:
        """No body, in either direction."""
        self._headers.clear()
        curl.setopt(pycurl.NOBODY, 1)
        curl.setopt(pycurl.HTTPHEADER, [f"Want-Digest: {self._kind}"])
        curl.setopt(pycurl.HEADERFUNCTION, self._header)
        curl.setopt(pycurl.LOW_SPEED_TIME, 0)
        curl.setopt(pycurl.TIMEOUT, self._patience_seconds)

    def value(self) -> str:
        """What the server said, after `perform`; an MD5 may come in base64 (RFC 3230, section 4.1.1), and goes in hex.

        Raises:
            StorageError: it said nothing of this kind.
        """
        for header in self._headers:
            for instance in header.split(","):
                name, _, value = instance.strip().partition("=")
                if name.lower() == self._kind:
                    return _hexadecimal(value.strip('"'))
        raise StorageError(
            f"{self.url}: the endpoint computes no {self._kind} checksum, or does not tell it: "
            f"{printable(', '.join(self._headers))!r}",
            hint="give it `checksums = []` in the configuration, so that files are read back instead",
        )

    def _header(self, line: bytes) -> None:
        if line.startswith(b"HTTP/"):
            self._headers.clear()  # of an interim answer
        name, _, value = line[:_MOST_HEADER_BYTES].decode("latin-1").partition(":")
        if name.strip().lower() == "digest":
            self._headers.append(value.strip())


def _hexadecimal(value: str) -> str:
    if not _MD5_BASE64.fullmatch(value):
        return value
    try:
        return base64.b64decode(value, validate=True).hex()
    except binascii.Error:
        return value
