"""Reads from servers that stop, break off, lie, or send clients elsewhere: never a silent end, never a wrong byte."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from mover.errors import AccessDeniedError, EndpointUnavailableError, FileMissingError, ForeignFileError, StorageError
from mover.sandbox.ca import CertificateAuthority
from tests.conformance.credentials import RobotCredentials
from tests.conformance.door import Answer, door, redirect
from tests.conformance.relay import Relay
from tests.conformance.subjects import DISKS, REMOTE, Site, Subject, base_url_of, disk_server, remote_subject

DATA = bytes(range(250)) * 400  # 100 kB


@pytest.mark.parametrize("kind", REMOTE)
def test_refused_connection(site: Site, kind: str, refusing: int) -> None:
    endpoint = site.endpoint(kind, site.at(kind, refusing))
    with pytest.raises(EndpointUnavailableError):
        next(endpoint.read("a"))


@pytest.mark.parametrize("kind", REMOTE)
def test_stranger_is_denied(site: Site, kind: str) -> None:
    subject = remote_subject(kind, site)
    subject.open().upload("a", [DATA], len(DATA))
    with pytest.raises(AccessDeniedError):
        next(site.endpoint(kind, subject.base_url, credentials=site.stranger).read("a"))


@pytest.mark.parametrize("kind", REMOTE)
def test_directory_is_no_file(site: Site, kind: str) -> None:
    endpoint = remote_subject(kind, site).open()
    endpoint.upload("raw/a", [DATA], len(DATA))
    with pytest.raises(ForeignFileError):
        next(endpoint.read("raw"))


@pytest.mark.parametrize("kind", ["root", "roots", "davs"])
def test_server_that_stops_answering(site: Site, kind: str) -> None:
    subject = remote_subject(kind, site)
    data = bytes(100 << 20)
    subject.open().upload("a", [data], len(data))
    parts = urlsplit(subject.base_url)
    assert parts.port is not None
    with Relay(parts.port, open_bytes=1 << 30, answer_bytes=30 << 20) as relay:
        endpoint = site.endpoint(kind, site.at(kind, relay.port, parts.path), stall_timeout_seconds=2)
        came: list[bytes] = []
        with pytest.raises(EndpointUnavailableError):
            came.extend(endpoint.read("a"))
    assert came


@pytest.mark.parametrize("kind", DISKS)
def test_server_that_goes_down(grid_ca: CertificateAuthority, site: Site, kind: str, tmp_path: Path) -> None:
    server = disk_server(kind, tmp_path / "disk", grid_ca)
    server.start()
    try:
        base_url = base_url_of(kind, server)
        endpoint = site.endpoint(kind, base_url)
        data = bytes(200 << 20)
        endpoint.upload("a", [data], len(data))
        with closing(endpoint.read("a")) as pieces:
            next(pieces)
            server.stop()
            with pytest.raises(EndpointUnavailableError):
                b"".join(pieces)
        server.start()
        assert sum(map(len, site.endpoint(kind, base_url).read("a"))) == len(data)
    finally:
        server.close()


@pytest.mark.parametrize("kind", DISKS)
def test_file_that_is_cut_short_while_it_is_read(site: Site, kind: str) -> None:
    subject = remote_subject(kind, site)
    endpoint = subject.open()
    data = bytes(100 << 20)
    endpoint.upload("a", [data], len(data))
    with closing(endpoint.read("a")) as pieces:
        next(pieces)
        os.truncate(site.folder(subject) / "a", 50 << 20)
        with pytest.raises(EndpointUnavailableError):
            b"".join(pieces)


@pytest.mark.parametrize("kind", DISKS)
def test_renewal_in_the_middle(site: Site, kind: str) -> None:
    credentials = RobotCredentials(site.ca, "Robot")
    endpoint = site.endpoint(kind, remote_subject(kind, site).base_url, credentials=credentials)
    data = bytes(40 << 20)
    endpoint.upload("a", [data], len(data))
    with closing(endpoint.read("a")) as pieces:
        came = len(next(pieces))
        credentials.renew()
        assert endpoint.stat("a") is not None
        came += sum(map(len, pieces))
    assert came == len(data)


@pytest.fixture
def real(site: Site) -> Subject:
    """A directory with a file `a` of `DATA` at a real server."""
    subject = remote_subject("davs", site)
    subject.open().upload("a", [DATA], len(DATA))
    return subject


class Liar:
    """Sends everything to a real server, but answers GET by itself."""

    def __init__(self, real: Subject, get: Answer) -> None:
        self._real = urlsplit(real.base_url)
        self._get = get

    def __call__(self, method: str, path: str) -> Answer:
        return self._get if method == "GET" else redirect(f"https://{self._real.netloc}{path}")


def _whole(range_: str = f"0-{len(DATA) - 1}") -> dict[str, str]:
    return {"Content-Range": f"bytes {range_}/{len(DATA)}"}


@pytest.mark.parametrize(
    "get",
    [
        pytest.param(Answer(206, _whole(), DATA[:-1]), id="one byte too few"),
        pytest.param(Answer(206, _whole(), b""), id="no byte"),
        pytest.param(Answer(206, _whole(), DATA[:50_000], length=len(DATA)), id="cut off"),
        pytest.param(Answer(200, {}, DATA[:50_000]), id="200 and too few"),
        pytest.param(Answer(200, {}, b""), id="200 and nothing"),
        pytest.param(Answer(206, _whole("1-100000"), DATA), id="another piece"),
        pytest.param(Answer(206, {}, DATA), id="a piece of which nothing is known"),
        pytest.param(Answer(503, {}, b"later"), id="busy"),
    ],
)
def test_answer_that_is_short_or_wrong(site: Site, real: Subject, tmp_path: Path, get: Answer) -> None:
    with door(site.ca, tmp_path, Liar(real, get)) as port:
        endpoint = site.endpoint("davs", site.at("davs", port, urlsplit(real.base_url).path))
        with pytest.raises(EndpointUnavailableError):
            b"".join(endpoint.read("a"))


def test_file_that_goes_after_the_look(site: Site, real: Subject, tmp_path: Path) -> None:
    with door(site.ca, tmp_path, Liar(real, Answer(404))) as port:
        endpoint = site.endpoint("davs", site.at("davs", port, urlsplit(real.base_url).path))
        with pytest.raises(FileMissingError):
            b"".join(endpoint.read("a"))


def test_server_without_ranges(site: Site, real: Subject, tmp_path: Path) -> None:
    with door(site.ca, tmp_path, Liar(real, Answer(200, {}, DATA))) as port:
        endpoint = site.endpoint("davs", site.at("davs", port, urlsplit(real.base_url).path))
        assert b"".join(endpoint.read("a", offset=777, size_bytes=60_000)) == DATA[777:60_777]


def test_door_that_sends_to_the_file(site: Site, real: Subject, tmp_path: Path) -> None:
    parts = urlsplit(real.base_url)
    with door(site.ca, tmp_path, Liar(real, redirect(f"https://{parts.netloc}{parts.path}/a"))) as port:
        endpoint = site.endpoint("davs", site.at("davs", port, parts.path))
        assert b"".join(endpoint.read("a")) == DATA


@pytest.fixture
def listener() -> Iterator[tuple[int, list[bytes]]]:
    """A port at which somebody listens, and what was sent there."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    heard.append(connection.recv(1 << 16))

        thread = threading.Thread(target=listen)
        thread.start()
        yield server.getsockname()[1], heard
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_door_that_sends_out_of_tls(
    site: Site, real: Subject, tmp_path: Path, listener: tuple[int, list[bytes]]
) -> None:
    port_without_tls, heard = listener
    with door(site.ca, tmp_path, Liar(real, redirect(f"http://localhost:{port_without_tls}/a"))) as port:
        endpoint = site.endpoint("davs", site.at("davs", port, urlsplit(real.base_url).path))
        with pytest.raises(StorageError, match=r"[Pp]rotocol") as caught:
            b"".join(endpoint.read("a"))
    assert caught.value.permanent
    assert heard == []


def test_door_that_sends_in_circles(site: Site, real: Subject, tmp_path: Path) -> None:
    def answer(method: str, path: str) -> Answer:
        where = f"localhost:{port}" if method == "GET" else urlsplit(real.base_url).netloc
        return redirect(f"https://{where}{path}")

    with door(site.ca, tmp_path, answer) as port:
        endpoint = site.endpoint("davs", site.at("davs", port, urlsplit(real.base_url).path))
        with pytest.raises(StorageError, match="redirects"):
            b"".join(endpoint.read("a"))
