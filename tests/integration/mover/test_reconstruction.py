"""Runs reconstructed on real servers by the reference application: what becomes of them, and under whose name."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mover.catalogue.jobs import JobRecord
from mover.catalogue.replicas import replicas_of_bundle
from mover.sandbox.service import are_separate
from mover.sandbox.site import Site
from mover.states import JobState, ReplicaState, RunState
from tests.integration.mover.box import wait_for
from tests.integration.mover.recobatch import Batch, arc_batch, local_batch, slurm_batch
from tests.integration.mover.recobox import RELEASE, SETTLED, RecoBox

RUN = 4742
RecoBoxMaker = Callable[..., RecoBox]


def output_of(run: int) -> str:
    return f"RECO/reference-1.0/Step1/{run // 100 * 100:05d}/{run:05d}_offline.tar"


def made_by(box: RecoBox, account: str, path: str) -> bool:
    """Whether the disk's own log says that it was that robot who made the file."""
    log = (box.site.disk_brunel.directory / "log/xrootd.log").read_text(errors="replace")
    return re.search(rf"grant \w+ {account}@\S+ (\w*create|insert) /disk/{box.below}/{path}", log) is not None


def test_a_run_is_reconstructed_and_its_outputs_are_the_reco_robots(new_reco_box: RecoBoxMaker) -> None:
    box = new_reco_box()
    with box.engine(), box.reco_agent():
        box.take(RUN)
        jobs = box.wait_until(RUN, JobState.PROVEN, jobs=2)
        wait_for(lambda: all(_is_kept(box, job) for job in jobs), lambda: box.reco_log)
    reco, mc, raw = output_of(RUN), "Simulation/reference-1.0/Step1/04700/04742_mc.tar", "MICE/Step1/04700/04742.tar"
    stored = {place: set(files) for place, files in box.stored().items()}
    assert stored["brunel-disk"] == {raw, reco, mc}
    assert stored["ral-tape"] == {raw, reco}
    assert stored["imperial-tape"] == {raw, mc}
    assert made_by(box, "robot", raw)
    for path in (reco, mc):
        assert made_by(box, "reco", path)
        assert not made_by(box, "robot", path)
    assert not made_by(box, "reco", raw)
    assert "2 proven" in box.mover("reco", "status", str(RUN)).stdout
    assert {f"{kind} of run {RUN} at brunel-disk: verified" in box.reco_log for kind in ("reco", "mc")} == {True}
    assert f"run {RUN} at brunel-disk: verified" in box.log


def _is_kept(box: RecoBox, job: JobRecord) -> bool:
    with box.catalogue() as database:
        states = {one.state for one in replicas_of_bundle(database, job.bundle_id or 0)}
    return states == {ReplicaState.VERIFIED, ReplicaState.ARCHIVED}


def test_each_service_is_refused_the_others_profile(new_reco_box: RecoBoxMaker) -> None:
    if not are_separate():
        pytest.skip("one user is one service to the agent: run the tests as root")
    box = new_reco_box()
    config = box.room.config_path.read_text()
    with box.engine():
        box.take(RUN)
        wait_for(lambda: box.state(RUN) is RunState.SAFE, lambda: box.log)
    swap = {"mover": "reco", "reco": "mover"}
    box.room.config_path.write_text(re.sub('profile = "(.*)"', lambda found: f'profile = "{swap[found[1]]}"', config))
    refused = box.mover("orphans")
    assert refused.returncode == 8
    assert "may not use profile 'reco'" in refused.stderr
    with box.engine(), box.reco_agent():
        box.take(RUN + 1)
        wait_for(lambda: "may not use profile 'reco'" in box.log, lambda: box.log)
        wait_for(lambda: "may not use profile 'mover'" in box.reco_log, lambda: box.reco_log)
        assert all(job.state is JobState.WANTED for job in box.jobs(RUN))
    assert not any("RECO" in path or "04743" in path for files in box.stored().values() for path in files)


