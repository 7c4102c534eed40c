"""The requests of ARC CE's REST interface 1.0, https://www.nordugrid.org/arc/arc6/tech/rest/rest.html, by curl.

Every answer is bounded in size and time. Answers are JSON in ARC's own manner: a list with one element is that element,
an empty list is nothing at all, and every value is a string.
"""

import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, urlencode, urlsplit

import pycurl

from mover.errors import BatchUnavailableError, ConfigError
from mover.gridtls import check_crls, new_curl
from mover.ports import CredentialSource, Proxy

_MOST_ANSWER_BYTES = 32 << 20
_MOST_HANDSHAKES = 4
_MOST_WORDS = 300
_SLOWEST_BYTES_PER_SECOND = 1000
_DOWN = "nothing to do if it is a short outage: it is tried again; else ask the site"
_DENIED = "check that the compute element knows our identity and VO, that clocks agree, and that it knows our CA"
# With TLS 1.3 a server refuses our certificate when we have begun to send, so that its alert may be lost.
_HUNG_UP = f"it hung up, as it does in an outage, and when it does not take our proxy: {_DENIED}"
_CURL_HINTS = {
    pycurl.E_SEND_ERROR: _HUNG_UP,
    pycurl.E_RECV_ERROR: _HUNG_UP,
    pycurl.E_PEER_FAILED_VERIFICATION: "check its certificate, its name, the CA directory, and the CRLs there",
    pycurl.E_SSL_CERTPROBLEM: _DENIED,
}
_LOCATION = re.compile(rb"location:\s*(?:\S*/)?([A-Za-z0-9_.-]{1,128})\s*$", re.IGNORECASE)

Entry = Mapping[str, object]
"""One element of a list in an answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the compute element said to one request."""

    status: int
    body: bytes
    kind: str
    """The media type."""
    length: int
    """What Content-Length says; -1 if it does not."""
    location: str
    """The last name in Location; empty if there is none."""

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode(errors="replace")


