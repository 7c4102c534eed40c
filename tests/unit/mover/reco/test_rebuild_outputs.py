"""The catalogue is lost after runs were reconstructed: what is stored is entered, proven again, and not done twice."""

import time
from pathlib import Path

import pytest

from mover.catalogue import custody
from mover.catalogue.agreement import disagreements
from mover.catalogue.check import CHECKS
from mover.catalogue.database import Database
from mover.catalogue.jobs import JobKey
from mover.errors import CatalogueError
from mover.model import BundleKind
from mover.reco.again import retry_job
from mover.recoconfig import OutputName
from mover.states import JobState, ReplicaState, RunState
from mover.steps.look import look_again
from mover.steps.rebuild import rebuild_run
from mover.steps.rebuildoutput import RebuiltOutput, rebuild_output
from mover.steps.stored import Patience, Sites
from mover.steps.walk import stored_outputs
from tests.unit.mover.bench import RUN
from tests.unit.mover.reco.recobench import RELEASE, RecoBench, output_tar
from tests.unit.mover.running import known

RECO, MC = (JobKey(RUN, kind, RELEASE) for kind in (BundleKind.RECO, BundleKind.MC))
LFN = f"RECO/{RELEASE}/04742_offline.tar"


@pytest.fixture
def lost(tmp_path: Path) -> RecoBench:
    """A run whose outputs were proven and stored, with a new, empty catalogue; its agent is not started anew."""
    made = RecoBench(tmp_path)
    made.turns(6)
    assert made.where("04742_offline.tar").keys() == {"disk", "tape"}
    made.catalogue.close()
    made.config = made.config.model_copy(update={"catalogue": tmp_path / "new.sqlite"})
    made.catalogue = Database(made.config.catalogue, create=True)
    return made


def sites_of(reco: RecoBench) -> Sites:
    """All endpoints, without patience."""
    return Sites(reco.config, reco.endpoints, Patience(0.0, time.sleep))


def rebuild(reco: RecoBench, *, raw: bool = True) -> dict[BundleKind, RebuiltOutput]:
    """What `mover catalogue rebuild` does."""
    sites = sites_of(reco)
    now = reco.clock.now()
    if raw:
        assert rebuild_run(reco.catalogue, reco.config, sites, RUN, deep=False, now=now) is not None
    naming, found = reco.config.bundle.naming(), {}
    for kind in (BundleKind.RECO, BundleKind.MC):
        job = reco.config.job.of(kind)
        assert job is not None
        for name in stored_outputs(reco.endpoints["disk"], job, naming):
            key = JobKey(name.run, kind, name.release, name.iteration)
            output = rebuild_output(reco.catalogue, reco.config, sites, key, now=now)
            assert output is not None
            found[kind] = output
    reco.agent = reco.start_agent()
    return found


def check(reco: RecoBench) -> None:
    """The new catalogue is one that the mover may have written."""
    custody.verify(reco.catalogue)
    assert not list(disagreements(reco.catalogue))
    assert not [fault for _, check in CHECKS for fault in check(reco.catalogue)]


def test_what_is_stored_is_proven_again_and_not_done_again(lost: RecoBench) -> None:
    found = rebuild(lost)
    assert {one.key for one in found.values()} == {RECO, MC}
    everywhere = {"disk": ReplicaState.VERIFIED, "tape": ReplicaState.ARCHIVED}
    assert [dict(one.replicas) for one in found.values()] == [everywhere] * 2
    assert {job.state for job in lost.jobs().values()} == {JobState.COLLECTED}
    check(lost)
    lost.turns()
    for job in lost.jobs().values():
        assert (job.state, job.attempts) == (JobState.PROVEN, 0)
        assert job.proof is not None
    assert lost.where("04742_offline.tar") == everywhere
    check(lost)


def test_what_was_on_one_disk_only_goes_where_the_policy_wants_it_once_it_is_proven(lost: RecoBench) -> None:
    lost.endpoints["tape"].remove(LFN)
    rebuild(lost)
    assert lost.where(LFN) == {"disk": ReplicaState.VERIFIED}
    lost.turns()
    assert lost.where(LFN) == {"disk": ReplicaState.VERIFIED, "tape": ReplicaState.ARCHIVED}
    assert lost.stored("tape", LFN) == output_tar(RUN)
    check(lost)