def test_as_in_2012_jobs_that_all_exit_0_and_store_no_reco_are_caught(new_reco_box: RecoBoxMaker) -> None:
    """For weeks every job was green, and there was no reconstruction in any output."""
    box = new_reco_box(kinds=("reco",))
    runs = (RUN, RUN + 1)
    box.software.set_faults("reference-1.0", {str(run): "no-recon" for run in runs})
    with box.engine(), box.reco_agent():
        box.take(*runs)
        for run in runs:
            (job,) = box.wait_until(run, *SETTLED)
            assert (job.state, job.exit_code) == (JobState.QUARANTINED, 0)
            assert f"has no {run:05d}_recon.root" in (job.problem or "")
    # It is there to be looked at, and nowhere else.
    assert {path for path in box.stored()["brunel-disk"] if "RECO" in path} == {output_of(run) for run in runs}
    assert not any("RECO" in path for place in ("ral-tape", "ral-buffer") for path in box.stored()[place])
    for command in (["status"], ["reco", "status"]):
        shown = box.mover(*command).stdout
        assert "quarantined" in shown
        assert "has no 04742_recon.root" in shown
        assert "proven" not in shown
    assert "0 proven" not in box.mover("reco", "status").stdout


KILLED, TIMED_OUT, GOOD, DAMAGED, VANISHED = 5001, 5002, 5003, 5004, 5020
#: What goes wrong → what is said of it. The experiment's command is told so by the run's number.
QUARANTINED = {
    5005: ("exit-1", r"could not be done now \(exit code 1\).*so ended 3 attempts in a row"),
    5006: ("exit-2", r"failed \(exit code 2\)"),
    5007: ("exit-3", r"script .* failed \(exit code 3\)"),
    5008: ("signal", r"script .* failed \(exit code 3\).*killed by signal 9"),
    5009: ("no-output", r"script .* failed \(exit code 3\).*there is no 05009_offline.tar"),
    5010: ("no-recon", r"has no 05010_recon.root"),
    5011: ("empty-tree", r"0 entries"),
    5012: ("truncated-root", r"05012_recon.root"),
}
_BATCHES = {"local": local_batch, "slurm": slurm_batch, "arc": arc_batch}


@pytest.fixture(params=["local", *(pytest.param(kind, marks=pytest.mark.long) for kind in ("slurm", "arc"))])
def batch(request: pytest.FixtureRequest, site: Site, tmp_path: Path) -> Iterator[Batch]:
    """A real batch system."""
    with _BATCHES[request.param](site, tmp_path) as made:
        yield made


def test_each_fault_of_a_job_ends_in_its_state_with_its_words(new_reco_box: RecoBoxMaker, batch: Batch) -> None:
    box = new_reco_box(
        kinds=("reco",),
        batch=batch.settings,
        public=batch.public,
        sessions=batch.sessions,
        wall_seconds=30,
        settings="failures_before_quarantine = 3\nmost_jobs = 20",
    )
    box.have_disk_filled_from_here()
    hanging = (KILLED, TIMED_OUT, VANISHED)
    faults = {str(run): fault for run, (fault, _) in QUARANTINED.items()}
    box.software.set_faults(RELEASE, faults | dict.fromkeys(map(str, hanging), "hang"))
    _have_the_proof_wait(box, DAMAGED)
    with box.engine(), box.reco_agent():
        box.take(KILLED, TIMED_OUT, GOOD, DAMAGED, *QUARANTINED)
        for run in (KILLED, TIMED_OUT):
            box.wait_until_told(run, "hang")
        # They will do better the next time.
        box.software.set_faults(RELEASE, faults | {str(VANISHED): "hang"})
        box.kill(KILLED, "job.py job.json")
        _damage_before_the_proof(box, DAMAGED)
        for run in (GOOD, KILLED, TIMED_OUT):
            box.wait_until(run, JobState.PROVEN)
        for run in (*QUARANTINED, DAMAGED):
            box.wait_until(run, JobState.QUARANTINED)
        # Last, since a node takes all of its jobs along.
        box.take(VANISHED)
        box.wait_until_told(VANISHED, "hang")
        box.software.set_faults(RELEASE, {})
        batch.lose_worker(box, VANISHED)
        box.wait_until(VANISHED, JobState.PROVEN)
    found = {run: box.jobs(run)[0] for run in (GOOD, *QUARANTINED, *hanging, DAMAGED)}
    for run, (fault, words) in QUARANTINED.items():
        assert re.search(words, found[run].problem or "", re.DOTALL), found[run].problem
        if fault.startswith("exit-"):
            assert f"told to end with {fault}" in (box.room.scratch / f"logs/{found[run].name}/payload.log").read_text()
    assert re.search("adler32|damaged|differ", found[DAMAGED].problem or ""), found[DAMAGED].problem
    # On a busy machine ARC may give up what it stages.
    assert found[GOOD].attempts == 1 or batch.stages
    for run in hanging:
        assert found[run].attempts == 2 or (batch.stages and found[run].attempts == 3)
    story = {run: box.mover("custody", "show", str(run)).stdout for run in hanging}
    assert re.search(batch.killed_words, story[KILLED])
    assert re.search("took longer|more than 30 s", story[TIMED_OUT])
    assert re.search(batch.lost_words, story[VANISHED])
    good = {output_of(run) for run in (GOOD, *hanging)}
    assert {path for path in box.stored()["ral-tape"] if "RECO" in path} <= good
    shown = box.mover("reco", "status", *map(str, found)).stdout
    assert "4 proven" in shown
    assert f"{len(QUARANTINED) + 1} quarantined" in shown


