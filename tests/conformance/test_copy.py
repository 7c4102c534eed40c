"""What the port promises of third-party copies, held against pairs of storage elements, real ones where installed."""

import os
import secrets
import signal
import subprocess
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from mover.errors import (
    AccessDeniedError,
    EndpointFullError,
    EndpointUnavailableError,
    FileExistsAtEndpointError,
    FileMissingError,
    NotOnlineError,
    ThirdPartyCopyError,
)
from mover.model import ChecksumKind, Locality
from mover.ports import CredentialSource, StorageEndpoint
from mover.sandbox.gridftp import GridFtpServer
from mover.sandbox.process import together
from mover.sandbox.server import RobotServer
from mover.sandbox.xrootd import DiskServer
from mover.storage.memory import MemoryEndpoint
from tests.conformance.credentials import RobotCredentials
from tests.conformance.frozen import frozen_later
from tests.conformance.relay import Relay
from tests.conformance.subjects import Site, base_url_of, eventually

SOURCE = "raw/00100/00123.tar"
TARGET = "raw/copies/00100/00123.tar"
XROOTD = ("root", "davs")
PROTOCOLS = (*XROOTD, "gsiftp")
REAL = (*PROTOCOLS, "root to tape", "root from tape", "davs to tape", "davs from tape")
ENDLESS = 1 << 40
#: 1.3.6.1.4.1.3536.1.1.1.9, encoded.
_LIMITED_LANGUAGE = bytes.fromhex("2b060104019b5001010109")
#: More than the largest of all buffers on the way.
LARGE = 64 << 20


class StopError(Exception):
    """What the tests' `alive` raises."""


@dataclass(frozen=True)
class Pair:
    """Two storage elements of one kind, each with a fresh directory of its own."""

    source: StorageEndpoint
    target: StorageEndpoint

    def copy(self, size: int, alive: Callable[[int], None] = lambda _: None) -> None:
        """Copy the tests' file."""
        self.target.copy_from(self.source, SOURCE, TARGET, size, alive=alive)

    def nothing_left(self) -> bool:
        """No file under the target's name, nor one of another name beside it."""
        return self.target.stat(TARGET) is None and self.target.list(TARGET.rpartition("/")[0]) == []


class Pairs:
    """The site's servers and two more, and pairs of adapters for them."""

    def __init__(self, site: Site, directory: Path) -> None:
        self.site = site
        self.xrootd = DiskServer(directory / "far", site.ca, robot="Robot")
        self.gridftp = GridFtpServer(directory / "gridftp", site.ca, robot="Robot")
        self.plain = DiskServer(directory / "plain", site.ca, robot="Robot", third_party_copy=False)
        together(self.xrootd.start, self.gridftp.start, self.plain.start)

    def close(self) -> None:
        """Stop the servers."""
        together(self.xrootd.close, self.gridftp.close, self.plain.close)

    def far(self, protocol: str) -> RobotServer:
        """The server that is copied from."""
        return self.gridftp if protocol == "gsiftp" else self.xrootd

    def near(self, protocol: str) -> RobotServer:
        """The server that is copied to."""
        return self.site.gridftp if protocol == "gsiftp" else self.site.disk

    def end(
        self,
        protocol: str,
        server: RobotServer,
        *,
        port: int | None = None,
        credentials: CredentialSource | None = None,
        stall_timeout_seconds: float = 30.0,
        folder: str | None = None,
    ) -> StorageEndpoint:
        """An adapter for a fresh directory of that server, or for `folder`; through `port` if it leads there."""
        base_url = base_url_of(protocol, server)
        if port is not None:
            base_url = base_url.replace(f":{urlsplit(base_url).port}/", f":{port}/")
        return self.site.endpoint(
            f"{protocol}-tape" if server is self.site.tape else protocol,
            f"{base_url}/{folder or uuid4().hex}",
            credentials=credentials,
            stall_timeout_seconds=stall_timeout_seconds,
        )

    def pair(self, kind: str) -> Pair:
        """A pair of that kind: a protocol, and `to tape` or `from tape` if not from disk to disk."""
        protocol, _, tape = kind.partition(" ")
        source = self.site.tape if tape == "from tape" else self.far(protocol)
        target = self.site.tape if tape == "to tape" else self.near(protocol)
        return Pair(self.end(protocol, source), self.end(protocol, target))