def test_a_stored_output_that_is_not_good_is_found_out_and_its_job_not_done_again_by_itself(lost: RecoBench) -> None:
    for endpoint in lost.endpoints.values():
        endpoint.remove(LFN)
        bad = output_tar(RUN, {"reco.log": b"all is done\n"})
        endpoint.upload(LFN, [bad], len(bad))
    rebuild(lost)
    lost.turns()
    job = lost.jobs()[BundleKind.RECO]
    assert (job.state, job.attempts) == (JobState.QUARANTINED, 0)
    assert "has no 04742_recon.dat" in str(job.problem)
    # A person may have it done again: under another name.
    assert retry_job(lost.catalogue, job, now=lost.clock.now()).iteration == 2
    lost.turns(6)
    assert lost.job_state() is JobState.PROVEN
    assert lost.stored("tape", f"RECO/{RELEASE}/04742_offline_2.tar") == output_tar(RUN)
    check(lost)


def test_replicas_that_differ_need_a_person_and_the_nearest_is_held_against_the_contract(lost: RecoBench) -> None:
    lost.endpoints["tape"].remove(LFN)
    lost.endpoints["tape"].upload(LFN, [b"x" * 5000], 5000)
    found = rebuild(lost)[BundleKind.RECO]
    assert dict(found.replicas) == {"disk": ReplicaState.VERIFIED, "tape": ReplicaState.QUARANTINED}
    assert "has 5000 bytes instead of" in found.troubles[0]
    lost.turns()
    assert lost.job_state() is JobState.PROVEN
    assert lost.where(LFN)["tape"] is ReplicaState.QUARANTINED
    check(lost)


def test_what_is_on_tape_only_is_brought_online_where_the_storage_tells_no_checksum_without(lost: RecoBench) -> None:
    rebuild_run(lost.catalogue, lost.config, sites_of(lost), RUN, deep=False, now=lost.clock.now())
    lost.endpoints["disk"].remove(LFN)
    lost.endpoints["tape"].evicted.add(LFN)
    found = rebuild_output(lost.catalogue, lost.config, sites_of(lost), RECO, now=lost.clock.now())
    assert found is not None
    assert (found.is_new, found.unasked) == (True, ())
    assert dict(found.replicas) == {"tape": ReplicaState.ARCHIVED}


def test_an_output_without_raw_data_is_told_and_not_entered(lost: RecoBench) -> None:
    found = rebuild(lost, raw=False)[BundleKind.RECO]
    assert not found.is_new
    assert "there is no raw bundle of its run" in found.troubles[0]
    assert lost.jobs() == {}


def test_an_output_is_entered_once(lost: RecoBench) -> None:
    rebuild(lost)
    sites = sites_of(lost)
    with pytest.raises(CatalogueError, match="belongs to run 4742 already"):
        rebuild_output(lost.catalogue, lost.config, sites, RECO, now=lost.clock.now())
    nowhere = JobKey(RUN, BundleKind.RECO, "9.9")
    assert rebuild_output(lost.catalogue, lost.config, sites, nowhere, now=lost.clock.now()) is None
    check(lost)


def test_no_attempt_has_a_name_that_the_lost_catalogue_gave(lost: RecoBench) -> None:
    """Jobs of those days may still be in the batch system."""
    rebuild(lost)
    assert min(job.id for job in lost.jobs().values()) > 10**9


@pytest.mark.parametrize(
    ("lfn", "name"),
    [
        (LFN, OutputName(4742, "0.4.1", 1)),
        ("RECO/0.4.1/04742_offline_3.tar", OutputName(4742, "0.4.1", 3)),
        ("RECO/0.4.1/04742_offline_1.tar", None),
        ("RECO/0.4.1/4742_offline.tar", None),
        ("RECO/0.4.1/04742_offline.tar.mover-1.part", None),
        ("RECO/a b/04742_offline.tar", None),
        ("RECO/-x/04742_offline.tar", None),
        ("RECO/a/b/04742_offline.tar", None),
        ("MICE/04742.tar", None),
    ],
)
def test_a_name_tells_whose_output_it_is(tmp_path: Path, lfn: str, name: OutputName | None) -> None:
    job = RecoBench(tmp_path).config.job.reco
    assert job is not None
    assert job.output_of(lfn, ()) == name


def test_a_look_at_a_run_is_a_look_at_its_outputs_too(tmp_path: Path) -> None:
    reco = RecoBench(tmp_path)
    reco.turns(6)
    reco.endpoints["disk"].remove(LFN)
    looked = look_again(reco.catalogue, reco.config, RUN, reco.endpoints, clock=reco.clock)
    assert (looked.lost, looked.wrong, looked.nowhere) == ((f"disk ({LFN})",), {}, ())
    assert known(reco.catalogue, RUN).state is RunState.SAFE
    reco.turns(3)
    assert reco.stored("disk", LFN) == output_tar(RUN)
    for endpoint in reco.endpoints.values():
        endpoint.remove(LFN)
    looked = look_again(reco.catalogue, reco.config, RUN, reco.endpoints, clock=reco.clock)
    assert (len(looked.lost), looked.nowhere) == (2, (LFN,))
    check(reco)
