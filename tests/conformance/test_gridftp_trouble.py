"""A GridFTP server that hangs, runs full, refuses a file, or ends idle sessions."""

import zlib
from collections.abc import Iterator

import pytest

from mover.errors import AccessDeniedError, EndpointFullError, EndpointUnavailableError, ForeignFileError
from mover.model import ChecksumKind
from mover.ports import StorageEndpoint
from mover.sandbox.ca import CertificateAuthority
from mover.sandbox.gridftp import GridFtpServer
from mover.sandbox.process import give_to, server_user
from tests.conformance.subjects import Site
from tests.faults.local_disks import small_disk

MEGABYTE = bytes(1 << 20)


@pytest.fixture(scope="module")
def server(
    site: Site, grid_ca: CertificateAuthority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GridFtpServer]:
    """A server of our own, since others use that of the site."""
    made = GridFtpServer(tmp_path_factory.mktemp("gridftp") / "server", grid_ca, robot="Robot")
    made.start()
    yield made
    made.close()


@pytest.fixture
def endpoint(site: Site, server: GridFtpServer) -> Iterator[StorageEndpoint]:
    made = site.endpoint("gsiftp", server.gsiftp_url)
    yield made
    server.set_disk_full(full=False)
    made.close()


@pytest.fixture
def impatient(site: Site, server: GridFtpServer) -> Iterator[StorageEndpoint]:
    """For a server that hangs."""
    made = site.endpoint("gsiftp", server.gsiftp_url, stall_timeout_seconds=4)
    yield made
    server.set_frozen(frozen=False)
    made.close()


def hanging_after(server: GridFtpServer, megabytes: int) -> Iterator[bytes]:
    for _ in range(megabytes):
        yield MEGABYTE
    server.set_frozen(frozen=True)
    while True:
        yield MEGABYTE


def test_upload_to_a_server_that_hangs(server: GridFtpServer, impatient: StorageEndpoint) -> None:
    with pytest.raises(EndpointUnavailableError, match="timed out") as caught:
        impatient.upload("hanging", hanging_after(server, 20), 1 << 30)
    assert any("may still be there" in note for note in caught.value.__notes__)
    server.set_frozen(frozen=False)
    impatient.remove("hanging")
    assert impatient.stat("hanging") is None


def test_server_that_hangs_at_the_end_of_an_upload(server: GridFtpServer, impatient: StorageEndpoint) -> None:
    def chunks() -> Iterator[bytes]:
        yield MEGABYTE
        yield b"run"
        server.set_frozen(frozen=True)  # the last piece is sent after this

    with pytest.raises(EndpointUnavailableError):
        impatient.upload("end", chunks(), (1 << 20) + 3)
    server.set_frozen(frozen=False)
    impatient.remove("end")


def test_read_from_a_server_that_hangs(server: GridFtpServer, impatient: StorageEndpoint) -> None:
    impatient.upload("read", [MEGABYTE] * 100, 100 << 20)
    pieces = impatient.read("read")
    next(pieces)
    server.set_frozen(frozen=True)
    with pytest.raises(EndpointUnavailableError, match="timed out"):
        b"".join(pieces)


def test_every_other_call_to_a_server_that_hangs(site: Site, server: GridFtpServer, impatient: StorageEndpoint) -> None:
    impatient.upload("there", [b"run"], 3)
    server.set_frozen(frozen=True)
    for use in (
        lambda: impatient.stat("there"),
        lambda: impatient.list("a"),
        lambda: impatient.rename("there", "elsewhere"),
        lambda: impatient.remove("there"),
    ):
        with pytest.raises(EndpointUnavailableError, match="timed out"):
            use()
    server.set_frozen(frozen=False)
    assert impatient.checksum("there", ChecksumKind.ADLER32) == f"{zlib.adler32(b'run'):08x}"


@pytest.mark.parametrize("megabytes", [1, 50])
def test_full_disk_is_told(server: GridFtpServer, endpoint: StorageEndpoint, megabytes: int) -> None:
    """Be it while data is sent, or only when the file is closed, where gfal2 swallows the error."""
    path = f"full{megabytes}"
    server.set_disk_full(full=True)
    with pytest.raises(EndpointFullError, match="No space left"):
        endpoint.upload(path, [MEGABYTE] * megabytes, megabytes << 20)
    assert endpoint.stat(path) is None
    server.set_disk_full(full=False)
    endpoint.upload(path, [MEGABYTE] * megabytes, megabytes << 20)


def test_disk_that_fills_up_in_the_middle_is_told(server: GridFtpServer, endpoint: StorageEndpoint) -> None:
    """It still takes what changes a block that the file has."""
    with small_disk(server.disk_directory / "small", megabytes=8) as small:
        give_to(server_user("nobody"), small)
        with pytest.raises(EndpointFullError, match="No space left"):
            endpoint.upload("small/a", [MEGABYTE] * 20, 20 << 20)
        assert list(small.iterdir()) == []
        endpoint.upload("small/a", [MEGABYTE], 1 << 20)


def test_nothing_is_touched_to_find_a_reason_when_the_name_is_no_longer_ours(
    server: GridFtpServer, endpoint: StorageEndpoint
) -> None:
    server.set_disk_full(full=True)
    with pytest.raises(EndpointUnavailableError):
        endpoint.upload("lost", [MEGABYTE], 1 << 20, may_remove=lambda: False)
    assert (server.disk_directory / "lost").exists()


def test_directory_that_may_not_be_written(server: GridFtpServer, endpoint: StorageEndpoint) -> None:
    closed = server.disk_directory / "closed"
    closed.mkdir()
    give_to(server_user("nobody"), closed)
    closed.chmod(0o555)
    with pytest.raises(AccessDeniedError, match="Permission denied"):
        endpoint.upload("closed/a", [b"run"], 3)
    with pytest.raises(AccessDeniedError):
        endpoint.upload("closed/below/a", [b"run"], 3)


def test_file_where_a_directory_is_needed(endpoint: StorageEndpoint) -> None:
    endpoint.upload("file", [b"run"], 3)
    with pytest.raises(ForeignFileError):
        endpoint.upload("file/a", [b"run"], 3)
    assert endpoint.checksum("file", ChecksumKind.ADLER32) == f"{zlib.adler32(b'run'):08x}"


def test_what_another_made_after_our_look_is_not_removed(
    server: GridFtpServer, endpoint: StorageEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """STOR itself is refused then: what stands there is not ours."""
    taken = server.disk_directory / "taken"
    taken.write_bytes(b"theirs")
    give_to(server_user("nobody"), taken)
    taken.chmod(0o444)
    removed: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(endpoint, "refuse_existing", lambda _path: None)  # we looked before they made it
        patch.setattr(endpoint, "remove", removed.append)
        with pytest.raises(AccessDeniedError):
            endpoint.upload("taken", [b"run"], 3)
    assert removed == []
    assert taken.read_bytes() == b"theirs"


def test_session_that_the_server_has_ended(
    server: GridFtpServer, endpoint: StorageEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint.upload("session", [b"run"], 3)
    server.stop()
    server.start()
    with pytest.raises(EndpointUnavailableError):
        endpoint.stat("session")  # it was in use a moment ago, and broke
    assert endpoint.stat("session") is not None  # but is not used for ever
    # One that has been idle for longer than this may have been ended: it is not used at all.
    monkeypatch.setattr("mover.storage.gsiftp._FRESH_SECONDS", 0.0)
    server.stop()
    server.start()
    assert endpoint.stat("session") is not None