@pytest.fixture(scope="session")
def pairs(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pairs]:
    """The real servers."""
    made = Pairs(site, tmp_path_factory.mktemp("pairs"))
    yield made
    made.close()


@pytest.fixture(params=["memory", *REAL])
def pair(request: pytest.FixtureRequest) -> Pair:
    """Each kind of pair in turn."""
    if request.param == "memory":
        return Pair(MemoryEndpoint(name="source"), MemoryEndpoint(name="target"))
    pairs: Pairs = request.getfixturevalue("pairs")
    return pairs.pair(request.param)


def put(endpoint: StorageEndpoint, path: str, size: int) -> bytes:
    """Store a file of random bytes."""
    data = secrets.token_bytes(size)
    endpoint.upload(path, [data], size)
    return data


def adler32(data: bytes) -> str:
    return f"{zlib.adler32(data):08x}"


def once_after(calls: int, do: Callable[[], object]) -> Callable[[int], None]:
    """An `alive` that does it in that call of all."""
    left = iter(range(calls, 0, -1))

    def alive(_done: int) -> None:
        if next(left, 0) == 1:
            do()

    return alive


def stop() -> None:
    raise StopError


@pytest.mark.parametrize("size", [0, 1, 9 << 20])
def test_a_copy_has_the_same_bytes(pair: Pair, size: int) -> None:
    data = put(pair.source, SOURCE, size)
    seen: list[tuple[int, int]] = []
    pair.copy(size, lambda done: seen.append((threading.get_ident(), done)))
    for end, path in ((pair.target, TARGET), (pair.source, SOURCE)):
        assert b"".join(end.read(path)) == data
        assert end.checksum(path, ChecksumKind.ADLER32) == adler32(data)
    assert {thread for thread, _ in seen} == {threading.get_ident()}
    assert [done for _, done in seen] == sorted(done for _, done in seen)
    assert seen[-1][1] == size


def test_nothing_is_overwritten(pair: Pair) -> None:
    put(pair.source, SOURCE, 1000)
    theirs = put(pair.target, TARGET, 500)
    with pytest.raises(FileExistsAtEndpointError):
        pair.copy(1000)
    assert b"".join(pair.target.read(TARGET)) == theirs


@pytest.mark.parametrize("kind", XROOTD)
def test_the_storage_itself_overwrites_nothing(pairs: Pairs, kind: str) -> None:
    """Somebody stores a file after we have looked and before the copy begins."""
    pair = pairs.pair(kind)
    put(pair.source, SOURCE, 1000)
    theirs: list[bytes] = []
    with pytest.raises(FileExistsAtEndpointError):
        pair.copy(1000, once_after(1, lambda: theirs.append(put(pair.target, TARGET, 500))))
    assert b"".join(pair.target.read(TARGET)) == theirs[0]


def test_a_source_that_is_missing(pair: Pair) -> None:
    with pytest.raises(FileMissingError):
        pair.copy(1000)
    assert pair.nothing_left()


@pytest.mark.parametrize("kind", ["root", "davs"])
def test_a_source_that_is_on_tape_only(pairs: Pairs, kind: str) -> None:
    tape, folder = pairs.site.tape, uuid4().hex
    source = pairs.end(kind, tape, folder=folder)
    pair = Pair(source, pairs.end(kind, pairs.near(kind)))
    data = put(source, SOURCE, 1000)
    assert eventually(lambda: source.locality(SOURCE) is Locality.DISK_AND_TAPE)
    tape.evict(f"{folder}/{SOURCE}")
    with pytest.raises(NotOnlineError):
        pair.copy(1000)
    assert pair.nothing_left()
    source.bring_online(SOURCE)
    assert eventually(lambda: source.locality(SOURCE).online)
    pair.copy(1000)
    assert b"".join(pair.target.read(TARGET)) == data


@pytest.mark.parametrize("declared", [999, 1001])
def test_a_source_of_another_size(pair: Pair, declared: int) -> None:
    put(pair.source, SOURCE, 1000)
    with pytest.raises(ThirdPartyCopyError):
        pair.copy(declared)
    assert pair.nothing_left()


