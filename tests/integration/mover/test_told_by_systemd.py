"""The shipped path unit, run by a real systemd: whoever leaves a file named after a run has it closed."""

import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mover.catalogue.database import Database
from mover.catalogue.runs import find_run
from mover.sandbox.daq import DaqWriter
from mover.states import RunState
from tests.cgroups import Cgroup, ServiceManager

ROOT = Path(__file__).parents[3]
RUN = 4742
SECONDS = 60.0
SPOOL = "/var/spool/mover/ended"

#: What only the system's own manager can do, and what a container does not allow.
NOT_HERE = "User|Group|PrivateTmp|ProtectHome|PrivateDevices|ProtectControlGroups|ProtectKernel[A-Za-z]+|PrivateNetwork"


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ServiceManager]:
    cgroup = Cgroup()
    try:
        manager = ServiceManager(cgroup, tmp_path)
        try:
            yield manager
        finally:
            manager.stop()
    finally:
        cgroup.remove()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "disk").mkdir()
    (tmp_path / "daq").mkdir()
    config = tmp_path / "mover.toml"
    config.write_text(
        f'experiment = "MICE"\ncatalogue = "{tmp_path}/catalogue.sqlite"\n'
        f'[runs]\ndirectory = "{tmp_path}/daq"\n[bundle]\nlfn = "MICE/{{run:05d}}.tar"\n'
        f'[[endpoint]]\nname = "disk"\nsite = "here"\nkind = "disk"\nurl = "file://{tmp_path}/disk"\n'
        "[policy.raw]\ntapes = 0\ntape_sites = 0\ndisks = 1\n"
    )
    return config


def install(manager: ServiceManager, config: Path, spool: Path) -> None:
    """The two units, with the programs and directories that are here."""
    command = shlex.join([sys.executable, "-P", "-m", "mover", "--config", str(config)])
    for name in ("mover-close.path", "mover-close.service"):
        text = (ROOT / "systemd" / name).read_text()
        text = re.sub(rf"^({NOT_HERE})=.*\n", "", text, flags=re.MULTILINE)
        text = (
            text.replace("/opt/mover/bin/mover", command)
            .replace(SPOOL, str(spool))
            .replace("RestartSec=30", "RestartSec=1")
        )
        manager.install(name, text)


def told_ways() -> list[str]:
    """The ways that docs/integration.md shows to leave such a file, as shell commands."""
    text = (ROOT / "docs/integration.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```(sh|python)\n(.*?)```", text, re.DOTALL)
    ways = [code if kind == "sh" else f"python3 -c {shlex.quote(code)}" for kind, code in blocks if SPOOL in code]
    assert len(ways) == 2
    return ways


@pytest.mark.parametrize("way", told_ways(), ids=["shell", "python"])
def test_a_file_named_after_a_run_has_it_closed(
    manager: ServiceManager, config: Path, tmp_path: Path, way: str
) -> None:
    spool, daq = tmp_path / "ended", tmp_path / "daq"
    spool.mkdir()
    DaqWriter(daq).write_run(RUN, part_bytes=1 << 16)
    daq.rename(tmp_path / "not mounted yet")
    install(manager, config, spool)
    manager.control("start", "mover-close.path")
    subprocess.run(["sh", "-c", way.replace(SPOOL, str(spool))], check=True, timeout=SECONDS)
    # It cannot be closed now: that is tried again, and the file stays.
    deadline = time.monotonic() + SECONDS
    while int(manager.property("mover-close.service", "NRestarts")) == 0:
        assert time.monotonic() < deadline, "it is not tried again"
        time.sleep(0.1)
    assert [path.name for path in spool.iterdir()] == [str(RUN)]
    (tmp_path / "not mounted yet").rename(daq)
    while list(spool.iterdir()):
        assert time.monotonic() < deadline, "nobody closes it"
        time.sleep(0.1)
    database = Database(tmp_path / "catalogue.sqlite", read_only=True)
    try:
        run = find_run(database, RUN)
    finally:
        database.close()
    assert run is not None
    assert run.state is RunState.PLANNED
    assert manager.property("mover-close.path", "ActiveState") == "active"
