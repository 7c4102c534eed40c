"""`mover adopt` on real servers: bundles that others stored, with GNU tar and md5sum, years before us."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from mover.catalogue.replicas import replicas_of
from mover.states import ReplicaState, RunState
from tests.integration.mover.box import Box, wait_for

RUN = 4742
LFN = "MICE/Step1/04700/04742.tar"


def make_bundle(folder: Path, run: int) -> bytes:
    """As MICE did: the run's files and their md5 digests at top level, no manifest."""
    if shutil.which("tar") is None:
        pytest.skip("apt install tar")
    names = [f"{run:05d}.{part:03d}" for part in range(3)]
    for name in names:
        (folder / name).write_bytes(os.urandom(400_000))
    with (folder / f"{run:05d}.md5").open("wb") as listing:
        subprocess.run(["md5sum", *names], cwd=folder, stdout=listing, check=True, timeout=60)
    subprocess.run(["tar", "-cf", "made.tar", *names, f"{run:05d}.md5"], cwd=folder, check=True, timeout=60)
    return (folder / "made.tar").read_bytes()


def put(box: Box, server: Path, lfn: str, data: bytes) -> Path:
    """Into the server's own directory, as whoever it was may have done."""
    path = server / box.below / lfn
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    # The server's user makes files and directories beside it.
    for folder in (path.parent, *path.parent.relative_to(server).parents):
        (server / folder).chmod(0o777)
    path.chmod(0o666)
    return path


def states(box: Box) -> dict[str, ReplicaState]:
    """The run's replicas."""
    with box.catalogue() as database:
        return {one.endpoint: one.state for one in replicas_of(database, RUN)}


def test_a_bundle_of_others_is_adopted_and_the_engine_makes_what_the_policy_wants(box: Box, tmp_path: Path) -> None:
    data = make_bundle(tmp_path, RUN)
    disk = put(box, box.site.disk_brunel.disk_directory, LFN, data)
    adopted = box.mover("adopt", LFN)
    assert adopted.returncode == 0, adopted.stderr
    assert "brunel-disk verified" in adopted.stdout
    assert box.state(RUN) is RunState.RELEASED
    assert states(box) == {
        "brunel-disk": ReplicaState.VERIFIED,
        "ral-tape": ReplicaState.WANTED,
        "imperial-tape": ReplicaState.WANTED,
    }
    assert "adopted already" in box.mover("adopt", str(RUN)).stdout
    assert box.mover("audit", "--deep").returncode == 7  # one disk is not what the policy wants
    with box.engine():
        wait_for(
            lambda: list(states(box).values()).count(ReplicaState.ARCHIVED) == 2, lambda: box.log + str(states(box))
        )
    for place in ("ral-tape", "imperial-tape", "brunel-disk"):
        assert box.stored()[place][LFN].read_bytes() == data
    assert disk.read_bytes() == data
    audited = box.mover("audit", "--deep")
    assert audited.returncode == 0, audited.stdout + audited.stderr
    checked = box.mover("catalogue", "check")
    assert checked.returncode == 0, checked.stderr


def test_a_bundle_that_is_not_what_its_listing_says_is_refused(box: Box, tmp_path: Path) -> None:
    data = bytearray(make_bundle(tmp_path, RUN))
    data[1000] ^= 1
    put(box, box.site.disk_brunel.disk_directory, LFN, bytes(data))
    refused = box.mover("adopt", str(RUN), "5000-5001")
    assert refused.returncode == 7
    assert "04742.000: md5 is" in refused.stderr
    assert box.state(RUN) is RunState.UNKNOWN
    nothing = box.mover("adopt", "5000")
    assert nothing.returncode == 6
    assert "no endpoint has MICE/Step1/05000/05000.tar" in nothing.stderr
    assert box.mover("adopt", "MICE/Step9/04700/04742.tar").returncode == 2
