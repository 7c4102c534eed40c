"""Which way a bundle takes: third-party copies, waiting for them, the local files, and replicas without local files."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from mover.catalogue import custody
from mover.catalogue.endpoints import record_sick, record_well
from mover.catalogue.replicas import get_replica, record_failed_copy, release_claim
from mover.catalogue.runs import record_run_event
from mover.errors import (
    CopyFailedError,
    EndpointUnavailableError,
    FileMissingError,
    NoSourceError,
    RunChangedError,
    ThirdPartyCopyError,
    VerificationError,
)
from mover.model import ChecksumKind
from mover.states import ReplicaState, RunEvent
from mover.steps.archive import archive
from mover.steps.route import Local, Relay, Route, ThirdParty, Wait, choose_route
from mover.steps.transfer import transfer
from mover.steps.verify import verify
from mover.storage.memory import MemoryEndpoint
from tests.unit.mover.bench import LFN, NOW, RUN, Bench, bundle_bytes
from tests.unit.mover.running import SettableClock, tune

DOWN = EndpointUnavailableError("down", hint="wait")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """As the other tests', but with third-party copies wanted."""
    bench = Bench(tmp_path)
    tune(bench, "endpoint", source="tpc")
    bench.close_run()
    return bench


def _route(bench: Bench, endpoint: str, *, failed_copies: int = 0) -> Route:
    work = bench.work(endpoint)
    try:
        for _ in range(failed_copies):
            record_failed_copy(bench.catalogue, work.claim)
        return choose_route(replace(work, replica=get_replica(bench.catalogue, work.replica.id)))
    finally:
        release_claim(bench.catalogue, work.claim)


def _prove(bench: Bench, endpoint: str) -> None:
    bench.step(transfer, endpoint)
    bench.step(verify, endpoint)


def _release(bench: Bench) -> None:
    """The run is safe by a policy that asks for the tape only, and its files are gone."""
    bench.step(archive, "tape")
    record_run_event(bench.catalogue, RUN, RunEvent.POLICY_HOLDS, now=NOW)
    record_run_event(bench.catalogue, RUN, RunEvent.FILES_REMOVED, now=NOW)
    for file in bench.files:
        file.unlink()


def _story(bench: Bench) -> list[tuple[object, object]]:
    return [
        (record.facts["route"], record.facts["source"])
        for record in custody.records(bench.catalogue, RUN)
        if record.event == "uploaded or adopted"
    ]


def test_the_first_of_the_policy_is_streamed_and_the_next_is_copied(bench: Bench) -> None:
    assert _route(bench, "tape") == Local()
    assert isinstance(_route(bench, "disk"), Wait)
    assert bench.step(transfer, "disk") is ReplicaState.WANTED
    _prove(bench, "tape")
    assert _route(bench, "disk") == ThirdParty("tape")
    sent = bundle_bytes(bench)
    for file in bench.files:
        file.unlink()
    _prove(bench, "disk")
    assert bench.endpoints["disk"].content(LFN) == sent
    assert _story(bench) == [("streamed from the local files", None), ("third-party copy", "tape")]


def test_the_order_of_the_policy_decides_who_goes_first(bench: Bench) -> None:
    raw = bench.config.policy.raw.model_copy(update={"endpoints": ("disk", "tape")})
    bench.config = bench.config.model_copy(update={"policy": bench.config.policy.model_copy(update={"raw": raw})})
    assert _route(bench, "disk") == Local()
    assert isinstance(_route(bench, "tape"), Wait)


def test_the_policy_may_choose_to_stream_again(bench: Bench) -> None:
    tune(bench, "endpoint", source="local")
    _prove(bench, "tape")
    assert _route(bench, "disk") == Local()


def test_without_a_common_protocol_everything_is_streamed(bench: Bench) -> None:
    tune(bench, "endpoint", third_party_copy=False)
    assert _route(bench, "disk") == Local()
    _prove(bench, "tape")
    assert _route(bench, "disk") == Local()


