"""Third-party copies by WebDAV: the target storage is asked to fetch the file from the source by itself.

WLCG HTTP-TPC, https://twiki.cern.ch/twiki/bin/view/LCG/HttpTpcTechnical: COPY (RFC 4918, section 9.8) in pull mode,
with a macaroon of the source's that lets whoever holds it read this one file for a while. gfal2 is not asked to do it:
it copies through the client where it gets no macaroon, and wants one of the target, with leave to do anything, too.
"""

import json
import re
import time
from collections.abc import Callable
from typing import Any

import pycurl

from mover.errors import EndpointUnavailableError, FileMissingError, StorageError, ThirdPartyCopyError
from mover.storage.curlerrors import answer_error, curl_error
from mover.storage.gfalerrors import printable, storage_error
from mover.storage.thirdparty import LOOK_SECONDS, Watch

_MACAROON_VALIDITY = "PT1H"  # ISO 8601; it is looked at when the source is asked for the file
_MOST_ANSWER_BYTES = 1 << 16
_MOST_LINE_BYTES = 4096
_MOST_STRIPES = 1000
_MACAROON = re.compile(r"[A-Za-z0-9_=-]{1,8192}")  # base64url
_NOT_IMPLEMENTED = 501
_GO_ON = 0
_ABORT = 1


def read_macaroon(source_url: str, new_curl: Callable[[], pycurl.Curl]) -> str:
    """A macaroon that allows to read the file of that https:// URL; a secret for as long as it is valid.

    Raises:
        ThirdPartyCopyError: the storage gives none.
        StorageError: it could not be asked.
    """
    asked = {"caveats": ["activity:DOWNLOAD"], "validity": _MACAROON_VALIDITY}
    answer = bytearray()
    curl = new_curl()
    curl.setopt(pycurl.URL, source_url)
    curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTPS)
    curl.setopt(pycurl.HTTPHEADER, ["Content-Type: application/macaroon-request", "Expect:"])
    curl.setopt(pycurl.POSTFIELDS, json.dumps(asked))
    curl.setopt(pycurl.WRITEFUNCTION, lambda data: _keep(answer, data))
    status = _performed(curl, source_url)
    if status >= 500 and status != _NOT_IMPLEMENTED:
        raise answer_error(status, answer.decode(errors="replace"), source_url)
    try:
        found = json.loads(answer)["macaroon"]
    except (ValueError, KeyError, TypeError):
        found = None
    if status >= 300 or not isinstance(found, str) or not _MACAROON.fullmatch(found):
        raise ThirdPartyCopyError(
            f"{source_url}: the storage gives no macaroon (HTTP {status})",
            hint="ask the site for macaroons, or set third_party_copy = false for the endpoint",
        )
    return found


def pull(source_url: str, target_url: str, new_curl: Callable[[], pycurl.Curl], watch: Watch) -> None:
    """Have the storage of `target_url` fetch `source_url` into a new file; returns when it says that it has it all.

    Both are https:// URLs. Redirects are not followed: a macaroon is for the server that was meant.

    Raises:
        FileExistsAtEndpointError: there is a file of that name.
        StorageError: the copy failed.
        BaseException: what `watch.look` raised; the connection was closed, which ends the copy.
    """
    macaroon = read_macaroon(source_url, new_curl)
    headers = [
        f"Source: {source_url}",
        f"TransferHeaderAuthorization: Bearer {macaroon}",
        "Credential: none",  # nothing is to be delegated
        "Overwrite: F",
    ]
    curl = new_curl()
    curl.setopt(pycurl.URL, target_url)
    curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTPS)
    curl.setopt(pycurl.CUSTOMREQUEST, "COPY")
    curl.setopt(pycurl.HTTPHEADER, headers)
    curl.setopt(pycurl.LOW_SPEED_LIMIT, 0)  # markers are few bytes; the watch decides
    report = _Report(watch, macaroon)
    curl.setopt(pycurl.WRITEFUNCTION, report.write)
    curl.setopt(pycurl.NOPROGRESS, 0)
    curl.setopt(pycurl.XFERINFOFUNCTION, report.tick)
    watch.begun = True
    status = _performed(curl, target_url, report)
    if 400 <= status < 500:
        watch.begun = False  # refused: what stands there, if anything, is not ours
    if status >= 300:
        raise _refused(status, report.without_secret(report.text), source_url, target_url)
    report.check_end(source_url, target_url)