@pytest.mark.parametrize("calls", [1, 3])
def test_what_alive_raises_ends_the_copy(pair: Pair, calls: int) -> None:
    put(pair.source, SOURCE, LARGE)
    with pytest.raises(StopError) as caught:
        pair.copy(LARGE, once_after(calls, stop))
    assert not getattr(caught.value, "__notes__", [])
    assert pair.nothing_left()
    data = put(pair.target, TARGET, 1000)
    assert b"".join(pair.target.read(TARGET)) == data


def test_nothing_is_removed_without_leave(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    put(pair.source, SOURCE, LARGE)
    asked: list[bool] = []
    removed: list[str] = []

    def no() -> bool:
        asked.append(True)
        return False

    monkeypatch.setattr(pair.target, "remove", removed.append)
    with pytest.raises(StopError):
        pair.target.copy_from(pair.source, SOURCE, TARGET, LARGE, alive=once_after(2, stop), may_remove=no)
    assert (asked, removed) == ([True], [])


def test_unlike_protocols(pairs: Pairs) -> None:
    memory = MemoryEndpoint(name="memory")
    root, roots, davs, gsiftp = (pairs.pair(kind).source for kind in ("root", "roots", "davs", "gsiftp"))
    assert not roots.capabilities.third_party_copy, "it would go without TLS"
    for source, target in (
        (memory, root),
        (memory, davs),
        (root, davs),
        (davs, gsiftp),
        (gsiftp, root),
        (root, memory),
    ):
        with pytest.raises(ThirdPartyCopyError):
            target.copy_from(source, SOURCE, TARGET, 1, alive=lambda _: None)


@pytest.mark.parametrize("kind", [kind for kind in REAL if kind != "gsiftp"])
def test_no_byte_goes_through_this_machine(pairs: Pairs, kind: str) -> None:
    """All that this process, and the one that it starts, say to the target goes through the relay."""
    protocol, _, tape = kind.partition(" ")
    server = pairs.site.tape if tape == "to tape" else pairs.near(protocol)
    source = pairs.pair(kind).source
    data = put(source, SOURCE, LARGE)
    port = urlsplit(base_url_of(protocol, server)).port
    with Relay(port, open_bytes=ENDLESS) as relay:
        target = pairs.end(protocol, server, port=relay.port)
        Pair(source, target).copy(LARGE)
        assert target.checksum(TARGET, ChecksumKind.ADLER32) == adler32(data)
        copied_bytes = relay.sent_bytes
        target.upload("streamed", [data], LARGE)
    assert copied_bytes < 1 << 20
    assert relay.sent_bytes > copied_bytes + LARGE


@pytest.mark.parametrize("kind", XROOTD)
@pytest.mark.parametrize("unable", ["source", "target"])
def test_servers_that_cannot_do_it_are_not_helped(pairs: Pairs, kind: str, unable: str) -> None:
    """gfal2 would stream through this machine, and not say so, where there is no macaroon."""
    if kind == "root" and unable == "source":
        pytest.skip("by root://, whoever can be read from can be copied from")
    ends = {"source": pairs.far(kind), "target": pairs.near(kind), unable: pairs.plain}
    pair = Pair(pairs.end(kind, ends["source"]), pairs.end(kind, ends["target"]))
    put(pair.source, SOURCE, 9 << 20)
    with pytest.raises(ThirdPartyCopyError):
        pair.copy(9 << 20)
    assert pair.nothing_left()


@pytest.mark.parametrize("kind", PROTOCOLS)
def test_a_stranger_is_denied(pairs: Pairs, kind: str) -> None:
    folder = uuid4().hex
    far, near = pairs.far(kind), pairs.near(kind)
    put(pairs.end(kind, far, folder=folder), SOURCE, 1000)
    ends = [pairs.end(kind, server, folder=folder, credentials=pairs.site.stranger) for server in (far, near)]
    with pytest.raises(AccessDeniedError):
        Pair(*ends).copy(1000)
    assert Pair(ends[0], pairs.end(kind, near, folder=folder)).nothing_left()


@pytest.mark.parametrize("kind", PROTOCOLS)
def test_a_full_target(pairs: Pairs, kind: str) -> None:
    pair = pairs.pair(kind)
    put(pair.source, SOURCE, 9 << 20)
    pairs.near(kind).set_disk_full(full=True)
    try:
        with pytest.raises(EndpointFullError):
            pair.copy(9 << 20)
        assert pair.nothing_left()
    finally:
        pairs.near(kind).set_disk_full(full=False)


def test_a_full_target_that_tells_after_the_source(pairs: Pairs) -> None:
    """The source knows only that the connection between the two broke; the reason is the target's."""
    source, near = pairs.pair("gsiftp").source, pairs.near("gsiftp")
    put(source, SOURCE, LARGE)
    near.set_disk_full(full=True)
    try:
        with Relay(near.port("GSIFTP_PORT"), open_bytes=ENDLESS, answer_delay_seconds=0.05) as relay:
            pair = Pair(source, pairs.end("gsiftp", near, port=relay.port))
            with pytest.raises(EndpointFullError):
                pair.copy(LARGE)
            assert pair.nothing_left()
    finally:
        near.set_disk_full(full=False)


@pytest.mark.parametrize("kind", PROTOCOLS)
def test_a_source_that_hangs(pairs: Pairs, kind: str) -> None:
    folder = uuid4().hex
    source = pairs.end(kind, pairs.far(kind), folder=folder)
    target = pairs.end(kind, pairs.near(kind), stall_timeout_seconds=3)
    put(source, SOURCE, LARGE)
    with frozen_later(pairs.far(kind)) as freeze, pytest.raises(EndpointUnavailableError):
        Pair(source, target).copy(LARGE, once_after(1, freeze))
    assert Pair(source, target).nothing_left()
    # The storages may know later than we do, and must not bring it back.
    assert source.stat(SOURCE) is not None
    assert not eventually(lambda: not Pair(source, target).nothing_left(), seconds=5)


@pytest.mark.parametrize("kind", XROOTD)
@pytest.mark.parametrize(("then", "error"), [("it stays so", "no progress"), ("the source goes down", None)])
def test_a_line_between_the_storages_that_breaks(pairs: Pairs, kind: str, then: str, error: str | None) -> None:
    """In the middle of the file."""
    far, folder = pairs.far(kind), uuid4().hex
    put(pairs.end(kind, far, folder=folder), SOURCE, LARGE)
    port = urlsplit(base_url_of(kind, far)).port
    where = uuid4().hex
    target = pairs.end(kind, pairs.near(kind), folder=where, stall_timeout_seconds=5)
    with Relay(port, open_bytes=ENDLESS, answer_bytes=LARGE // 2) as relay:
        pair = Pair(pairs.end(kind, far, port=relay.port, folder=folder), target)
        break_off = relay.hang_up if then == "the source goes down" else lambda: None
        with pytest.raises(EndpointUnavailableError, match=error):
            pair.copy(LARGE, once_after(3, break_off))
    assert pair.nothing_left()
    data = b"".join(pairs.end(kind, far, folder=folder).read(SOURCE))
    Pair(pairs.end(kind, far, folder=folder), pairs.end(kind, pairs.near(kind), folder=where)).copy(LARGE)
    assert target.checksum(TARGET, ChecksumKind.ADLER32) == adler32(data)


@pytest.mark.parametrize("kind", PROTOCOLS)
def test_limited_proxies_copy_too(pairs: Pairs, kind: str) -> None:
    limited = RobotCredentials(pairs.site.ca, "Robot", limited=True)
    pair = Pair(*(pairs.end(kind, at, credentials=limited) for at in (pairs.far(kind), pairs.near(kind))))
    data = put(pair.source, SOURCE, 9 << 20)
    pair.copy(9 << 20)
    assert pair.target.checksum(TARGET, ChecksumKind.ADLER32) == adler32(data)


@pytest.mark.parametrize("limited", [False, True])
def test_the_target_is_given_a_proxy_and_not_our_key(pairs: Pairs, limited: bool) -> None:
    """By root://, it keeps the delegated proxy in a file while it copies: no longer valid, and no fuller, than ours."""
    credentials = RobotCredentials(pairs.site.ca, "Robot", limited=limited)
    ours, folder = Path(credentials.proxy().path).read_bytes(), uuid4().hex
    put(pairs.end("root", pairs.xrootd, folder=folder), SOURCE, LARGE)
    store = pairs.site.disk.directory / "adm/.ofs/.tpccreds"
    given: list[bytes] = []

    def look(_done: int) -> None:
        given.extend(file.read_bytes() for file in store.iterdir())
        if given:
            raise StopError

    with Relay(pairs.xrootd.port("ROOT_PORT"), open_bytes=ENDLESS, answer_bytes=LARGE // 2) as relay:
        source = pairs.end("root", pairs.xrootd, port=relay.port, folder=folder, credentials=credentials)
        with pytest.raises(StopError):
            Pair(source, pairs.end("root", pairs.site.disk, credentials=credentials)).copy(LARGE, look)
    key, our_key = (serialization.load_pem_private_key(pem, None).public_key() for pem in (given[0], ours))
    assert key != our_key
    theirs, signer, *_ = x509.load_pem_x509_certificates(given[0])
    assert signer.public_key() == our_key
    assert theirs.public_key() == key
    assert theirs.not_valid_after_utc <= signer.not_valid_after_utc
    assert (_LIMITED_LANGUAGE in _der(signer)) == limited
    assert eventually(lambda: not list(store.iterdir()))


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def test_gridftp_sends_its_bytes_past_this_machine(pairs: Pairs) -> None:
    """They take connections of their own: the process that copies has none but those to the servers' control ports."""
    pair = pairs.pair("gsiftp")
    data = put(pair.source, SOURCE, LARGE)
    seen: set[int] = set()

    def look(_done: int) -> None:
        # As long as it lasts: a fast copy is over before it is looked at a second time.
        while helpers := _helpers():
            seen.update(port for helper in helpers for port in _remote_ports(helper))

    pair.copy(LARGE, look)
    assert pair.target.checksum(TARGET, ChecksumKind.ADLER32) == adler32(data)
    assert seen == {server.port("GSIFTP_PORT") for server in (pairs.far("gsiftp"), pairs.near("gsiftp"))}


_DOUBLE = """
import socket, sys, time
line = socket.socket(fileno=int(sys.argv[1]))
line.recv(4096)
line.sendall({said!r})
while line.recv(4096):
    pass
"""


@pytest.mark.parametrize(
    ("said", "error"),
    [
        pytest.param(b'{"type": "streamed"}\n', "through this machine", id="streams"),
        pytest.param(b"x" * 200_000, "nonsense", id="says too much"),
        pytest.param(b"no JSON\n", "nonsense", id="is no JSON"),
    ],
)
def test_what_a_double_of_gfal2_says(
    pairs: Pairs, said: bytes, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gfal2 itself streams where it finds no other way, unless it is told not to."""
    (tmp_path / "double_of_gfal2.py").write_text(_DOUBLE.format(said=said))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("mover.storage.gfalcopy._PROGRAM", "double_of_gfal2")
    pair = pairs.pair("root")
    put(pair.source, SOURCE, 1000)
    with pytest.raises(ThirdPartyCopyError, match=error):
        pair.copy(1000)
    assert _helpers("double_of_gfal2") == []


def _remote_ports(process: int) -> list[int]:
    """Where its TCP connections lead to."""
    sockets = set()
    with suppress(FileNotFoundError):  # it has ended
        for link in Path(f"/proc/{process}/fd").iterdir():
            with suppress(FileNotFoundError):
                sockets.add(link.readlink().name)
    table = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()]
    return [int(row[2].rpartition(":")[2], 16) for row in table if f"socket:[{row[9]}]" in sockets]


def _helpers(program: str = "gfalcopy_process") -> list[int]:
    """The processes that this one has started to copy."""
    found = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(os.getpid())], capture_output=True, text=True, check=True, timeout=30
    )
    return [int(line.split()[0]) for line in found.stdout.splitlines() if program in line]


@pytest.mark.parametrize(("by", "error"), [(signal.SIGKILL, "without a word"), (signal.SIGSTOP, "no progress")])
def test_a_library_that_crashes_or_hangs(pairs: Pairs, by: signal.Signals, error: str) -> None:
    source, target = pairs.pair("root").source, pairs.end("root", pairs.near("root"), stall_timeout_seconds=3)
    put(source, SOURCE, LARGE)

    def strike() -> None:
        (helper,) = _helpers()
        os.kill(helper, by)

    with pytest.raises(EndpointUnavailableError, match=error):
        Pair(source, target).copy(LARGE, once_after(3, strike))
    assert _helpers() == []
    assert Pair(source, target).nothing_left()
