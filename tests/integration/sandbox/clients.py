"""The clients that the mover uses, for the tests of the sandbox's storage servers."""

import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import gfal2
import pycurl
from XRootD.client.file import File
from XRootD.client.filesystem import FileSystem
from XRootD.client.flags import OpenFlags, QueryCode


class RootClient:
    """pyxrootd as the owner of one proxy; the proxy goes with each URL, a user name keeps connections apart."""

    def __init__(self, root_url: str, proxy: str, user: str) -> None:
        host, path = root_url.removeprefix("root://").split("//")
        self._server = f"root://{user}@{host}"
        self._base = f"/{path}"
        self._query = f"?xrd.gsiusrpxy={proxy}"
        #: XRootD's own client object, which has no types.
        self.files: Any = FileSystem(f"{self._server}//{self._query}")  # type: ignore[no-untyped-call] # pyxrootd has no types

    def path(self, name: str) -> str:
        return f"{self._base}/{name}"

    def create(self, name: str, content: bytes) -> int:
        """Write a new file; the server's error number, 0 if there is none."""
        with File() as file:  # type: ignore[no-untyped-call] # pyxrootd has no types
            flags = OpenFlags.NEW | OpenFlags.MAKEPATH
            status, _ = file.open(f"{self._server}/{self.path(name)}{self._query}", flags)
            if status.ok:
                status, _ = file.write(content, 0)
            if status.ok:
                status, _ = file.close()
            return int(status.errno)

    def stat(self, name: str) -> tuple[int, int | None]:
        """The server's error number and the file's size."""
        status, info = self.files.stat(self.path(name))
        return status.errno, info.size if info else None

    def adler32(self, name: str) -> str:
        status, answer = self.files.query(QueryCode.CHECKSUM, self.path(name))
        assert status.ok, status.message
        kind, value = answer.rstrip(b"\0").decode().split()
        assert kind == "adler32"
        return str(value)


def gfal(proxy: str) -> Any:
    """A gfal2 context with that proxy, on root:// and davs:// alike."""
    context = gfal2.creat_context()
    # https for the Tape REST API, where gfal2 asks for davs:// files.
    for scheme in ("root://", "davs://", "https://"):
        context.cred_set(scheme, context.cred_new("X509_CERT", proxy))
    return context


def https(
    method: str, davs_url: str, *, ca: str, proxy: str | None, body: bytes = b"", headers: list[str] | None = None
) -> int:
    """One request; the HTTP status."""
    handle = pycurl.Curl()
    handle.setopt(pycurl.URL, davs_url.replace("davs://", "https://", 1))
    handle.setopt(pycurl.CUSTOMREQUEST, method)
    handle.setopt(pycurl.CAPATH, ca)
    handle.setopt(pycurl.TIMEOUT, 30)
    handle.setopt(pycurl.HTTPHEADER, headers or [])
    handle.setopt(pycurl.WRITEFUNCTION, len)
    if proxy is not None:
        handle.setopt(pycurl.SSLCERT, proxy)
        handle.setopt(pycurl.SSLKEY, proxy)
    if method == "PUT":
        handle.setopt(pycurl.UPLOAD, 1)
        handle.setopt(pycurl.READDATA, BytesIO(body))
        handle.setopt(pycurl.INFILESIZE_LARGE, len(body))
    try:
        handle.perform()
        return int(handle.getinfo(pycurl.RESPONSE_CODE))
    finally:
        handle.close()


def listening(port: int) -> set[str]:
    """The addresses, as /proc/net writes them, at which that port is listened on."""
    tables = [Path(f"/proc/net/{name}").read_text() for name in ("tcp", "tcp6")]
    rows = [row.split() for table in tables for row in table.splitlines()[1:]]
    addresses = [row[1].split(":") for row in rows if row[3] == "0A"]
    return {host for host, number in addresses if int(number, 16) == port}


def eventually(condition: Callable[[], bool], *, seconds: float = 30.0) -> None:
    """Wait until the condition holds; fail if it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)
