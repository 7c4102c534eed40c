"""Endpoints that go away, hang, or lose connections, before, during and after an upload."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.faults.evidence import assert_safe_everywhere
from tests.faults.rooms import Room
from tests.faults.toxic_proxy import WELL, Toxic, ToxicProxy
from tests.integration.mover.box import Box, wait_for

_MEGABYTE = 1 << 20
_DISK = 'name = "brunel-disk"'
#: The disk's own entry: impatient, and slow enough that there is a middle of the upload.
_SLOW = f"stall_timeout_seconds = 2\nchecksum_timeout_seconds = 20\nlimit_bytes_per_second = 8_000_000\n{_DISK}"
_AFTER_UPLOAD = r"brunel-disk: after commit of record_event uploaded or adopted #1"


@pytest.fixture(params=["root", "davs"])
def room(request: pytest.FixtureRequest, box: Box, monkeypatch: pytest.MonkeyPatch) -> Room:
    """A room whose disk endpoint is spoken to by each protocol in turn, is slow, and is filled from here."""
    # XrdCl's own patience is a minute and more, which is right for a site and long for a test.
    for name, seconds in (("REQUESTTIMEOUT", 6), ("STREAMTIMEOUT", 4), ("CONNECTIONWINDOW", 3)):
        monkeypatch.setenv(f"XRD_{name}", str(seconds))
    room = Room(box)
    disk = box.site.disk_brunel
    if request.param == "root":
        room.configure(disk.davs_url, disk.root_url)
    room.configure(_DISK, f'source = "local"\n{_SLOW}')
    return room


def _upload_has_begun(box: Box) -> bool:
    return any(path.stat().st_size > _MEGABYTE for path in box.stored()["brunel-disk"].values())


def test_endpoint_that_goes_down_in_the_middle_of_an_upload(room: Room, box: Box, tmp_path: Path) -> None:
    room.write_run(part_bytes=16 * _MEGABYTE)
    disk = box.site.disk_brunel
    with box.engine():
        try:
            wait_for(lambda: _upload_has_begun(box), lambda: box.log)
            disk.stop()
            room.wait_for_log(r"WARNING run 4742 at brunel-disk")
        finally:
            disk.start()
        room.wait_until_safe()
    assert_safe_everywhere(room, tmp_path / "unpacked")


def test_endpoint_that_goes_down_between_upload_and_verification(room: Room, box: Box, tmp_path: Path) -> None:
    room.write_run()
    died = room.mortal_engine(tmp_path / "journal", die=_AFTER_UPLOAD)
    assert died.returncode == -signal.SIGKILL, died.stderr
    disk = box.site.disk_brunel
    disk.stop()
    try:
        with box.engine():
            room.wait_for_log(r"WARNING run 4742 at brunel-disk")
            disk.start()
            room.wait_until_safe()
    finally:
        disk.start()
    assert_safe_everywhere(room, tmp_path / "unpacked")


@contextmanager
def _hanging(directory: Path) -> Iterator[None]:
    """The server in `directory` keeps its connections and answers nobody."""
    server = [
        int(process.name)
        for process in Path("/proc").iterdir()
        if process.name.isdigit() and _runs(process, "xrootd", directory)
    ]
    assert server
    for pid in server:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in server:
            os.kill(pid, signal.SIGCONT)


def _runs(process: Path, program: str, directory: Path) -> bool:
    try:
        name, cwd = (process / "comm").read_text().strip(), (process / "cwd").readlink()
    except OSError:
        return False
    return name == program and cwd == directory


# By davs://, davix's handshake alone takes 30 s to give up; the stall itself is in tests/conformance/test_trouble.py.
@pytest.mark.parametrize("room", ["root", pytest.param("davs", marks=pytest.mark.long)], indirect=True)
def test_server_that_hangs_without_closing(room: Room, box: Box, tmp_path: Path) -> None:
    room.write_run(part_bytes=16 * _MEGABYTE)
    with box.engine():
        wait_for(lambda: _upload_has_begun(box), lambda: box.log)
        with _hanging(box.site.disk_brunel.directory):
            room.wait_for_log(r"WARNING run 4742 at brunel-disk")
        room.wait_until_safe()
    assert_safe_everywhere(room, tmp_path / "unpacked")


@pytest.mark.parametrize(
    "toxic",
    [
        Toxic(refuse=True),
        Toxic(after_bytes=4 * _MEGABYTE, how="cut"),
        Toxic(after_bytes=4 * _MEGABYTE, how="reset"),
        Toxic(after_bytes=4 * _MEGABYTE, how="stall"),
    ],
    ids=["refuses", "cuts", "resets", "stalls"],
)
def test_network_that_loses_connections(room: Room, box: Box, toxic: Toxic, tmp_path: Path) -> None:
    _through(room, box, toxic, tmp_path, lambda: room.wait_for_log(r"WARNING run 4742 at brunel-disk"))


def test_network_that_is_slow_is_no_fault(room: Room, box: Box, tmp_path: Path) -> None:
    """The upload takes longer than the stall timeout, but never stands still."""
    room.configure("stall_timeout_seconds = 2", "stall_timeout_seconds = 4")
    _through(room, box, Toxic(bytes_per_second=2_000_000), tmp_path, room.wait_until_safe)
    assert "WARNING run 4742" not in box.log


def _through(room: Room, box: Box, toxic: Toxic, tmp_path: Path, shown: Callable[[], None]) -> None:
    """Move a run through a network with that fault until `shown` has seen it, then mend the network."""
    disk = box.site.disk_brunel
    url = disk.root_url if disk.root_url in room.station.room.config_path.read_text() else disk.davs_url
    port = urlsplit(url).port
    assert port is not None
    with ToxicProxy(port) as proxy:
        room.configure(f":{port}/", f":{proxy.port}/")
        proxy.toxic = toxic
        room.write_run(part_bytes=6 * _MEGABYTE)
        with box.engine():
            shown()
            proxy.toxic = WELL
            room.wait_until_safe()
    assert_safe_everywhere(room, tmp_path / "unpacked")