class ArcRest:
    """One compute element. Every request is a connection of its own, with the proxy of the moment."""

    def __init__(
        self, url: str, credentials: CredentialSource, ca_directory: Path, *, answer_seconds: int = 60
    ) -> None:
        """`url` is that of the service, such as https://ce.example.org/arex; an answer may take `answer_seconds`.

        Raises:
            ConfigError: the URL is not such a one.
        """
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname or parts.username or parts.query or parts.fragment:
            raise ConfigError(f"bad URL of a compute element {url!r}", hint="write it as https://host:443/arex")
        self.url = url.rstrip("/")
        #: The compute element, with its port if that is not the usual one.
        self.host = parts.netloc.lower()
        self._credentials = credentials
        self._ca_directory = ca_directory
        self._answer_seconds = answer_seconds
        self._proxy: Proxy | None = None

    def get_text(self, *names: str, limit_bytes: int = 1 << 16) -> str:
        """The beginning of a text that those names lead to; empty if there is none. Raises as `get_list`."""
        answer = self._perform(self._curl(names, None), done=(200, 404), limit_bytes=limit_bytes, cut=True)
        return answer.text if answer.status == 200 else ""

    def get_list(self, *names: str, of: str, query: Mapping[str, str] | None = None) -> list[Entry]:
        """A list of elements `of` a kind.

        Raises:
            BatchUnavailableError: no answer, another status than 200, or something else than a list.
        """
        return self.entries(self._perform(self._curl(names, query), done=(200,)), of)

    def get_end(self, *names: str, limit_bytes: int) -> bytes | None:
        """The last `limit_bytes` of a file; None if there is none. Raises as `get_list`."""
        head = self._curl(names, None)
        head.setopt(pycurl.NOBODY, 1)
        found = self._perform(head, done=(200, 404))
        # What is no file is listed, as JSON or HTML.
        if found.status == 404 or found.kind != "application/octet-stream":
            return None
        if found.length <= 0:
            return b""
        first = max(0, found.length - limit_bytes)
        curl = self._curl(names, None)
        curl.setopt(pycurl.RANGE, f"{first}-{found.length - 1}")
        answer = self._perform(curl, done=(200, 206, 404), limit_bytes=limit_bytes, cut=True)
        if answer.status == 404:
            return None
        if answer.status == 200 and first:
            raise BatchUnavailableError(
                f"{self.url} does not give the end of a file alone", hint="ask the site what stands before it"
            )
        return answer.body

    def post(
        self,
        *names: str,
        action: str,
        body: bytes = b"",
        kind: str = "application/json",
        done: Sequence[int] = (200, 201, 202),
    ) -> Answer:
        """POST with `?action=`.

        Raises:
            BatchUnavailableError: no answer, or a status that is not in `done`.
        """
        curl = self._curl(names, {"action": action})
        curl.setopt(pycurl.POSTFIELDS, body)
        curl.setopt(pycurl.HTTPHEADER, [f"Content-Type: {kind}", "Accept: application/json", "Expect:"])
        return self._perform(curl, done=done)

    def post_ids(self, action: str, ids: Sequence[str]) -> list[Entry]:
        """An action on several jobs: an element for each. Raises as `post`."""
        body = json.dumps({"job": [{"id": job_id} for job_id in ids]}).encode()
        return self.entries(self.post("jobs", action=action, body=body), "job")

    def put(self, *names: str, body: bytes, kind: str) -> None:
        """PUT of a small body. Raises as `post`."""
        self._put(names, io.BytesIO(body), len(body), kind)

    def put_file(self, *names: str, path: Path) -> None:
        """PUT of a file, which may take as long as it moves. Raises as `post`, and OSError."""
        with path.open("rb") as file:
            self._put(names, file, os.fstat(file.fileno()).st_size, "application/octet-stream")

    def entries(self, answer: Answer, what: str) -> list[Entry]:
        """The list `what` of an answer.

        Raises:
            BatchUnavailableError: it has no such list.
        """
        if not answer.body.strip():
            return []
        try:
            found = json.loads(answer.body)
        except (ValueError, RecursionError):
            raise self._nonsense(answer) from None
        if found in ("", None):
            return []
        if not isinstance(found, dict):
            raise self._nonsense(answer)
        inner = found.get(what, [])
        elements = inner if isinstance(inner, list) else [inner]
        if not all(isinstance(each, dict) for each in elements):
            raise self._nonsense(answer)
        return elements

    def _curl(self, names: Sequence[str], query: Mapping[str, str] | None) -> pycurl.Curl:
        path = "/".join(quote(name, safe="") for name in names)
        # Held as long as curl may open its path, whoever else gets another one from the source meanwhile.
        self._proxy = self._credentials.proxy()
        curl = new_curl(self._proxy.path, self._ca_directory, stall_seconds=self._answer_seconds)
        if not check_crls(curl, self._ca_directory):
            raise BatchUnavailableError(
                f"there is no CRL in {self._ca_directory}, so that {self.url} cannot be trusted",
                hint="run fetch-crl for that directory",
            )
        curl.setopt(pycurl.URL, f"{self.url}/rest/1.0/{path}{'?' + urlencode(query) if query else ''}")
        curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTPS)
        curl.setopt(pycurl.TIMEOUT, self._answer_seconds)
        curl.setopt(pycurl.HTTPHEADER, ["Accept: application/json"])
        return curl

    def _put(self, names: Sequence[str], body: BinaryIO, size_bytes: int, kind: str) -> None:
        curl = self._curl(names, None)
        curl.setopt(pycurl.TIMEOUT, 0)
        curl.setopt(pycurl.LOW_SPEED_LIMIT, _SLOWEST_BYTES_PER_SECOND)
        curl.setopt(pycurl.LOW_SPEED_TIME, self._answer_seconds)
        curl.setopt(pycurl.UPLOAD, 1)
        curl.setopt(pycurl.INFILESIZE_LARGE, size_bytes)
        curl.setopt(pycurl.READDATA, body)
        curl.setopt(pycurl.HTTPHEADER, [f"Content-Type: {kind}", "Expect:"])
        self._perform(curl, done=(200, 201, 204))

    def _perform(
        self, curl: pycurl.Curl, *, done: Sequence[int], limit_bytes: int = _MOST_ANSWER_BYTES, cut: bool = False
    ) -> Answer:
        """What was answered; a body beyond the limit is an error, or where it is `cut`, left away."""
        body = bytearray()

        def keep(data: bytes) -> int | None:
            body.extend(data)
            return None if len(body) <= limit_bytes else 0

        location = ""

        def look(line: bytes) -> None:
            nonlocal location
            if found := _LOCATION.match(line):
                location = found[1].decode("ascii")

        curl.setopt(pycurl.WRITEFUNCTION, keep)
        curl.setopt(pycurl.HEADERFUNCTION, look)
        try:
            _shake_hands_and_perform(curl)
        except pycurl.error as error:
            if len(body) <= limit_bytes:
                raise self._unreachable(int(error.args[0]), str(error.args[1])) from None
            if not cut:
                raise BatchUnavailableError(
                    f"{self.url} answers with more than {limit_bytes} bytes", hint="ask the site what it says"
                ) from None
        finally:
            status: int = curl.getinfo(pycurl.RESPONSE_CODE)
            kind: str = curl.getinfo(pycurl.CONTENT_TYPE) or ""
            length: int = curl.getinfo(pycurl.CONTENT_LENGTH_DOWNLOAD_T)
            curl.close()
        answer = Answer(status, bytes(body[:limit_bytes]), kind.partition(";")[0].strip(), length, location)
        if status not in done:
            hint = _DENIED if status in {401, 403} else _DOWN
            raise BatchUnavailableError(f"{self.url}: HTTP {status}: {printable(answer.text)}", hint=hint)
        return answer

    def _unreachable(self, code: int, text: str) -> BatchUnavailableError:
        # The TLS alerts that refuse a client come as a failure to receive.
        hint = _DENIED if re.search(r"\balert\b", text) else _CURL_HINTS.get(code, _DOWN)
        return BatchUnavailableError(f"{self.url}: {printable(text)}", hint=hint)

    def _nonsense(self, answer: Answer) -> BatchUnavailableError:
        return BatchUnavailableError(
            f"{self.url} does not answer as ARC's REST interface 1.0 does: {printable(answer.text)}",
            hint="check the URL of the compute element",
        )


def _shake_hands_and_perform(curl: pycurl.Curl) -> None:
    """Perform; several times if the handshake fails, after which nothing has been sent yet.

    With A-REX 6.17, three in a thousand handshakes fail for no reason.
    """
    for _ in range(_MOST_HANDSHAKES - 1):
        try:
            curl.perform()
        except pycurl.error as error:
            if error.args[0] != pycurl.E_SSL_CONNECT_ERROR:
                raise
        else:
            return
    curl.perform()


def text_of(entry: Entry, key: str) -> str:
    """A value of an element as text, safe for people; empty if it is missing."""
    value = entry.get(key)
    return printable(value) if isinstance(value, str) else ""


def printable(text: str) -> str:
    """Foreign text, safe for a terminal and a log line: at most 300 characters on one line."""
    flat = " ".join(text.split())
    return "".join(each if each.isprintable() else "?" for each in flat)[:_MOST_WORDS]


def is_id(value: object) -> bool:
    """Whether that can be the id of a job or a delegation."""
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_.-]{1,128}", value) is not None