class _Report:
    """What the target says while it copies: performance markers, and at last 'success' or 'failure: …'."""

    def __init__(self, watch: Watch, secret: str) -> None:
        self._watch = watch
        self._secret = secret
        self._looked = float("-inf")
        self._stripe = 0
        self._stripes: dict[int, int] = {}
        self._rest = b""
        self._end: str | None = None
        #: What the watch raised.
        self.failure: BaseException | None = None
        #: The beginning of the answer.
        self.text = ""

    def write(self, data: bytes) -> int:
        """curl's write callback."""
        if len(self.text) < _MOST_LINE_BYTES:
            self.text += data[:_MOST_LINE_BYTES].decode(errors="replace")
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[:_MOST_LINE_BYTES]
        for line in lines:
            self._take(line)
        return len(data)

    def tick(self, *_: int) -> int:
        """curl's progress callback, which it calls about once a second, in the thread that performs."""
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return _GO_ON
        self._looked = time.monotonic()
        try:
            self._watch.look()
        except BaseException as error:  # an exception cannot cross curl
            self.failure = error
            return _ABORT
        return _GO_ON

    def check_end(self, source_url: str, target_url: str) -> None:
        """The last line must say that all went well.

        Raises:
            StorageError: it says something else, or nothing.
        """
        self._take(self._rest)
        what = f"{source_url} to {target_url}"
        if self._end is None:
            raise EndpointUnavailableError(
                f"{what}: the target's answer ended before the copy did", hint="it is tried again; else ask the site"
            )
        if self._end.startswith("success"):
            return
        end = self.without_secret(self._end)
        status = re.search(r"status code (\d{3})", end)
        if status is None:
            raise storage_error(0, end, target_url)
        raise _refused(int(status[1]), end, source_url, target_url)

    def without_secret(self, text: str) -> str:
        """The target's text without the macaroon, which it knows and may repeat."""
        return text.replace(self._secret, "(macaroon)")

    def _take(self, raw: bytes) -> None:
        line = raw[:_MOST_LINE_BYTES].decode(errors="replace").strip()
        if line.lower().startswith(("success", "failure")):
            self._end = line
        elif number := re.fullmatch(r"Stripe Index: (\d{1,9})", line):
            self._stripe = int(number[1])
        elif number := re.fullmatch(r"Stripe Bytes Transferred: (\d{1,18})", line):
            if len(self._stripes) < _MOST_STRIPES:
                self._stripes[self._stripe] = int(number[1])
            self._watch.saw(sum(self._stripes.values()))


def _refused(status: int, text: str, source_url: str, target_url: str) -> StorageError:
    if status == 404:
        return FileMissingError(f"{source_url}: {printable(text)}", hint="look at what the endpoint has")
    if status in {405, _NOT_IMPLEMENTED}:
        return ThirdPartyCopyError(
            f"{target_url}: the storage knows no COPY (HTTP {status})",
            hint="set third_party_copy = false for the endpoint",
        )
    return answer_error(status, text, target_url)


def _performed(curl: pycurl.Curl, url: str, report: _Report | None = None) -> int:
    """The status that was answered."""
    try:
        curl.perform()
        status: Any = curl.getinfo(pycurl.RESPONSE_CODE)
        return int(status)
    except pycurl.error as error:
        if report is not None and report.failure is not None:
            raise report.failure from None
        raise curl_error(error.args[0], str(error.args[1]), url) from None
    finally:
        curl.close()


def _keep(answer: bytearray, data: bytes) -> int:
    answer += data[: _MOST_ANSWER_BYTES - len(answer)]
    return len(data)
