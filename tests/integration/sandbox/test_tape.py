"""The tape storage element: what it says of a file is the truth, by root:// and by davs://, whatever the drive does."""

from collections.abc import Iterator
from pathlib import Path

import gfal2
import pytest

from mover.errors import SandboxError
from mover.sandbox.ca import CertificateAuthority
from mover.sandbox.tape import Drive, TapeServer
from tests.integration.sandbox.clients import RootClient, eventually, gfal, https
from tests.integration.sandbox.proxies import MemoryProxy

_CONTENT = b"event" * 1000


@pytest.fixture(params=["root", "davs"])
def base_url(request: pytest.FixtureRequest, tape_server: TapeServer) -> str:
    return tape_server.root_url if request.param == "root" else tape_server.davs_url


@pytest.fixture
def root(tape_server: TapeServer, robot_proxy: MemoryProxy) -> RootClient:
    return RootClient(tape_server.root_url, robot_proxy.path, "robot")


@pytest.fixture
def drive(tape_server: TapeServer) -> Iterator[TapeServer]:
    """The tape server, whose drive is ready again after the test."""
    yield tape_server
    tape_server.set_drive(Drive.READY)


def _upload(url: str, ca: CertificateAuthority, proxy: MemoryProxy, tape: TapeServer, folder: str = "new") -> str:
    """Upload by the scheme of the base URL; the name, in that folder."""
    scheme = url.partition(":")[0]
    name = f"{folder}/{scheme}/file"
    if scheme == "davs":
        assert https("PUT", f"{url}/{name}", ca=str(ca.directory), proxy=proxy.path, body=_CONTENT) == 200
    else:
        assert RootClient(tape.root_url, proxy.path, "robot").create(name, _CONTENT) == 0
    return name


def test_the_life_of_a_file(
    tape_server: TapeServer, base_url: str, grid_ca: CertificateAuthority, robot_proxy: MemoryProxy
) -> None:
    context = gfal(robot_proxy.path)
    tape_server.set_drive(Drive.BUSY)
    name = _upload(base_url, grid_ca, robot_proxy, tape_server)
    url = f"{base_url}/{name}"
    assert context.archive_poll(url) == 0
    assert context.getxattr(url, "user.status").strip() == "ONLINE"
    with pytest.raises(SandboxError, match="cannot evict"):
        tape_server.evict(name)

    tape_server.set_drive(Drive.READY)
    eventually(lambda: context.archive_poll(url) == 1)
    assert context.getxattr(url, "user.status").strip() == "ONLINE_AND_NEARLINE"
    assert (tape_server.tape_directory / name).read_bytes() == _CONTENT

    tape_server.evict(name)
    assert context.archive_poll(url) == 1
    assert context.getxattr(url, "user.status").strip() == "NEARLINE"
    assert context.stat(url).st_size == len(_CONTENT)

    _, token = context.bring_online(url, 60, 60, True)
    eventually(lambda: context.bring_online_poll(url, token) == 1)
    assert context.archive_poll(url) == 1
    assert (tape_server.disk_directory / name).read_bytes() == _CONTENT

    context.rename(url, f"{url}.renamed")
    assert context.archive_poll(f"{url}.renamed") == 1
    context.unlink(f"{url}.renamed")
    assert not (tape_server.tape_directory / f"{name}.renamed").exists()
    with pytest.raises(gfal2.GError):
        context.archive_poll(f"{url}.renamed")


def test_a_broken_drive_archives_nothing_until_it_is_mended(
    drive: TapeServer, root: RootClient, robot_proxy: MemoryProxy
) -> None:
    drive.set_drive(Drive.BROKEN)
    assert root.create("broken/file", _CONTENT) == 0
    context, url = gfal(robot_proxy.path), f"{drive.root_url}/broken/file"
    eventually(lambda: "tape_write.sh ended with status" in (drive.directory / "log/frm_xfrd.log").read_text())
    assert context.archive_poll(url) == 0
    assert [entry.name for entry in root.files.dirlist(root.path("broken"))[1]] == ["file"]
    drive.set_drive(Drive.READY)
    eventually(lambda: context.archive_poll(url) == 1)


