"""Releasing local files: only what the storage itself shows at that moment counts."""

from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta

import pytest

from mover.catalogue import custody
from mover.catalogue.database import Database
from mover.catalogue.replicas import (
    replicas_of,
)
from mover.catalogue.runs import find_run, record_run_event
from mover.config import Config
from mover.errors import (
    CredentialError,
    EndpointUnavailableError,
    NotSafeError,
    RunChangedError,
)
from mover.states import ReplicaState, RunEvent, RunState
from mover.steps.archive import archive
from mover.steps.close import Closed, close_run
from mover.steps.look import look_again
from mover.steps.release import release_run
from mover.steps.transfer import transfer
from mover.steps.verify import verify
from tests.unit.mover.bench import LFN, NOW, RUN, Bench, FixedClock
from tests.unit.mover.running import SettableClock, events, known, work


def _not_on_tape(bench: Bench) -> None:
    bench.endpoints["tape"].migrated = lambda _: False


def _gone_from_disk(bench: Bench) -> None:
    bench.endpoints["disk"].remove(LFN)


def _corrupt_on_tape(bench: Bench) -> None:
    bench.endpoints["tape"].corrupt(LFN)


def _disk_is_down(bench: Bench) -> None:
    bench.endpoints["disk"].fail_next(EndpointUnavailableError("down", hint="wait"))


def replace_policy(config: Config, **values: object) -> Config:
    """The configuration with another policy, maybe one that its endpoints do not satisfy (a later change of mind)."""
    raw = config.policy.raw.model_copy(update=values)
    return config.model_copy(update={"policy": config.policy.model_copy(update={"raw": raw})})


def test_the_whole_way_to_released(bench: Bench) -> None:
    assert bench.close_run() is Closed.PLANNED
    tape, disk = bench.endpoints["tape"], bench.endpoints["disk"]
    assert bench.step(transfer, "tape") is ReplicaState.COPIED
    assert [file.path for file in tape.list("MICE")] == [LFN]
    assert bench.step(verify, "tape") is ReplicaState.VERIFIED
    tape.migrated = lambda _: False
    assert bench.step(archive, "tape") is ReplicaState.VERIFIED
    tape.migrated = lambda _: True
    assert replicas_of(bench.catalogue, RUN)[0].next_attempt_at == NOW + timedelta(seconds=60)
    assert bench.step(transfer, "disk") is ReplicaState.COPIED
    assert [file.path for file in disk.list("MICE")] == [f"{LFN}.mover-1.part"]
    assert bench.step(verify, "disk") is ReplicaState.VERIFIED
    assert [file.path for file in disk.list("MICE")] == [LFN]
    assert tape.content(LFN) == disk.content(LFN)


def test_on_tape_then_safe_then_released(bench: Bench) -> None:
    bench.make_safe()
    assert bench.state("tape") is ReplicaState.ARCHIVED
    released = release_run(bench.catalogue, bench.config, RUN, bench.endpoints, clock=FixedClock())
    assert str(released.assessment).startswith("safe: 1 tape")
    assert list(bench.config.runs.directory.iterdir()) == []
    run = find_run(bench.catalogue, RUN)
    assert run is not None
    assert run.state is RunState.RELEASED


@pytest.mark.parametrize("spoil", [_not_on_tape, _gone_from_disk, _corrupt_on_tape, _disk_is_down])
def test_release_asks_the_storage_itself_and_keeps_the_files_if_it_says_no(
    bench: Bench, spoil: Callable[[Bench], None]
) -> None:
    bench.make_safe()
    spoil(bench)
    with pytest.raises(NotSafeError, match="not safe: lacks 1"):
        release_run(bench.catalogue, bench.config, RUN, bench.endpoints, clock=FixedClock())
    assert all(file.exists() for file in bench.files)


def test_a_run_that_is_not_safe_is_not_released(bench: Bench) -> None:
    bench.close_run()
    with pytest.raises(NotSafeError, match="is planned"):
        release_run(bench.catalogue, bench.config, RUN, bench.endpoints, clock=FixedClock())


