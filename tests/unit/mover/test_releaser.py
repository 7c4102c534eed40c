"""Retention, a disk that fills up, and the engine that releases by itself: reasons to ask, never to skip the asking."""

import itertools
import logging
import os
import threading
from collections.abc import Callable, Iterable
from datetime import timedelta

import pytest

from mover.catalogue.runs import record_run_event
from mover.config import Config, ReleaseConfig
from mover.configwatch import ConfigWatch
from mover.errors import ConfigError
from mover.ports import MayRemove, always
from mover.releaser import Releaser
from mover.states import ReplicaState, RunEvent, RunState
from mover.steps import retention
from mover.steps.release import check_release, release_run
from mover.storage.memory import MemoryEndpoint
from tests.unit.mover.bench import LFN, NOW, RUN, Bench, FixedClock
from tests.unit.mover.running import SettableClock, add_run, known, replica, tune, work

HOURS = 24.0


@pytest.fixture
def bench(bench: Bench) -> Bench:
    """A safe run, whose files are kept for a day."""
    bench.make_safe()
    tune(bench, "release", automatic=True, retention_hours=HOURS, hurry_at_percent=90.0)
    return bench


@pytest.fixture
def fill(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Says how full the disk is."""

    def fill(percent: float) -> None:
        real = os.statvfs(".")
        used = round(percent * 10)
        full = os.statvfs_result((1, 1, 1000, 1000 - used, 1000 - used, *tuple(real)[5:]))
        monkeypatch.setattr(os, "statvfs", lambda _: full)

    fill(10)
    return fill


def _look(bench: Bench, clock: SettableClock) -> None:
    releaser = Releaser(bench.config, bench.open_endpoints, clock, threading.Event(), ConfigWatch(bench.config))
    releaser.look(bench.catalogue, bench.endpoints)


def _state(bench: Bench, run: int = RUN) -> RunState:
    return known(bench.catalogue, run).state


def test_files_stay_for_the_retention_time(bench: Bench, clock: SettableClock, fill: Callable[[float], None]) -> None:
    clock.advance(HOURS * 3600 - 1)
    _look(bench, clock)
    assert _state(bench) is RunState.SAFE
    assert all(file.exists() for file in bench.files)
    clock.advance(1)
    _look(bench, clock)
    assert _state(bench) is RunState.RELEASED
    assert not any(file.exists() for file in bench.files)


def test_a_disk_that_fills_up_hurries_but_never_skips(
    bench: Bench, clock: SettableClock, fill: Callable[[float], None]
) -> None:
    fill(99.9)
    bench.endpoints["disk"].corrupt(LFN)
    _look(bench, clock)
    assert _state(bench) is RunState.SAFE
    assert all(file.exists() for file in bench.files)
    bench.endpoints["disk"].corrupt(LFN)
    _look(bench, clock)
    assert _state(bench) is RunState.RELEASED


def test_only_the_oldest_go_until_there_is_space_again(
    bench: Bench, clock: SettableClock, fill: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    later = RUN + 1
    add_run(bench, later)
    for endpoint in ("tape", "disk"):
        work(bench, endpoint, clock)
    record_run_event(bench.catalogue, later, RunEvent.POLICY_HOLDS, now=NOW)
    monkeypatch.setattr(
        "mover.releaser.fill_percent", lambda _: 95.0 if any(file.exists() for file in bench.files) else 85.0
    )
    _look(bench, clock)
    assert (_state(bench), _state(bench, later)) == (RunState.RELEASED, RunState.SAFE)


def test_why_files_stay_is_said_once_and_again_when_it_is_something_else(
    bench: Bench, clock: SettableClock, fill: Callable[[float], None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "mover")
    clock.advance(HOURS * 3600)
    releaser = Releaser(bench.config, bench.open_endpoints, clock, threading.Event(), ConfigWatch(bench.config))
    bench.endpoints["tape"].migrated = lambda _: False
    for _ in range(3):
        releaser.look(bench.catalogue, bench.endpoints)
        clock.advance(3600)
    bench.endpoints["tape"].remove(LFN)
    for _ in range(3):
        releaser.look(bench.catalogue, bench.endpoints)
        clock.advance(3600)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert "its local files stay" in said[0]
    assert "not on tape any more" in said[0]
    assert "not there any more" in said[1]


def test_a_site_is_asked_ever_less_often_for_what_may_not_go(
    bench: Bench, clock: SettableClock, fill: Callable[[float], None]
) -> None:
    """Each question may have the storage read a whole bundle for its checksum."""
    asked: list[float] = []

    def migrated(_path: str) -> bool:
        asked.append(clock.now().timestamp())
        return False

    clock.advance(HOURS * 3600)
    releaser = Releaser(bench.config, bench.open_endpoints, clock, threading.Event(), ConfigWatch(bench.config))
    bench.endpoints["tape"].migrated = migrated
    for _ in range(8 * 60):
        releaser.look(bench.catalogue, bench.endpoints)
        clock.advance(60)
    pauses = [round(later - sooner) for sooner, later in itertools.pairwise(dict.fromkeys(asked))]
    assert pauses[:7] == [60, 120, 240, 480, 960, 1920, 3600]
    assert set(pauses[7:]) == {3600}
    bench.endpoints["tape"].migrated = lambda _: True
    clock.advance(-365 * 86400.0)
    fill(95)
    releaser.look(bench.catalogue, bench.endpoints)
    assert _state(bench) is RunState.RELEASED, "a clock that was put back by a year keeps nothing"


def test_nothing_goes_by_a_policy_that_has_changed_since(
    bench: Bench, clock: SettableClock, fill: Callable[[float], None], caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody asks for more, and the engine goes on by what it was started with."""
    now = [bench.config]

    def read() -> Config:
        if not now:
            raise ConfigError("mover.toml is not TOML", hint="mend it")
        return now[0]

    started_with = bench.config
    watch = ConfigWatch(started_with, read)
    releaser = Releaser(started_with, bench.open_endpoints, clock, threading.Event(), watch)
    clock.advance(HOURS * 3600)
    tune(bench, "release", retention_hours=HOURS + 1)
    for changed in ([bench.config], []):
        now[:] = changed
        releaser.look(bench.catalogue, bench.endpoints)
        releaser.look(bench.catalogue, bench.endpoints)
        assert _state(bench) is RunState.SAFE
    assert [record.getMessage() for record in caplog.records if "restart" in record.getMessage()] == [
        "no run becomes safe, and no local file is released: the configuration has changed; restart the engine",
        "no run becomes safe, and no local file is released: mover.toml is not TOML (mend it); restart the engine",
    ]
    now[:] = [started_with.model_copy()]
    releaser.look(bench.catalogue, bench.endpoints)
    assert _state(bench) is RunState.RELEASED


def test_a_dry_run_asks_everything_and_changes_nothing(bench: Bench) -> None:
    before = list(bench.catalogue.query("SELECT * FROM custody"))
    found = check_release(bench.catalogue, bench.config, RUN, bench.endpoints)
    assert found.assessment.holds
    assert found.names == tuple(file.name for file in bench.files)
    assert found.size_bytes == sum(file.stat().st_size for file in bench.files)
    assert list(bench.catalogue.query("SELECT * FROM custody")) == before
    assert all(file.exists() for file in bench.files)


@pytest.fixture
def later(bench: Bench, clock: SettableClock) -> int:
    """Another run, safe too, which an optional endpoint wants as well."""
    extra = bench.config.places["disk"].model_copy(update={"name": "extra", "url": "davs://e/f"})
    raw = bench.config.policy.raw.model_copy(update={"optional": ("extra",)})
    bench.config = bench.config.model_copy(
        update={
            "endpoint": (*bench.config.endpoint, extra),
            "policy": bench.config.policy.model_copy(update={"raw": raw}),
        }
    )
    bench.endpoints["extra"] = MemoryEndpoint(name="extra")
    add_run(bench, RUN + 1)
    for endpoint in ("tape", "disk"):
        work(bench, endpoint, clock)
    record_run_event(bench.catalogue, RUN + 1, RunEvent.POLICY_HOLDS, now=NOW)
    return RUN + 1


def test_an_optional_endpoint_holds_up_no_release(bench: Bench, clock: SettableClock, later: int) -> None:
    release_run(bench.catalogue, bench.config, later, bench.endpoints, clock=FixedClock())
    assert _state(bench, later) is RunState.RELEASED
    # It is made from a stored replica then.
    work(bench, "extra", clock)
    assert replica(bench, later, "extra").state is ReplicaState.VERIFIED


def test_files_that_a_release_takes_away_under_an_upload_need_no_person(
    bench: Bench, clock: SettableClock, later: int
) -> None:
    part = bench.config.runs.directory / bench.config.runs.naming().part_name(later, 0)

    class Extra(MemoryEndpoint):
        def upload(
            self, path: str, chunks: Iterable[bytes], size_bytes: int, *, may_remove: MayRemove = always
        ) -> None:
            """The release is quicker than the reading."""
            part.unlink(missing_ok=True)
            super().upload(path, chunks, size_bytes, may_remove=may_remove)

    bench.endpoints["extra"] = Extra(name="extra")
    part.write_bytes(part.read_bytes()[:-1])
    work(bench, "extra", clock)
    found = replica(bench, later, "extra")
    assert (found.state, found.problem) == (ReplicaState.WANTED, f"local files of run {later} are gone")
    clock.advance(60)
    work(bench, "extra", clock)
    assert replica(bench, later, "extra").state is ReplicaState.VERIFIED


@pytest.mark.parametrize(
    ("hours", "percent", "why"),
    [
        (1, 10, None),
        (24, 10, "kept for 24 h since it became safe"),
        (-5, 10, None),
        (1, 90, "the disk is 90 % full"),
        (1, 89.9, None),
    ],
)
def test_what_is_a_reason(bench: Bench, hours: float, percent: float, why: str | None) -> None:
    limits = ReleaseConfig(retention_hours=24, hurry_at_percent=90)
    record = known(bench.catalogue, RUN)
    now = record.since + timedelta(hours=hours)
    assert retention.why_due(record, limits, now=now, fill_percent=percent) == why
