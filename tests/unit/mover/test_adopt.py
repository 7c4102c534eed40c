"""Bundles of others are adopted only as they are proven, and nothing at the storage is changed by it."""

import hashlib
import tarfile
import time

import pytest

from mover.audit.choose import Choice
from mover.catalogue.agreement import disagreements
from mover.catalogue.replicas import replicas_of
from mover.catalogue.runs import bundle_of
from mover.errors import AdoptionError, CatalogueError, CredentialError, EndpointUnavailableError, FileMissingError
from mover.model import BundleKind
from mover.naming import LfnNaming, Step, Template
from mover.states import ReplicaState, RunState
from mover.steps.adopt import Adoption
from mover.steps.adopt import adopt as adopt_run
from mover.steps.stored import Patience, Sites
from mover.storage.memory import Call, MemoryEndpoint
from tests.unit.mover.auditing import audited, foreign_bundle
from tests.unit.mover.bench import NOW, Bench, FixedClock
from tests.unit.mover.running import known, replica, work

OLD = 1234
LFN = "MICE/01234.tar"
PARTS = {"01234.000": b"raw data" * 5000, "01234.001": b"more"}


BUNDLE = foreign_bundle(PARTS)
BROKEN = BUNDLE.replace(b"more", b"less")


def put(endpoint: MemoryEndpoint, data: bytes = BUNDLE) -> None:
    """Somebody stored it long ago."""
    endpoint.upload(LFN, [data], len(data))


def adopt(bench: Bench, run: int = OLD, *, names: tuple[str, ...] = ()) -> Adoption:
    """What `mover adopt` does for a run."""
    sites = Sites(bench.config, bench.endpoints, Patience(0.0, time.sleep), names=names)
    return adopt_run(bench.catalogue, bench.config, sites, run, now=NOW)


def states(bench: Bench) -> dict[str, ReplicaState]:
    """The run's replicas."""
    return {one.endpoint: one.state for one in replicas_of(bench.catalogue, OLD)}


def test_what_is_right_everywhere_is_adopted_as_proven(bench: Bench) -> None:
    for endpoint in bench.endpoints.values():
        put(endpoint)
    adopted = adopt(bench)
    assert adopted.is_new
    assert states(bench) == {"disk": ReplicaState.VERIFIED, "tape": ReplicaState.ARCHIVED}
    assert known(bench.catalogue, OLD).state is RunState.RELEASED
    bundle = bundle_of(bench.catalogue, OLD)
    assert bundle is not None
    assert (bundle.kind, bundle.lfn, bundle.plan) == (BundleKind.RAW, LFN, None)
    assert bundle.digest is not None
    assert [one.name for one in bundle.digest.members] == [*PARTS, "01234.md5"]
    assert dict(bundle.digest.members[1].digests)["sha256"] == hashlib.sha256(b"more").hexdigest()
    assert list(disagreements(bench.catalogue)) == []
    assert not adopt(bench).is_new
    assert list(disagreements(bench.catalogue)) == []
    for endpoint in bench.endpoints.values():
        assert endpoint.content(LFN) == BUNDLE
        assert [file.path for file in endpoint.list("MICE")] == [LFN]
    assert audited(bench, Choice(deep=True)).is_well


def test_a_deep_audit_finds_what_happens_to_an_adopted_bundle(bench: Bench) -> None:
    for endpoint in bench.endpoints.values():
        put(endpoint)
    adopt(bench)
    bench.endpoints["disk"].remove(LFN)
    put(bench.endpoints["disk"], BROKEN)
    report = audited(bench, Choice(deep=True))
    texts = [finding.text for one in report.bundles[0].replicas for finding in one.findings]
    assert any("01234.001: md5 is" in text for text in texts)


def test_what_the_policy_wants_beside_it_is_copied_by_the_engine(bench: Bench) -> None:
    put(bench.endpoints["tape"])
    adopt(bench)
    assert states(bench) == {"tape": ReplicaState.ARCHIVED, "disk": ReplicaState.WANTED}
    assert replica(bench, OLD, "disk").backlog
    work(bench, "disk", FixedClock())
    assert states(bench) == {"tape": ReplicaState.ARCHIVED, "disk": ReplicaState.VERIFIED}
    assert bench.endpoints["disk"].content(LFN) == BUNDLE
    assert list(disagreements(bench.catalogue)) == []


def test_what_is_on_tape_only_is_brought_online(bench: Bench) -> None:
    put(bench.endpoints["tape"])
    bench.endpoints["tape"].evicted.add(LFN)
    adopt(bench)
    assert states(bench)["tape"] is ReplicaState.ARCHIVED


def test_what_its_storage_has_lost_is_not_waited_for(bench: Bench) -> None:
    put(bench.endpoints["tape"])
    bench.endpoints["tape"].migrated = lambda _: False
    bench.endpoints["tape"].evicted.add(LFN)
    with pytest.raises(AdoptionError, match="is LOST at its storage"):
        adopt(bench)


def test_what_is_not_on_tape_yet_is_waited_for_by_the_engine(bench: Bench) -> None:
    put(bench.endpoints["tape"])
    bench.endpoints["tape"].migrated = lambda _: False
    adopt(bench)
    assert states(bench)["tape"] is ReplicaState.VERIFIED
    bench.endpoints["tape"].migrated = lambda _: True
    work(bench, "tape", FixedClock())
    assert states(bench)["tape"] is ReplicaState.ARCHIVED