@pytest.mark.long
def test_an_output_that_a_compute_element_cannot_store_is_told_in_its_words_and_made_again(
    site: Site, tmp_path: Path, new_reco_box: RecoBoxMaker
) -> None:
    with arc_batch(site, tmp_path) as batch:
        box = new_reco_box(kinds=("reco",), batch=batch.settings, public=batch.public, sessions=batch.sessions)
        box.have_disk_filled_from_here()
        box.software.set_faults(RELEASE, {str(RUN): "slow:5"})
        with box.engine(), box.reco_agent():
            box.take(RUN)
            box.wait_until_told(RUN, "slow")
            site.disk_brunel.set_disk_full(full=True)
            try:
                wait_for(lambda: box.jobs(RUN)[0].attempts > 1, lambda: box.reco_log)
            finally:
                site.disk_brunel.set_disk_full(full=False)
            box.wait_until(RUN, JobState.PROVEN)
    story = box.mover("custody", "show", str(RUN)).stdout
    assert re.search(r"04742_offline\S* (is not there|has \d+ bytes instead).*: arc says '.*data staging", story), story
    assert box.mover("reco", "status").stdout.count("keeps") == 0


#: Once an output is taken, the proof of it is due at the end of time.
_PUT_OFF = """\
CREATE TRIGGER put_off AFTER UPDATE OF next_attempt_at ON job WHEN NEW.run = {run} AND NEW.state = 'collected'
BEGIN UPDATE job SET next_attempt_at = '9999-12-31T00:00:00+00:00' WHERE id = NEW.id; END
"""


def _have_the_proof_wait(box: RecoBox, run: int) -> None:
    with box.catalogue() as database, database.transaction() as connection:
        connection.execute(_PUT_OFF.format(run=run))


def _damage_before_the_proof(box: RecoBox, run: int) -> None:
    """Flip a byte of the output once the storage has proven its checksum, and before it is read back."""
    (job,) = box.wait_until(run, JobState.COLLECTED)
    wait_for(lambda: _states(box, job) == {ReplicaState.VERIFIED}, lambda: f"{_states(box, job)} {box.reco_log}")
    (job,) = box.jobs(run)
    assert job.state is JobState.COLLECTED
    path = box.stored()["brunel-disk"][output_of(run)]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with box.catalogue() as database, database.transaction() as connection:
        connection.execute("DROP TRIGGER put_off")
        connection.execute("UPDATE job SET next_attempt_at = since WHERE run = ?", (run,))


def _states(box: RecoBox, job: JobRecord) -> set[ReplicaState]:
    with box.catalogue() as database:
        (row,) = database.query("SELECT bundle_id FROM job WHERE id = ?", job.id)
        return {one.state for one in replicas_of_bundle(database, row["bundle_id"])}
