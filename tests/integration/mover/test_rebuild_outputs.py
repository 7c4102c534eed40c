"""The catalogue is lost after a reconstruction: made again from a real site's storage, no job is done twice."""

from collections.abc import Callable
from pathlib import Path

from mover.catalogue.replicas import replicas_of_bundle
from mover.states import JobState, ReplicaState
from tests.integration.mover.box import wait_for
from tests.integration.mover.recobox import RecoBox

RUN = 4742
RECO = "RECO/reference-1.0/Step1/04700/04742_offline.tar"
MC = "Simulation/reference-1.0/Step1/04700/04742_mc.tar"


def test_outputs_are_found_again_and_proven_again_and_no_job_is_done_twice(
    new_reco_box: Callable[..., RecoBox], tmp_path: Path
) -> None:
    box = new_reco_box()
    with box.engine(), box.reco_agent():
        box.take(RUN)
        box.wait_until(RUN, JobState.PROVEN, jobs=2)
        wait_for(lambda: _are_kept(box), lambda: box.reco_log)
    before = {place: {path: file.read_bytes() for path, file in files.items()} for place, files in box.stored().items()}
    # The one is listed by the disk; the other is left on tape only, and in no listing.
    box.site.tape_ral.evict(f"{box.below}/{RECO}")
    box.site.tape_imperial.evict(f"{box.below}/{MC}")
    box.stored()["brunel-disk"][MC].unlink()
    for path in Path(box.room.catalogue_path.parent).glob(f"{box.room.catalogue_path.name}*"):
        path.rename(tmp_path / path.name)

    rebuilt = box.mover("catalogue", "rebuild", "--into", str(box.room.catalogue_path), "--runs", str(RUN))
    assert rebuilt.returncode == 0, rebuilt.stderr + rebuilt.stdout
    assert "2 outputs of jobs are in it: `mover reco agent` proves them again" in rebuilt.stdout
    assert {job.state for job in box.jobs(RUN)} == {JobState.COLLECTED}
    with box.reco_agent():
        jobs = box.wait_until(RUN, JobState.PROVEN, jobs=2)
        wait_for(lambda: _are_kept(box), lambda: box.reco_log)
    assert [(job.attempts, job.name) for job in jobs] == [(0, None)] * 2
    after = {place: {path: file.read_bytes() for path, file in files.items()} for place, files in box.stored().items()}
    assert all(before[place][path] == data for place in after for path, data in after[place].items())
    looked = box.mover("run", "retry", str(RUN), "--look")
    assert "every proven replica is there and right" in looked.stdout, looked.stdout + looked.stderr
    checked = box.mover("catalogue", "check")
    assert checked.returncode == 0, checked.stderr


def _are_kept(box: RecoBox) -> bool:
    """Whether each output is at a disk and on a tape."""
    with box.catalogue() as database:
        return all(
            {one.state for one in replicas_of_bundle(database, job.bundle_id or 0)}
            == {ReplicaState.VERIFIED, ReplicaState.ARCHIVED}
            for job in box.jobs(RUN)
        )