def test_what_comes_to_light_while_the_storage_is_asked_stops_the_release(bench: Bench) -> None:
    """Asking may take hours: a person looks meanwhile, and finds a replica gone that the policy does not need."""
    bench.make_safe()

    def alive(_bytes_done: int) -> None:
        if known(bench.catalogue, RUN).state is RunState.SAFE:
            record_run_event(bench.catalogue, RUN, RunEvent.REPLICA_LOST, now=NOW)

    with pytest.raises(NotSafeError, match="is planned"):
        release_run(bench.catalogue, bench.config, RUN, bench.endpoints, clock=FixedClock(), alive=alive)
    assert all(file.exists() for file in bench.files)


def test_a_local_file_that_changed_after_bundling_is_not_removed(bench: Bench) -> None:
    bench.make_safe()
    bench.files[1].write_bytes(b"new data that nobody has stored")
    with pytest.raises(RunChangedError, match=r"04742\.001 has another size or time"):
        release_run(bench.catalogue, bench.config, RUN, bench.endpoints, clock=FixedClock())
    assert all(file.exists() for file in bench.files)


def test_a_release_that_was_cut_short_is_finished(bench: Bench) -> None:
    bench.make_safe()
    bench.files[0].unlink()
    release_run(bench.catalogue, bench.config, RUN, bench.endpoints, clock=FixedClock())
    assert list(bench.config.runs.directory.iterdir()) == []


def test_a_replica_that_is_only_believed_does_not_count_for_release(bench: Bench) -> None:
    bench.make_safe()
    bench.config = replace_policy(bench.config, disks=2)
    with pytest.raises(NotSafeError, match="lacks 1 disk"):
        release_run(bench.catalogue, bench.config, RUN, bench.endpoints, clock=FixedClock())


def test_a_part_that_appears_after_the_run_was_safe_stops_its_release(bench: Bench) -> None:
    bench.make_safe()
    late = bench.config.runs.directory / "04742.002"
    late.write_bytes(b"taken after the end of run")
    with pytest.raises(RunChangedError, match=r"04742\.002"):
        release_run(bench.catalogue, bench.config, RUN, bench.endpoints, clock=FixedClock())
    assert late.exists()
    assert all(file.exists() for file in bench.files)


def test_a_release_waits_for_every_endpoint_that_still_needs_the_files(bench: Bench) -> None:
    bench.config = replace_policy(bench.config, disks=0)
    bench.close_run()
    bench.step(transfer, "tape")
    bench.step(verify, "tape")
    bench.step(archive, "tape")
    record_run_event(bench.catalogue, RUN, RunEvent.POLICY_HOLDS, now=NOW)
    with pytest.raises(NotSafeError, match="disk still needs its files"):
        release_run(bench.catalogue, bench.config, RUN, bench.endpoints, clock=FixedClock())


class InterruptedClock(FixedClock):
    """A clock that a release asks for the second time at its end: then somebody else does something first."""

    def __init__(self, interrupt: Callable[[], object]) -> None:
        super().__init__()
        self._interrupts = iter([lambda: None, interrupt])

    def now(self) -> datetime:
        """The same moment as ever."""
        next(self._interrupts)()
        return super().now()


def test_of_two_releases_at_once_the_later_one_is_told_of_the_other(bench: Bench) -> None:
    bench.make_safe()
    with closing(Database(bench.config.catalogue)) as rival:
        clock = InterruptedClock(lambda: release_run(rival, bench.config, RUN, bench.endpoints, clock=FixedClock()))
        with pytest.raises(NotSafeError, match="released by somebody else at the same time"):
            release_run(bench.catalogue, bench.config, RUN, bench.endpoints, clock=clock)
    assert known(bench.catalogue, RUN).state is RunState.RELEASED
    assert events(bench, RUN).count(RunEvent.FILES_REMOVED) == 1