def test_nobody_waits_for_a_sick_source(bench: Bench) -> None:
    record_sick(bench.catalogue, "tape", DOWN, failures=3, probe_at=NOW, now=NOW)
    assert _route(bench, "disk") == Local()


def test_nobody_waits_for_a_source_that_fails(bench: Bench) -> None:
    bench.endpoints["tape"].fail_next(DOWN, "upload")
    with pytest.raises(EndpointUnavailableError):
        bench.step(transfer, "tape")
    with bench.catalogue.transaction() as connection:
        connection.execute("UPDATE replica SET failures = 1 WHERE endpoint = 'tape'")
    assert _route(bench, "disk") == Local()


def test_copies_that_fail_give_way_to_the_local_files_and_come_back(bench: Bench) -> None:
    _prove(bench, "tape")
    ways = [_route(bench, "disk"), *(_route(bench, "disk", failed_copies=1) for _ in range(4))]
    assert ways == [ThirdParty("tape"), ThirdParty("tape"), Local(), Local(), ThirdParty("tape")]


def test_a_copy_that_was_none_is_said_and_not_taken_for_one(bench: Bench) -> None:
    _prove(bench, "tape")
    disk = bench.endpoints["disk"]
    for _ in range(2):
        disk.fail_next(ThirdPartyCopyError("it went through the client", hint="see to the macaroons"), "copy_from")
        with pytest.raises(CopyFailedError, match="third-party copy from tape failed: it went through the client"):
            bench.step(transfer, "disk")
        assert disk.list("MICE") == []
    assert bench.step(transfer, "disk") is ReplicaState.COPIED
    assert _story(bench)[-1] == ("streamed from the local files", None)


def test_a_source_that_fails_does_not_make_the_target_sick(bench: Bench) -> None:
    _prove(bench, "tape")
    bench.endpoints["tape"].fail_next(DOWN, "read")
    with pytest.raises(CopyFailedError) as caught:
        bench.step(transfer, "disk")
    assert not isinstance(caught.value, EndpointUnavailableError)
    assert bench.endpoints["disk"].list("MICE") == []


def test_after_the_release_a_replica_is_made_from_another(bench: Bench) -> None:
    _prove(bench, "tape")
    sent = bundle_bytes(bench)
    _release(bench)
    tune(bench, "endpoint", third_party_copy=False)
    assert _route(bench, "disk") == Relay("tape")
    _prove(bench, "disk")
    assert bench.endpoints["disk"].content(LFN) == sent
    assert _story(bench)[-1] == ("copy through this machine", "tape")


def test_a_stored_copy_that_went_bad_is_never_passed_on(bench: Bench) -> None:
    _prove(bench, "tape")
    _release(bench)
    tune(bench, "endpoint", third_party_copy=False)
    bench.endpoints["tape"].corrupt(LFN)
    with pytest.raises(CopyFailedError, match=r"was read as .* with adler32"):
        bench.step(transfer, "disk")
    assert bench.endpoints["disk"].list("MICE") == []


def test_after_the_release_a_source_on_tape_is_brought_online_first(bench: Bench) -> None:
    _prove(bench, "tape")
    _release(bench)
    tape = bench.endpoints["tape"]
    tape.evicted.add(LFN)
    assert bench.step(transfer, "disk") is ReplicaState.WANTED
    assert bench.endpoints["disk"].list("MICE") == []
    assert not tape.evicted, "nobody asked for it"
    assert bench.step(transfer, "disk") is ReplicaState.COPIED


def test_a_source_that_was_lost_is_said(bench: Bench) -> None:
    _prove(bench, "tape")
    _release(bench)
    tape = bench.endpoints["tape"]
    tape.evicted.add(LFN)
    tape.migrated = lambda _: False
    with pytest.raises(CopyFailedError, match="is LOST at its storage") as caught:
        bench.step(transfer, "disk")
    assert isinstance(caught.value.__cause__, FileMissingError)


def test_nothing_to_copy_from_is_said_and_tried_again(bench: Bench) -> None:
    _prove(bench, "tape")
    _release(bench)
    record_sick(bench.catalogue, "tape", DOWN, failures=3, probe_at=NOW, now=NOW)
    with pytest.raises(NoSourceError, match="no local files any more"):
        bench.step(transfer, "disk")
    assert not NoSourceError.permanent


