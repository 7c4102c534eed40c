"""`mover run retry --look`: what the storage says of proven replicas, and what a person then does about it."""

from datetime import timedelta

import pytest

from mover.catalogue.replicas import retry_replicas
from mover.catalogue.runs import find_run, record_run_event
from mover.errors import CredentialError, EndpointUnavailableError, NotSafeError
from mover.model import ChecksumKind
from mover.states import ReplicaState, RunEvent, RunState
from mover.steps.archive import archive
from mover.steps.look import Looked, look_again
from mover.steps.release import release_run
from mover.steps.transfer import transfer
from mover.steps.verify import verify
from mover.storage.memory import MemoryEndpoint
from tests.unit.mover.bench import LFN, NOW, RUN, Bench, FixedClock
from tests.unit.mover.running import SettableClock, events, known, replica, work

NOTHING = Looked((), {}, {})


def look(bench: Bench) -> Looked:
    """What `mover run retry 4742 --look` does after taking up again what waited."""
    return look_again(bench.catalogue, bench.config, RUN, bench.endpoints, clock=SettableClock())


def release(bench: Bench) -> None:
    """What `mover release 4742 --now` does."""
    release_run(bench.catalogue, bench.config, RUN, bench.endpoints, clock=SettableClock())


def without_checksums(bench: Bench) -> None:
    """The disk's storage computes no checksum any more: it must be read back."""
    disk = MemoryEndpoint(name="disk", checksums=frozenset())
    data = bench.endpoints["disk"].content(LFN)
    disk.upload(LFN, [data], len(data))
    bench.endpoints["disk"] = disk
    assert ChecksumKind.ADLER32 not in disk.capabilities.checksums


@pytest.mark.parametrize("own_checksum", [True, False], ids=["own checksum", "read back"])
def test_the_whole_way_out_of_a_wrong_byte(bench: Bench, *, own_checksum: bool) -> None:
    bench.make_safe()
    right = bench.endpoints["tape"].content(LFN)
    if not own_checksum:
        without_checksums(bench)
    disk = bench.endpoints["disk"]
    disk.corrupt(LFN)
    # 1. The release refuses, and says what to do.
    with pytest.raises(NotSafeError, match=r"disk: .* has adler32") as refused:
        release(bench)
    assert "mover run retry 4742 --look" in refused.value.hint
    # 2. The look finds out what is wrong, and says what to do.
    found = look(bench)
    assert (found.lost, list(found.wrong), found.unasked) == ((), ["disk"], {})
    stored = replica(bench, RUN, "disk")
    assert stored.state is ReplicaState.QUARANTINED
    assert "has adler32" in (stored.problem or "")
    assert "remove it or rename it; then `mover run retry 4742`" in (stored.hint or "")
    assert known(bench.catalogue, RUN).state is RunState.PLANNED
    assert LFN in [file.path for file in disk.list("MICE")], "evidence is never removed"
    # 3. Before the site has done anything, another try changes nothing.
    retry_replicas(bench.catalogue, RUN, now=NOW)
    work(bench, "disk", FixedClock(NOW + timedelta(hours=1)))
    assert bench.state("disk") is ReplicaState.QUARANTINED
    # 4. The site renames it, and the person retries.
    disk.rename(LFN, "MICE/bad.tar")
    assert retry_replicas(bench.catalogue, RUN, now=NOW) == 1
    work(bench, "disk", FixedClock(NOW + timedelta(hours=1)))
    assert bench.state("disk") is ReplicaState.VERIFIED
    assert disk.content(LFN) == right
    # 5. The engine finds the run safe, and its files may go.
    record_run_event(bench.catalogue, RUN, RunEvent.POLICY_HOLDS, now=NOW)
    release(bench)
    assert known(bench.catalogue, RUN).state is RunState.RELEASED


def test_a_wrong_byte_that_the_site_mends_is_adopted(bench: Bench) -> None:
    bench.make_safe()
    bench.endpoints["disk"].corrupt(LFN)
    assert list(look(bench).wrong) == ["disk"]
    bench.endpoints["disk"].corrupt(LFN)
    retry_replicas(bench.catalogue, RUN, now=NOW)
    work(bench, "disk", FixedClock(NOW + timedelta(hours=1)))
    assert bench.state("disk") is ReplicaState.VERIFIED
    assert replica(bench, RUN, "disk").uploads == 1


def test_a_file_of_another_size_is_wrong(bench: Bench) -> None:
    bench.make_safe()
    disk = bench.endpoints["disk"]
    disk.remove(LFN)
    disk.upload(LFN, [b"short"], 5)
    assert "has 5 bytes instead of" in look(bench).wrong["disk"].message