def test_a_replica_found_lost_while_the_files_go_is_made_again_before_the_run_counts_as_released(bench: Bench) -> None:
    bench.make_safe()
    with closing(Database(bench.config.catalogue)) as person:

        def look() -> None:
            bench.endpoints["disk"].remove(LFN)
            look_again(person, bench.config, RUN, bench.endpoints, clock=FixedClock())

        with pytest.raises(NotSafeError, match="run 4742 is planned again"):
            release_run(bench.catalogue, bench.config, RUN, bench.endpoints, clock=InterruptedClock(look))
    work(bench, "disk", FixedClock())
    record_run_event(bench.catalogue, RUN, RunEvent.POLICY_HOLDS, now=NOW)
    release_run(bench.catalogue, bench.config, RUN, bench.endpoints, clock=FixedClock())
    assert known(bench.catalogue, RUN).state is RunState.RELEASED


def test_custody_has_the_time_after_the_storage_was_asked(bench: Bench) -> None:
    bench.make_safe()
    clock = SettableClock()
    asked = iter([3600.0])

    def alive(_bytes_done: int) -> None:
        clock.advance(next(asked, 0.0))

    release_run(bench.catalogue, bench.config, RUN, bench.endpoints, clock=clock, alive=alive)
    after = NOW + timedelta(hours=1)
    assert [one.at for one in custody.records(bench.catalogue, RUN)][-2:] == [after, after]
    assert known(bench.catalogue, RUN).since == after


def test_a_stray_end_of_a_released_run_leaves_no_problem(bench: Bench) -> None:
    bench.make_safe()
    release_run(bench.catalogue, bench.config, RUN, bench.endpoints, clock=FixedClock())
    assert close_run(bench.catalogue, bench.config, RUN, now=NOW, marker_ns=5) is Closed.RELEASED
    run = find_run(bench.catalogue, RUN)
    assert run is not None
    assert (run.state, run.problem, run.marker_ns) == (RunState.RELEASED, None, 5)
    with pytest.raises(NotSafeError, match="released already"):
        release_run(bench.catalogue, bench.config, RUN, bench.endpoints, clock=FixedClock())


def test_without_a_proxy_nothing_is_said_of_the_storage(bench: Bench) -> None:
    bench.make_safe()
    bench.endpoints["disk"].fail_next(CredentialError("no Grid proxy", hint="run `proxyagent renew`"), "stat")
    with pytest.raises(CredentialError):
        release_run(bench.catalogue, bench.config, RUN, bench.endpoints, clock=FixedClock())
    assert all(file.exists() for file in bench.files)


def test_a_tape_copy_that_was_evicted_is_brought_back_before_it_counts(bench: Bench) -> None:
    bench.make_safe()
    bench.endpoints["tape"].evicted.add(LFN)
    with pytest.raises(NotSafeError, match="on tape only"):
        release_run(bench.catalogue, bench.config, RUN, bench.endpoints, clock=FixedClock())
    assert all(file.exists() for file in bench.files)
    release_run(bench.catalogue, bench.config, RUN, bench.endpoints, clock=FixedClock())
    assert not any(file.exists() for file in bench.files)


def test_files_that_are_nowhere_to_be_seen_are_not_taken_for_removed(bench: Bench) -> None:
    """Their disk is not mounted, or another directory is configured."""
    bench.make_safe()
    elsewhere = bench.config.runs.directory.with_name("elsewhere")
    elsewhere.mkdir()
    mistaken = bench.config.model_copy(update={"runs": bench.config.runs.model_copy(update={"directory": elsewhere})})
    with pytest.raises(NotSafeError, match="no local file of run 4742 is in"):
        release_run(bench.catalogue, mistaken, RUN, bench.endpoints, clock=FixedClock())
    assert all(file.exists() for file in bench.files)
    record = find_run(bench.catalogue, RUN)
    assert record is not None
    assert record.state is RunState.SAFE
    release_run(bench.catalogue, mistaken, RUN, bench.endpoints, clock=FixedClock(), gone=True)