def test_bytes_changed_behind_the_back_are_not_on_tape(
    tape_server: TapeServer, root: RootClient, robot_proxy: MemoryProxy
) -> None:
    assert root.create("changed/file", _CONTENT) == 0
    context = gfal(robot_proxy.path)
    urls = [f"{base}/changed/file" for base in (tape_server.root_url, tape_server.davs_url)]
    eventually(lambda: context.archive_poll(urls[0]) == 1)
    tape_server.set_drive(Drive.BUSY)
    (tape_server.disk_directory / "changed/file").write_bytes(_CONTENT[::-1])
    assert [context.archive_poll(url) for url in urls] == [0, 0]
    assert context.getxattr(urls[0], "user.status").strip() == "ONLINE"
    tape_server.set_drive(Drive.READY)


def test_a_name_that_is_on_tape_only_is_taken(
    tape_server: TapeServer, root: RootClient, robot_proxy: MemoryProxy
) -> None:
    assert root.create("taken/file", _CONTENT) == 0
    context = gfal(robot_proxy.path)
    eventually(lambda: context.archive_poll(f"{tape_server.root_url}/taken/file") == 1)
    tape_server.evict("taken/file")
    assert root.create("taken/file", b"other") != 0
    assert (tape_server.tape_directory / "taken/file").read_bytes() == _CONTENT


def test_a_file_can_be_lost_on_tape(
    tape_server: TapeServer, base_url: str, grid_ca: CertificateAuthority, robot_proxy: MemoryProxy
) -> None:
    name = _upload(base_url, grid_ca, robot_proxy, tape_server, folder="lost")
    context, url = gfal(robot_proxy.path), f"{base_url}/{name}"
    with pytest.raises(SandboxError, match="cannot lose"):
        tape_server.lose(f"{name}.other")
    eventually(lambda: context.archive_poll(url) == 1)
    tape_server.evict(name)
    tape_server.lose(name)
    # The tape system still knows its name and its size, and nothing else.
    assert context.stat(url).st_size == len(_CONTENT)
    assert not (tape_server.tape_directory / name).exists()
    if base_url.startswith("root"):
        assert context.getxattr(url, "user.status") == "UNKNOWN"
        assert context.archive_poll(url) == 0
    else:
        with pytest.raises(gfal2.GError, match="reported as LOST"):
            context.getxattr(url, "user.status")
    context.unlink(url)
    with pytest.raises(gfal2.GError):
        context.stat(url)


def test_nobody_else_is_told_anything(base_url: str, other_proxy: MemoryProxy, robot_proxy: MemoryProxy) -> None:
    with pytest.raises(gfal2.GError, match=r"(?i)permission"):
        gfal(other_proxy.path).archive_poll(f"{base_url}/whatever")
    with pytest.raises(gfal2.GError, match=r"(?i)exist"):
        gfal(robot_proxy.path).archive_poll(f"{base_url}/whatever")


def test_a_server_that_never_started_can_be_closed(grid_ca: CertificateAuthority, tmp_path: Path) -> None:
    server = TapeServer(tmp_path / "tape", grid_ca, robot="Robot")
    server.close()
    assert _programs_in(server, b"") == []


def test_stopping_ends_a_copy_under_way_and_starting_resumes_it(
    drive: TapeServer, root: RootClient, robot_proxy: MemoryProxy
) -> None:
    drive.set_drive(Drive.BUSY)
    assert root.create("resumed/file", _CONTENT) == 0
    eventually(lambda: bool(_programs_in(drive, b"tape_write.sh")))
    drive.stop()
    assert _programs_in(drive, b"") == []
    drive.start()
    drive.set_drive(Drive.READY)
    eventually(lambda: gfal(robot_proxy.path).archive_poll(f"{drive.root_url}/resumed/file") == 1)


def _programs_in(server: TapeServer, word: bytes) -> list[str]:
    """The processes that work in the server's directory and have `word` in their arguments."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            inside = (process / "cwd").readlink() == server.directory
            arguments = (process / "cmdline").read_bytes()
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            continue
        if inside and word in arguments:
            found.append(process.name)
    return found
