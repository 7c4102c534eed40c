"""What the port promises when the storage element is down, does not answer, or does not know us."""

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from mover.errors import AccessDeniedError, EndpointUnavailableError
from mover.model import ChecksumKind
from mover.ports import StorageEndpoint
from mover.sandbox.ca import CertificateAuthority
from mover.sandbox.xrootd import DiskServer
from mover.storage.file import FileEndpoint
from tests.conformance.credentials import RobotCredentials
from tests.conformance.frozen import frozen_later
from tests.conformance.relay import Relay
from tests.conformance.subjects import DISKS, PLAIN, REMOTE, Site, adler32_of, base_url_of, disk_server, remote_subject

Use = Callable[[StorageEndpoint], object]

EVERY_CALL: list[Use] = [
    lambda endpoint: endpoint.stat("a"),
    lambda endpoint: endpoint.list("a"),
    lambda endpoint: endpoint.checksum("a", ChecksumKind.ADLER32),
    lambda endpoint: endpoint.upload("a", [b"x"], 1),
    lambda endpoint: endpoint.upload("a", [], 0),
    lambda endpoint: endpoint.rename("a", "b"),
    lambda endpoint: endpoint.remove("a"),
]


@pytest.mark.parametrize("kind", REMOTE)
def test_refused_connection(site: Site, kind: str, refusing: int) -> None:
    endpoint = site.endpoint(kind, site.at(kind, refusing))
    for use in EVERY_CALL:
        with pytest.raises(EndpointUnavailableError):
            use(endpoint)
    if endpoint.capabilities.tape:
        with pytest.raises(EndpointUnavailableError):
            endpoint.on_tape("a")


def test_disk_that_is_not_mounted(tmp_path: Path) -> None:
    endpoint = FileEndpoint(name="disk", base_url=(tmp_path / "gone").as_uri())
    for use in EVERY_CALL:
        with pytest.raises(EndpointUnavailableError):
            use(endpoint)


@pytest.mark.parametrize("kind", REMOTE)
def test_stranger_is_denied(site: Site, kind: str) -> None:
    subject = remote_subject(kind, site)
    owner = subject.open()
    owner.upload("a", [b"run"], 3)
    stranger = site.endpoint(kind, subject.base_url, credentials=site.stranger)
    for use in EVERY_CALL:
        with pytest.raises(AccessDeniedError):
            use(stranger)
    assert adler32_of(owner, "a") == f"{zlib.adler32(b'run'):08x}"
    owner.upload("b", [b"still there"], 11)


@pytest.mark.parametrize("kind", REMOTE)
def test_ended_credential_is_refused(site: Site, kind: str) -> None:
    """By davs://, the connection may break before davix has read the alert that says why."""
    subject = remote_subject(kind, site)
    ended = site.endpoint(kind, subject.base_url, credentials=RobotCredentials(site.ca, "Robot", hours=-1))
    broken = (EndpointUnavailableError,) if kind.startswith("davs") else ()
    for use in EVERY_CALL:
        with pytest.raises((AccessDeniedError, *broken)):
            use(ended)
    assert subject.open().list("a") == []


@pytest.mark.parametrize("kind", DISKS)
def test_server_of_an_unknown_ca_is_not_talked_to(site: Site, kind: str, tmp_path: Path) -> None:
    """It gets no data and does not learn who we are. (By roots://, gfal2 does not tell why.)

    davix, however, shows our certificate, though not our key, before it judges the server's.
    """
    other = CertificateAuthority(tmp_path / "ca")
    server = disk_server(kind, tmp_path / "server", other)
    server.start()
    try:
        endpoint = site.endpoint(kind, base_url_of(kind, server))
        for use in EVERY_CALL:
            with pytest.raises((AccessDeniedError, EndpointUnavailableError)):
                use(endpoint)
        with pytest.raises(AccessDeniedError):
            endpoint.upload("a", [b"run"], 3)
        if kind != "davs":
            logs = [log.read_text() for log in (server.directory / "log").iterdir()]
            assert not any("CN=Robot" in log for log in logs)
    finally:
        server.close()


@pytest.mark.parametrize("kind", DISKS)
def test_new_proxy_acts_as_itself(site: Site, kind: str) -> None:
    """Though its memfd has the number of the one before, whose identity and connections the libraries know."""
    credentials = RobotCredentials(site.ca, "Robot")
    endpoint = site.endpoint(kind, remote_subject(kind, site).base_url, credentials=credentials)
    endpoint.upload("a", [b"run"], 3)
    before = credentials.proxy().path
    credentials.become(site.stranger)
    endpoint.close()
    assert credentials.proxy().path == before
    for use in EVERY_CALL:
        with pytest.raises(AccessDeniedError):
            use(endpoint)
    credentials.become(site.robot)
    endpoint.upload("b", [b"run"], 3)