def test_a_replica_that_is_lost_is_wanted_again_and_the_run_is_not_safe_meanwhile(bench: Bench) -> None:
    bench.make_safe()
    assert look(bench) == NOTHING
    bench.endpoints["tape"].remove(LFN)
    assert look(bench).lost == ("tape",)
    run = find_run(bench.catalogue, RUN)
    assert run is not None
    assert run.state is RunState.PLANNED
    bench.step(transfer, "tape")
    bench.step(verify, "tape")
    assert bench.step(archive, "tape") is ReplicaState.ARCHIVED


def test_lost_and_wrong_at_once_is_one_record_of_the_run(bench: Bench) -> None:
    bench.make_safe()
    bench.endpoints["tape"].remove(LFN)
    bench.endpoints["disk"].corrupt(LFN)
    found = look(bench)
    assert (found.lost, list(found.wrong)) == (("tape",), ["disk"])
    assert events(bench, RUN).count(RunEvent.REPLICA_LOST) == 1


def test_bytes_that_are_lost_behind_their_name_are_told_from_evicted_ones(bench: Bench) -> None:
    bench.make_safe()
    tape = bench.endpoints["tape"]
    tape.evicted.add(LFN)
    assert "on tape only" in look(bench).unasked["tape"].message
    assert look(bench) == NOTHING, "the first look has brought it online"
    tape.evicted.add(LFN)
    tape.migrated = lambda _: False
    assert "keeps the name" in look(bench).wrong["tape"].message
    tape.remove(LFN)
    tape.evicted.clear()
    tape.migrated = lambda _: True
    retry_replicas(bench.catalogue, RUN, now=NOW)
    work(bench, "tape", FixedClock(NOW + timedelta(hours=1)))
    assert bench.state("tape") is ReplicaState.ARCHIVED


def test_what_is_on_disk_but_not_on_tape_any_more_waits_for_the_tape_again(bench: Bench) -> None:
    bench.make_safe()
    bench.endpoints["tape"].migrated = lambda _: False
    assert "not on tape any more" in look(bench).wrong["tape"].message
    retry_replicas(bench.catalogue, RUN, now=NOW)
    work(bench, "tape", FixedClock(NOW + timedelta(hours=1)))
    assert bench.state("tape") is ReplicaState.VERIFIED
    bench.endpoints["tape"].migrated = lambda _: True
    work(bench, "tape", FixedClock(NOW + timedelta(hours=2)))
    assert bench.state("tape") is ReplicaState.ARCHIVED
    assert replica(bench, RUN, "tape").uploads == 1


def test_a_site_that_does_not_answer_keeps_nothing_from_being_found_at_the_others(bench: Bench) -> None:
    bench.make_safe()
    bench.endpoints["tape"].fail_next(EndpointUnavailableError("down", hint="wait"), "stat")
    bench.endpoints["disk"].corrupt(LFN)
    found = look(bench)
    assert (list(found.wrong), list(found.unasked)) == (["disk"], ["tape"])
    assert bench.state("tape") is ReplicaState.ARCHIVED


def test_without_a_proxy_nothing_is_said_of_the_storage(bench: Bench) -> None:
    bench.make_safe()
    bench.endpoints["tape"].remove(LFN)
    bench.endpoints["disk"].fail_next(CredentialError("no Grid proxy", hint="run `proxyagent renew`"), "stat")
    with pytest.raises(CredentialError):
        look(bench)
    assert known(bench.catalogue, RUN).state is RunState.SAFE


def test_what_another_one_has_found_meanwhile_is_not_found_twice(bench: Bench) -> None:
    """Two persons look at the same time: reading back a large bundle takes an hour."""
    bench.make_safe()
    bench.endpoints["disk"].corrupt(LFN)

    def alive(_bytes_done: int) -> None:
        if known(bench.catalogue, RUN).state is RunState.SAFE:
            look(bench)

    look_again(bench.catalogue, bench.config, RUN, bench.endpoints, clock=SettableClock(), alive=alive)
    assert events(bench, RUN).count("needs a person") == 1
    assert events(bench, RUN).count(RunEvent.REPLICA_LOST) == 1


def test_what_was_made_again_while_it_was_looked_at_stays(bench: Bench) -> None:
    """The bytes that were read were wrong, but by now they are others."""
    bench.make_safe()
    without_checksums(bench)
    disk = bench.endpoints["disk"]
    disk.corrupt(LFN)

    def alive(bytes_done: int) -> None:
        if bytes_done and known(bench.catalogue, RUN).state is RunState.SAFE:
            look(bench)
            disk.remove(LFN)
            retry_replicas(bench.catalogue, RUN, now=NOW)
            work(bench, "disk", FixedClock(NOW + timedelta(hours=1)))
            record_run_event(bench.catalogue, RUN, RunEvent.POLICY_HOLDS, now=NOW)

    assert (
        "disk"
        in look_again(bench.catalogue, bench.config, RUN, bench.endpoints, clock=SettableClock(), alive=alive).wrong
    )
    assert bench.state("disk") is ReplicaState.VERIFIED
    assert known(bench.catalogue, RUN).state is RunState.SAFE
