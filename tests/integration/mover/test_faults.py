"""Faults of endpoints and credentials: said clearly, with a non-zero exit, nothing lost, and mended by itself after."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mover.sandbox.agent import Agent
from mover.sandbox.dongle import Dongle
from mover.sandbox.site import Site
from mover.states import RunState
from tests.integration.mover.box import Box, wait_for

RUN = 4742


def _assert_wait_says(box: Box, said: str) -> None:
    """`mover run wait` gives up with this among its reasons, sooner or later, and the local files are all there."""
    wait_for(lambda: box.state(RUN) is RunState.PLANNED, lambda: box.log)
    refusals = []

    def says() -> bool:
        refused = box.mover("run", "wait", str(RUN), "--deadline", "1")
        assert refused.returncode == 9, refused.stderr + refused.stdout
        assert refused.stderr.startswith("error: run 4742 is not safe after 1 s: ")
        assert "\nhint: " in refused.stderr
        refusals.append(refused.stderr)
        return re.search(said, refused.stderr) is not None

    wait_for(says, lambda: "\n".join(refusals))
    assert (box.room.run_directory / "04742.000").exists()


@contextmanager
def _disk_down(site: Site) -> Iterator[None]:
    site.disk_brunel.stop()
    try:
        yield
    finally:
        site.disk_brunel.start()


@contextmanager
def _disk_full(site: Site) -> Iterator[None]:
    site.disk_brunel.set_disk_full(full=True)
    try:
        yield
    finally:
        site.disk_brunel.set_disk_full(full=False)


@contextmanager
def _no_agent(site: Site) -> Iterator[None]:
    site.agent.halt()
    try:
        yield
    finally:
        site.agent.start()
        site.agent.unlock()


@contextmanager
def _no_session(site: Site) -> Iterator[None]:
    """The agent runs, but nobody has given the PIN yet."""
    site.agent.halt()
    site.agent.start()
    try:
        yield
    finally:
        site.agent.unlock()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (_disk_down, r"brunel-disk is wanted, .*(unreachable|cannot be reached|unavailable|refused|connect)"),
        (_disk_full, r"brunel-disk is wanted, .*full"),
        (_no_agent, r"ral-tape is wanted, no Grid proxy: cannot reach the agent"),
        (_no_session, r"ral-tape is wanted, no Grid proxy: .*session"),
    ],
    ids=["disk down", "disk full", "no agent", "no session"],
)
def test_a_fault_is_said_and_gone_once_it_is_mended(box: Box, fault: object, said: str) -> None:
    assert callable(fault)
    box.room.daq.write_run(RUN, parts=1, part_bytes=100_000)
    box.room.daq.end_run(RUN)
    with box.engine():
        with fault(box.site):
            _assert_wait_says(box, said)
            # Not at any moment: an attempt may be under way, and removes what it wrote when it fails.
            wait_for(lambda: box.stored()["brunel-disk"] == {}, lambda: box.log)
        wait_for(lambda: box.state(RUN) is RunState.SAFE, lambda: box.log)
    assert list(box.stored()["brunel-disk"]) == ["MICE/Step1/04700/04742.tar"]


def test_an_endpoint_that_refuses_the_credential_is_said(box: Box, tmp_path: Path) -> None:
    stranger = Agent(Dongle(tmp_path / "dongle", box.site.ca, "Robot - nobody knows"))
    try:
        config = box.room.config_path.read_text()
        assert str(box.site.agent.socket) in config
        box.room.config_path.write_text(config.replace(str(box.site.agent.socket), str(stranger.socket)))
        box.room.daq.write_run(RUN, parts=1, part_bytes=100_000)
        box.room.daq.end_run(RUN)
        with box.engine():
            _assert_wait_says(box, "ral-tape is wanted, .*denied.*imperial-tape is wanted, .*denied")
    finally:
        stranger.stop()
    assert not any(box.stored().values())