@pytest.mark.parametrize("kind", DISKS)
def test_renewal_between_calls(site: Site, kind: str) -> None:
    credentials = RobotCredentials(site.ca, "Robot")
    endpoint = site.endpoint(kind, remote_subject(kind, site).base_url, credentials=credentials)
    for name in "abc":
        endpoint.upload(name, [b"run"], 3)
        credentials.renew()
        assert endpoint.stat(name) is not None


@pytest.mark.parametrize("kind", DISKS)
def test_server_that_goes_down_and_comes_back(
    grid_ca: CertificateAuthority, site: Site, kind: str, tmp_path: Path
) -> None:
    server = disk_server(kind, tmp_path / "disk", grid_ca)
    server.start()
    try:
        endpoint = site.endpoint(kind, base_url_of(kind, server))

        def stopped_midway() -> Iterator[bytes]:
            for number in range(200):
                if number == 20:
                    server.stop()
                yield bytes(1 << 20)

        with pytest.raises(EndpointUnavailableError) as caught:
            endpoint.upload("a", stopped_midway(), 200 << 20)
        assert any("may still be there" in note for note in caught.value.__notes__)
        with pytest.raises(EndpointUnavailableError):
            endpoint.stat("a")
        server.start()
        endpoint.remove("a")
        endpoint.upload("a", [b"run"], 3)
        assert adler32_of(endpoint, "a") == f"{zlib.adler32(b'run'):08x}"
    finally:
        server.close()


@pytest.mark.parametrize("kind", ["davs", PLAIN])
def test_connections_that_the_server_has_ended(
    grid_ca: CertificateAuthority, site: Site, kind: str, tmp_path: Path
) -> None:
    """They are kept for the next call, which finds out; looks are made again then."""
    server = disk_server(kind, tmp_path / "disk", grid_ca)
    server.start()
    try:
        endpoint = site.endpoint(kind, base_url_of(kind, server))
        endpoint.upload("there/a", [b"run"], 3)
        looks: list[Use] = [
            lambda endpoint: endpoint.stat("there/a"),
            lambda endpoint: endpoint.list("there"),
            lambda endpoint: endpoint.directories(""),
            lambda endpoint: adler32_of(endpoint, "there/a"),
        ]
        for look in looks:
            before = look(endpoint)
            assert before
            endpoint.stat("there/a")
            server.stop()
            server.start()
            assert look(endpoint) == before
    finally:
        server.close()


@pytest.mark.parametrize("kind", ["root", "roots"])
def test_deadlines_are_our_own_when_a_server_hangs_in_an_upload(
    grid_ca: CertificateAuthority, site: Site, kind: str, tmp_path: Path
) -> None:
    """Also those of the clean-up: XrdCl's defaults would hold the lane for minutes."""
    server = DiskServer(tmp_path / "disk", grid_ca, robot="Robot")
    server.start()
    try:
        endpoint = site.endpoint(kind, base_url_of(kind, server), stall_timeout_seconds=2, checksum_timeout_seconds=2)
        endpoint.directories("")
        with frozen_later(server) as freeze:

            def chunks() -> Iterator[bytes]:
                yield from [bytes(4 << 20)] * 2
                freeze()
                yield from [bytes(4 << 20)] * 10

            with pytest.raises(EndpointUnavailableError, match="nothing was taken for 2 s") as caught:
                endpoint.upload("a", chunks(), 48 << 20)
            assert "still be there" in str(caught.value.__notes__)
            assert "Operation expired" in str(caught.value.__notes__)
            for look in (lambda: endpoint.stat("a"), lambda: endpoint.checksum("a", ChecksumKind.ADLER32)):
                with pytest.raises(EndpointUnavailableError, match=r"Operation expired|Socket timeout"):
                    look()
    finally:
        server.close()


@pytest.mark.parametrize("kind", ["root", "roots", "gsiftp"])
def test_server_that_never_answers(site: Site, kind: str) -> None:
    """Not by davs://: davix gives a TLS handshake half a minute, whatever it is told."""
    with Relay(None, open_bytes=0) as relay:
        endpoint = site.endpoint(kind, site.at(kind, relay.port), stall_timeout_seconds=2)
        with pytest.raises(EndpointUnavailableError):
            endpoint.stat("a")


@pytest.mark.parametrize("kind", ["root", "roots", "davs", PLAIN])
def test_upload_that_stands_still(site: Site, kind: str) -> None:
    """For gsiftp://, see test_gridftp_trouble.py: its data goes another way."""
    subject = remote_subject(kind, site)
    parts = urlsplit(subject.base_url)
    with Relay(parts.port, open_bytes=10 << 20) as relay:
        endpoint = site.endpoint(kind, site.at(kind, relay.port, parts.path), stall_timeout_seconds=2)
        with pytest.raises(EndpointUnavailableError):
            endpoint.upload("a", [bytes(1 << 20)] * 100, 100 << 20)
    partial = subject.open().stat("a")
    if kind == PLAIN:  # Apache gives a file its name when it is whole
        assert partial is None
    else:
        assert partial is not None
        assert partial.size_bytes < 100 << 20
