"""A campaign whose agent is killed again and again: every output proven, and no run reconstructed twice."""

import signal
import subprocess
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from mover.catalogue import custody
from mover.catalogue.agreement import disagreements
from mover.catalogue.check import CHECKS
from mover.sandbox.daq import DaqWriter
from mover.states import JobEvent
from tests.faults.rooms import Room, disk_room, sha256
from tests.integration.mover.box import wait_for

_FIRST = 4000
_KILLS = 3

_CONFIG = """
[policy.reco]
tapes = 0
tape_sites = 0
disks = 2

[job.reco]
command = ["reconstruct", "{run}", "{output}"]
lfn = "RECO/{release}/{run:05d}_offline.tar"
lfn_again = "RECO/{release}/{run:05d}_offline_{iteration}.tar"
wall_seconds = 600

[job.reco.output]
members = ["recon.dat", "reco.log"]
minimum_bytes = 100
"""

_RECO = """
[reco]
endpoint = "left"
kinds = ["reco"]
first_run = 1000000
scratch = "{scratch}"
most_jobs = 6
poll_seconds = 0.2
vanished_after_seconds = 3
first_retry_seconds = 0.1
longest_retry_seconds = 1
batch = {{ kind = "local", slots = 2 }}
software = {{ path = "{software}/{{platform}}/{{release}}", platform = "any", approved_pattern = "*" }}
"""

_COMMAND = """\
#!/bin/sh
# Stands in for a reconstruction; writes down that it was run at all.
set -e
echo "$1" >> "{done}"
head -c 1000 /dev/urandom > recon.dat
echo "run $1 is done" > reco.log
tar -czf "$2" recon.dat reco.log
"""


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    """A room with two disks, and software on this machine."""
    room = disk_room(tmp_path / "room")
    files = room.station.room
    release = tmp_path / "software" / "any" / "1.0"
    (release / "bin").mkdir(parents=True)
    (release / "env.sh").write_text(f'PATH="{release}/bin:$PATH"\nexport PATH\n')
    command = release / "bin" / "reconstruct"
    command.write_text(_COMMAND.format(done=tmp_path / "done"))
    command.chmod(0o755)
    (tmp_path / "done").touch()
    with files.config_path.open("a") as config:
        config.write(_CONFIG + _RECO.format(scratch=tmp_path / "scratch", software=tmp_path / "software"))
    yield room
    room.station.kill_engines()


def start_agent(room: Room) -> subprocess.Popen[str]:
    """The agent; its log goes to `engine.log`, too."""
    with (room.station.room.directory / "engine.log").open("a") as log:
        agent = subprocess.Popen(room.station.command("reco", "agent"), stdout=log, stderr=log, text=True)
    room.station.engines.append(agent)
    return agent


def count(room: Room, statement: str) -> int:
    """The number that the catalogue answers."""
    with room.station.catalogue() as database:
        (row,) = database.query(statement)
    number: int = row[0]
    return number


def wait_for_count(room: Room, statement: str, number: int, *, seconds: float = 300.0) -> None:
    """Wait until the catalogue answers that, or more."""
    wait_for(lambda: count(room, statement) >= number, lambda: room.station.log[-5000:], seconds=seconds)


@pytest.mark.parametrize(
    "runs", [60, pytest.param(500, marks=[pytest.mark.long, pytest.mark.timeout(3600)])], ids=["60", "500"]
)
def test_a_campaign_whose_agent_is_killed_three_times_proves_every_output_and_does_none_twice(
    room: Room, tmp_path: Path, runs: int
) -> None:
    patience = 300.0 + 3 * runs
    daq: DaqWriter = room.station.room.daq
    for run in range(_FIRST, _FIRST + runs):
        daq.write_run(run, parts=1, part_bytes=2_000)
        daq.end_run(run)
    with room.station.engine():
        wait_for_count(room, "SELECT count(*) FROM run WHERE state = 'safe'", runs, seconds=patience)
    asked = ("--release", "1.0", "--runs", f"{_FIRST}-{_FIRST + runs - 1}", "--most-jobs", "6")
    assert room.station.mover("campaign", "create", *asked).returncode == 0
    assert room.station.mover("campaign", "start", "1").returncode == 0
    proven = "SELECT count(*) FROM job WHERE state = 'proven'"
    for kill in range(_KILLS):
        agent = start_agent(room)
        wait_for_count(room, proven, (kill + 1) * runs // (_KILLS + 1), seconds=patience)
        agent.send_signal(signal.SIGKILL)
        agent.wait(timeout=60)
        assert count(room, proven) < runs, "it was over before it was killed"
    agent = start_agent(room)
    wait_for_count(room, "SELECT count(*) FROM campaign WHERE state = 'finished'", 1, seconds=patience)
    verified = (
        "SELECT count(*) FROM replica JOIN bundle ON bundle.id = bundle_id WHERE kind = 'reco' AND state = 'verified'"
    )
    wait_for_count(room, verified, 2 * runs, seconds=patience)
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(timeout=120) == 0, room.station.log
    assert_each_is_done_once(room, tmp_path, runs)


def assert_each_is_done_once(room: Room, tmp_path: Path, runs: int) -> None:
    """By the software's own list, by what is stored, and by the record."""
    done = Counter(int(line) for line in (tmp_path / "done").read_text().split())
    assert done == dict.fromkeys(range(_FIRST, _FIRST + runs), 1)
    wanted = {f"RECO/1.0/{run:05d}_offline.tar" for run in range(_FIRST, _FIRST + runs)}
    left, right = room.station.stored().values()
    for place in (left, right):
        assert {name for name in place if name.startswith("RECO")} == wanted
    for name in wanted:
        assert sha256(left[name]) == sha256(right[name])
        with tarfile.open(left[name]) as tar:
            log = tar.extractfile("reco.log")
            assert log is not None
            assert log.read().decode() == f"run {int(name[9:14])} is done\n"
    with room.station.catalogue() as database:
        for run in range(_FIRST, _FIRST + runs):
            events = [one.event for one in custody.records(database, run)]
            assert events.count(JobEvent.OUTPUT_PROVEN) == 1
        assert not list(disagreements(database))
        assert not [fault for _, check in CHECKS for fault in check(database)]
