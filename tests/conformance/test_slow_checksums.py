"""Checksums take as long as the storage reads its file: longer than any other call may, but not for ever."""

import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from mover.errors import EndpointUnavailableError
from mover.model import ChecksumKind
from mover.sandbox.ca import CertificateAuthority
from mover.sandbox.server import HERE
from mover.sandbox.xrootd import DiskServer
from tests.conformance.frozen import frozen_later
from tests.conformance.subjects import Site, base_url_of

#: Over every other deadline of these tests.
_SLOW_SECONDS = 6.0
_TOO_SLOW_SECONDS = 30.0
#: What gives a storage 30 s more to read it.
_LARGE_BYTES = 600_000_000
_CHECKSUM = "0123abcd"

_PROGRAM = f"""\
#!/bin/sh
while [ -e /proc/self/cwd/control/SLOW ]; do sleep 0.1; done
echo {_CHECKSUM}
"""


class SlowServer(DiskServer):
    """Has a program for checksums, which waits as long as the server is `slow`, and does not look at the file."""

    def configure(self) -> None:
        super().configure()
        program = self.directory / "bin/checksum"
        program.write_text(_PROGRAM)
        program.chmod(0o755)
        config = self.directory / "etc/server.cfg"
        text = config.read_text()
        assert "xrootd.chksum max 2 adler32 md5\n" in text
        config.write_text(text.replace("adler32 md5\n", f"adler32 {HERE}/bin/checksum\n"))

    @contextmanager
    def slow(self, seconds: float) -> Iterator[None]:
        """Until the block ends, or for so long."""
        flag = self.directory / "control/SLOW"
        flag.touch()
        timer = threading.Timer(seconds, flag.unlink)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()
            flag.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def server(site: Site, grid_ca: CertificateAuthority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlowServer]:
    made = SlowServer(tmp_path_factory.mktemp("slow") / "server", grid_ca, robot="Robot")
    made.start()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """XrdCl itself, for all calls that do not say how long they may take."""
    monkeypatch.setenv("XRD_REQUESTTIMEOUT", "2")
    monkeypatch.setenv("XRD_STREAMTIMEOUT", "2")


@pytest.mark.parametrize("kind", ["root", "roots", "davs"])
def test_a_large_file_is_given_time(site: Site, server: SlowServer, kind: str) -> None:
    endpoint = site.endpoint(kind, base_url_of(kind, server), stall_timeout_seconds=2, checksum_timeout_seconds=1)
    endpoint.upload(kind, [b"run"], 3)
    with server.slow(_SLOW_SECONDS):
        assert endpoint.checksum(kind, ChecksumKind.ADLER32, size_bytes=_LARGE_BYTES) == _CHECKSUM


@pytest.mark.parametrize("kind", ["root", "roots", "davs"])
def test_no_file_is_given_all_the_time(site: Site, server: SlowServer, kind: str) -> None:
    """The server does not answer before the call has ended."""
    endpoint = site.endpoint(kind, base_url_of(kind, server), stall_timeout_seconds=20, checksum_timeout_seconds=2)
    path = f"{kind}-for-ever"
    endpoint.upload(path, [b"run"], 3)
    with server.slow(_TOO_SLOW_SECONDS), pytest.raises(EndpointUnavailableError):
        endpoint.checksum(path, ChecksumKind.ADLER32, size_bytes=3)
    assert endpoint.stat(path) is not None


@pytest.mark.parametrize("kind", ["root", "roots"])
def test_a_server_that_says_nothing_meanwhile_is_given_time(
    site: Site, grid_ca: CertificateAuthority, tmp_path: Path, kind: str
) -> None:
    """As XRootD does while it reads a file by itself; here it hangs."""
    server = DiskServer(tmp_path / "server", grid_ca, robot="Robot")
    server.start()
    try:
        endpoint = site.endpoint(kind, base_url_of(kind, server), stall_timeout_seconds=2, checksum_timeout_seconds=1)
        endpoint.upload("a", [b"run"], 3)
        with ThreadPoolExecutor(1) as pool:
            with frozen_later(server) as freeze:
                freeze()
                answer = pool.submit(endpoint.checksum, "a", ChecksumKind.ADLER32, size_bytes=_LARGE_BYTES)
                time.sleep(_SLOW_SECONDS)
                assert not answer.done()
            assert answer.result() == f"{zlib.adler32(b'run'):08x}"
    finally:
        server.close()