@pytest.mark.parametrize("other", [BROKEN, BUNDLE + bytes(512)])
def test_a_replica_that_differs_needs_a_person_and_the_others_are_adopted(bench: Bench, other: bytes) -> None:
    put(bench.endpoints["tape"], other)
    put(bench.endpoints["disk"])
    adopt(bench)
    assert states(bench) == {"tape": ReplicaState.QUARANTINED, "disk": ReplicaState.VERIFIED}
    assert "instead of" in str(replica(bench, OLD, "tape").problem)
    assert list(disagreements(bench.catalogue)) == []


def test_if_the_first_that_is_read_is_broken_the_next_one_is_read(bench: Bench) -> None:
    put(bench.endpoints["tape"])
    put(bench.endpoints["disk"], BROKEN)
    adopt(bench)
    assert states(bench) == {"tape": ReplicaState.ARCHIVED, "disk": ReplicaState.QUARANTINED}
    assert "01234.001: md5 is" in str(replica(bench, OLD, "disk").problem)
    assert bench.endpoints["disk"].content(LFN) == BROKEN


def _extra(parts: dict[str, bytes]) -> bytes:
    whole = foreign_bundle(parts)
    info = tarfile.TarInfo("01234.999")
    return whole[: 512 * 81] + info.tobuf(tarfile.GNU_FORMAT) + whole[512 * 81 :]


@pytest.mark.parametrize(
    "data", [BROKEN, BUNDLE[:-1], b"", b"not a tar", _extra(PARTS), foreign_bundle(PARTS, run=99)]
)  # fmt: skip
def test_a_bundle_that_is_not_what_its_listing_says_is_refused_and_nothing_is_recorded(
    bench: Bench, data: bytes
) -> None:
    put(bench.endpoints["disk"], data)
    with pytest.raises(AdoptionError, match="is not adopted"):
        adopt(bench)
    assert bench.catalogue.query("SELECT * FROM run") == []
    assert bench.catalogue.query("SELECT * FROM custody") == []


def test_an_endpoint_that_does_not_answer_is_left_to_the_engine_which_adopts_what_is_there(bench: Bench) -> None:
    for endpoint in bench.endpoints.values():
        put(endpoint)
    bench.endpoints["tape"].fail_next(EndpointUnavailableError("down", hint="wait"), "stat")
    adopted = adopt(bench)
    assert adopted.unasked == ("tape: down",)
    assert states(bench) == {"disk": ReplicaState.VERIFIED, "tape": ReplicaState.WANTED}
    work(bench, "tape", FixedClock())
    assert states(bench)["tape"] is ReplicaState.ARCHIVED


def test_only_the_named_endpoints_are_asked(bench: Bench) -> None:
    for endpoint in bench.endpoints.values():
        put(endpoint)
    adopt(bench, names=("disk",))
    assert states(bench) == {"disk": ReplicaState.VERIFIED, "tape": ReplicaState.WANTED}


def test_what_nobody_has_is_missing_but_silence_is_not_absence(bench: Bench) -> None:
    with pytest.raises(FileMissingError):
        adopt(bench)
    bench.endpoints["tape"].fail_next(EndpointUnavailableError("down", hint="wait"), "stat")
    with pytest.raises(AdoptionError, match="tape: down"):
        adopt(bench)


def test_a_run_that_is_known_or_has_files_here_is_not_adopted(bench: Bench) -> None:
    put(bench.endpoints["disk"])
    bench.daq.write_run(OLD, parts=1, part_bytes=5000)
    with pytest.raises(AdoptionError, match="has files in"):
        adopt(bench)
    bench.close_run()
    with pytest.raises(CatalogueError, match="is planned, and was not adopted"):
        adopt(bench, 4742)


def test_without_a_proxy_nothing_is_said(bench: Bench) -> None:
    put(bench.endpoints["disk"])
    calls: tuple[Call, ...] = ("stat", "read", "checksum")
    for call in calls:
        bench.endpoints["disk"].fail_next(CredentialError("no Grid proxy", hint="renew"), call)
        with pytest.raises(CredentialError):
            adopt(bench)
    assert bench.catalogue.query("SELECT * FROM run") == []


NAMING = LfnNaming(
    Template.parse(
        "MICE/{step}/{century:05d}/{run:05d}.tar", required={"run"}, optional=frozenset({"century", "step"})
    ),
    (Step("Step1", 0), Step("Step4", 5889)),
)


@pytest.mark.parametrize("run", [0, 4742, 5888, 5889, 123456])
def test_the_run_of_an_lfn_is_found_again(run: int) -> None:
    assert NAMING.run_of(NAMING.lfn(run)) == run


@pytest.mark.parametrize(
    "lfn",
    [
        "MICE/Step4/04700/04742.tar",
        "MICE/Step1/04800/04742.tar",
        "MICE/Step1/04700/4742.tar",
        "MICE/Step1/04700/04742.tar.mover-1.part",
        "MICE/{step}/04700/04742.tar",
        "",
    ],
)
def test_what_is_no_lfn_of_the_template_has_no_run(lfn: str) -> None:
    assert NAMING.run_of(lfn) is None
