"""Raw data that nobody hands to the reco agent: on tape only, or stored by others, on real servers."""

import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from mover.catalogue.jobs import JobRecord
from mover.catalogue.replicas import replicas_of
from mover.sandbox.daq import DaqWriter
from mover.states import JobState, ReplicaState, RunState
from tests.integration.mover.box import wait_for
from tests.integration.mover.recobox import RELEASE, RecoBox
from tests.integration.mover.test_adopt import put

RUNS = range(4742, 4746)
FOUND = 4750
RecoBoxMaker = Callable[..., RecoBox]

_TAPES_ONLY = """
[policy.raw]
disks = 0
endpoints = ["ral-tape", "imperial-tape"]
"""


def lfn(run: int) -> str:
    """The raw bundle's."""
    return f"MICE/Step1/04700/{run:05d}.tar"


def test_raw_data_on_tape_only_is_recalled_together_ahead_of_a_campaigns_jobs(new_reco_box: RecoBoxMaker) -> None:
    box = new_reco_box(kinds=("reco",), settings="most_jobs = 1")
    with box.room.config_path.open("a") as config:
        config.write(_TAPES_ONLY)
    with box.engine():
        box.take(*RUNS)
        wait_for(lambda: all(_is_on_both_tapes(box, run) for run in RUNS), lambda: box.log)
    for run in RUNS:
        for tape in (box.site.tape_ral, box.site.tape_imperial):
            tape.evict(f"{box.below}/{lfn(run)}")
    assert box.mover("campaign", "create", "--release", RELEASE, "--runs", "4742-4745").returncode == 0
    assert box.mover("campaign", "start", "1").returncode == 0
    with box.reco_agent():
        for run in RUNS:
            box.wait_until(run, JobState.PROVEN)
    # One request, before the first job began; and the tape itself says that they came back.
    asked = box.reco_log.index(f"recaller: {len(RUNS)} files are to be brought online at ral-tape")
    assert box.reco_log.count("are to be brought online") == 1
    assert asked < re.search("reco of run .*: submitted", box.reco_log).start()  # type: ignore[union-attr]
    stored = box.stored()
    assert {lfn(run) for run in RUNS} <= stored["ral-buffer"].keys()
    assert not {lfn(run) for run in RUNS} & (stored["imperial-buffer"].keys() | stored["brunel-disk"].keys())


def _is_on_both_tapes(box: RecoBox, run: int) -> bool:
    with box.catalogue() as database:
        return [one.state for one in replicas_of(database, run)] == [ReplicaState.ARCHIVED] * 2


def test_a_raw_bundle_that_others_store_is_found_adopted_and_reconstructed(
    new_reco_box: RecoBoxMaker, tmp_path: Path
) -> None:
    box = new_reco_box(kinds=("reco",), settings="find_new_seconds = 60")
    path = put(box, box.site.disk_brunel.disk_directory, lfn(FOUND), _made_elsewhere(tmp_path / "elsewhere"))
    long_ago = time.time() - 3600
    os.utime(path, (long_ago, long_ago))
    # Nobody tells the agent of it, and there is no engine.
    with box.reco_agent():
        (job,) = box.wait_until(FOUND, JobState.PROVEN)
    assert box.state(FOUND) is RunState.RELEASED
    assert f"finder: run {FOUND} was stored by others: {lfn(FOUND)} is adopted" in box.reco_log
    assert _output(box, job) in box.stored()["brunel-disk"]
    assert box.mover("catalogue", "check").returncode == 0


def _made_elsewhere(folder: Path) -> bytes:
    """A bundle as others make it: the run's files and their md5 digests, and nothing of ours."""
    folder.mkdir()
    names = [path.name for path in DaqWriter(folder).write_run(FOUND, parts=2, part_bytes=30_000)]
    with (folder / f"{FOUND:05d}.md5").open("wb") as listing:
        subprocess.run(["md5sum", *names], cwd=folder, stdout=listing, check=True, timeout=60)
    command = ["tar", "-cf", "made.tar", *names, f"{FOUND:05d}.md5"]
    subprocess.run(command, cwd=folder, check=True, timeout=60)
    return (folder / "made.tar").read_bytes()


def _output(box: RecoBox, job: JobRecord) -> str:
    with box.catalogue() as database:
        ((lfn,),) = database.query("SELECT lfn FROM bundle WHERE id = ?", job.bundle_id)
    found: str = lfn
    return found
