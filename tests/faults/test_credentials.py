"""Dongles that are unplugged, and proxies that end, in the middle of a transfer."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from mover.sandbox.agent import Agent
from mover.sandbox.dongle import Dongle
from tests.faults.evidence import assert_nothing_lost, assert_safe_everywhere
from tests.faults.rooms import LFN, Room
from tests.integration.mover.box import Box, wait_for
from tests.integration.proxyagent.conftest import Shim, robot_status

_MEGABYTE = 1 << 20


@pytest.fixture
def room(box: Box) -> Room:
    """A room whose disk endpoint takes a megabyte a second, by root://, from here."""
    room = Room(box)
    room.configure(box.site.disk_brunel.davs_url, box.site.disk_brunel.root_url)
    slow = 'source = "local"\nlimit_bytes_per_second = 1_000_000\n'
    room.configure('name = "brunel-disk"', f'{slow}name = "brunel-disk"')
    return room


@contextmanager
def _agent(room: Room, box: Box, dongle: Dongle, settings: str) -> Iterator[Agent]:
    """The agent of that dongle, which the room asks instead of the site's."""
    with TemporaryDirectory(prefix="agent-") as sockets:
        agent = Agent(dongle, parent=Path(sockets), settings=settings)
        try:
            room.configure(str(box.site.agent.socket), str(agent.socket))
            yield agent
        finally:
            agent.stop()


def _wait_for_upload(box: Box) -> None:
    wait_for(
        lambda: any(path.stat().st_size > _MEGABYTE for path in box.stored()["brunel-disk"].values()), lambda: box.log
    )


def test_dongle_that_is_unplugged_in_the_middle_of_a_transfer(
    room: Room, box: Box, dongle: Dongle, shim: Shim, tmp_path: Path
) -> None:
    """Even where the session goes with it: the proxies that there are last longer."""
    with _agent(room, box, dongle, 'on_removal = "wipe"') as agent:
        room.write_run(part_bytes=6 * _MEGABYTE)
        with box.engine():
            _wait_for_upload(box)
            shim.set("removed")
            wait_for(lambda: robot_status(agent).session is None, lambda: agent.log)
            assert LFN not in box.stored()["brunel-disk"]
            room.wait_until_safe()
    assert_safe_everywhere(room, tmp_path / "unpacked")


def test_proxy_that_ends_in_the_middle_of_a_transfer(
    room: Room, box: Box, dongle: Dongle, shim: Shim, tmp_path: Path
) -> None:
    with _agent(room, box, dongle, "session_lifetime_seconds = 60") as agent:
        shim.set("removed")
        # More than a minute's worth.
        room.write_run(part_bytes=40 * _MEGABYTE)
        with box.engine():
            _wait_for_upload(box)
            room.wait_for_log(r"WARNING run 4742 at brunel-disk: no Grid proxy: ")
            assert_nothing_lost(room)
            # A person plugs the dongle and gives the PIN.
            shim.clear("removed")
            agent.unlock()
            room.wait_until_safe()
    assert_safe_everywhere(room, tmp_path / "unpacked")