def test_an_endpoint_without_checksums_is_copied_to_and_read_back(bench: Bench) -> None:
    bench.endpoints["disk"] = MemoryEndpoint(name="disk", checksums=frozenset[ChecksumKind]())
    _prove(bench, "tape")
    bench.step(transfer, "disk")
    (temporary,) = [file.path for file in bench.endpoints["disk"].list("MICE")]
    bench.endpoints["disk"].corrupt(temporary)
    with pytest.raises(VerificationError, match="has adler32"):
        bench.step(verify, "disk")
    _prove(bench, "disk")
    assert bench.state("disk") is ReplicaState.VERIFIED


def test_a_copy_that_is_wrong_gives_way_to_the_local_files(bench: Bench) -> None:
    _prove(bench, "tape")
    bench.endpoints["tape"].corrupt(LFN)
    bench.step(transfer, "disk")
    with pytest.raises(VerificationError, match="has adler32"):
        bench.step(verify, "disk")
    _prove(bench, "disk")
    assert bench.endpoints["disk"].content(LFN) == bundle_bytes(bench)
    assert _story(bench)[1:] == [("third-party copy", "tape"), ("streamed from the local files", None)]


def test_a_source_that_does_not_come_online_gives_way_to_the_local_files(bench: Bench) -> None:
    class BrokenRobot(MemoryEndpoint):
        def bring_online(self, path: str) -> None:
            """It is asked, and nothing comes."""

    tape = bench.endpoints["tape"] = BrokenRobot(name="tape", tape=True)
    _prove(bench, "tape")
    tape.evicted.add(LFN)
    states = [bench.step(transfer, "disk") for _ in range(3)]
    assert states == [ReplicaState.WANTED, ReplicaState.WANTED, ReplicaState.COPIED]
    assert _story(bench)[-1] == ("streamed from the local files", None)


@pytest.mark.parametrize(("waited_seconds", "pause_seconds"), [(0, 2), (-3600, 2), (300, 30), (86400, 60)])
def test_the_longer_a_source_takes_the_less_often_it_is_looked_for(
    bench: Bench, clock: SettableClock, waited_seconds: float, pause_seconds: float
) -> None:
    clock.advance(waited_seconds)
    work = bench.work("disk")
    transfer(replace(work, clock=clock))
    assert get_replica(bench.catalogue, work.replica.id).next_attempt_at == clock.now() + timedelta(
        seconds=pause_seconds
    )


def test_a_source_that_nobody_asks_any_more_is_tried_in_the_end(bench: Bench, clock: SettableClock) -> None:
    """Its breaker opened, and then there was no work left for a probe."""
    _prove(bench, "tape")
    _release(bench)
    record_sick(bench.catalogue, "tape", DOWN, failures=3, probe_at=NOW, now=NOW)
    clock.advance(bench.config.engine.longest_probe_seconds)
    work = bench.work("disk")
    with pytest.raises(NoSourceError):
        choose_route(replace(work, clock=clock))
    clock.advance(1)
    assert choose_route(replace(work, clock=clock)) == ThirdParty("tape")


def test_files_that_somebody_took_away_are_no_source_once_there_is_another(bench: Bench) -> None:
    tune(bench, "endpoint", source="local")
    sent = bundle_bytes(bench)
    _prove(bench, "tape")
    bench.files[1].unlink()
    record_sick(bench.catalogue, "tape", DOWN, failures=3, probe_at=NOW, now=NOW)
    with pytest.raises(NoSourceError):
        bench.step(transfer, "disk")
    record_well(bench.catalogue, "tape")
    _prove(bench, "disk")
    assert bench.endpoints["disk"].content(LFN) == sent
    assert bench.files[0].exists()


def test_files_that_somebody_took_away_before_anything_was_stored_need_a_person(bench: Bench) -> None:
    bench.files[1].unlink()
    with pytest.raises(RunChangedError, match="cannot be opened"):
        bench.step(transfer, "tape")
