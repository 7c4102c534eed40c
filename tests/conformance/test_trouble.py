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
from tests.conformance.relay import Relay
from tests.conformance.subjects import REMOTE, Site, remote_subject

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
    scheme, slashes = ("root", "//") if kind.startswith("root") else ("davs", "/")
    endpoint = site.endpoint(kind, f"{scheme}://localhost:{refusing}{slashes}store")
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
    assert owner.checksum("a", ChecksumKind.ADLER32) == f"{zlib.adler32(b'run'):08x}"
    owner.upload("b", [b"still there"], 11)


@pytest.mark.parametrize("kind", ["root", "davs"])
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


@pytest.mark.parametrize("kind", ["root", "davs"])
def test_renewal_between_calls(site: Site, kind: str) -> None:
    credentials = RobotCredentials(site.ca, "Robot")
    endpoint = site.endpoint(kind, remote_subject(kind, site).base_url, credentials=credentials)
    for name in "abc":
        endpoint.upload(name, [b"run"], 3)
        credentials.renew()
        assert endpoint.stat(name) is not None


@pytest.mark.parametrize("kind", ["root", "davs"])
def test_server_that_goes_down_and_comes_back(
    grid_ca: CertificateAuthority, site: Site, kind: str, tmp_path: Path
) -> None:
    server = DiskServer(tmp_path / "disk", grid_ca, robot="Robot")
    server.start()
    try:
        endpoint = site.endpoint(kind, server.root_url if kind == "root" else server.davs_url)

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
        assert endpoint.checksum("a", ChecksumKind.ADLER32) == f"{zlib.adler32(b'run'):08x}"
    finally:
        server.close()


def test_server_that_never_answers(site: Site) -> None:
    """By root:// only: davix gives a TLS handshake half a minute, whatever it is told."""
    with Relay(None, open_bytes=0) as relay:
        endpoint = site.endpoint("root", f"root://localhost:{relay.port}//disk", stall_timeout_seconds=2)
        with pytest.raises(EndpointUnavailableError):
            endpoint.stat("a")


@pytest.mark.parametrize("kind", ["root", "davs"])
def test_upload_that_stands_still(site: Site, kind: str) -> None:
    base_url = remote_subject(kind, site).base_url
    parts = urlsplit(base_url)
    with Relay(parts.port, open_bytes=10 << 20) as relay:
        through = base_url.replace(f":{parts.port}/", f":{relay.port}/")
        endpoint = site.endpoint(kind, through, stall_timeout_seconds=2)
        with pytest.raises(EndpointUnavailableError):
            endpoint.upload("a", [bytes(1 << 20)] * 100, 100 << 20)
    direct = site.endpoint(kind, base_url)
    partial = direct.stat("a")
    assert partial is not None
    assert partial.size_bytes < 100 << 20
