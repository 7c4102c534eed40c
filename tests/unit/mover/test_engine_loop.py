"""The engine's own loop: what it notices and remembers, what it shrugs off, how it ends, and two of them at once."""

import errno
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from mover.catalogue import custody
from mover.catalogue.database import Database
from mover.catalogue.owner import this_process
from mover.catalogue.replicas import claim_next, replicas_of
from mover.catalogue.runs import find_run, record_safe
from mover.config import Config
from mover.engine import Engine
from mover.errors import CatalogueError, StoppedError
from mover.ports import MayRemove, always
from mover.states import ReplicaState, RunEvent, RunState
from mover.steps.archive import archive
from mover.steps.close import close_run
from mover.steps.transfer import transfer
from mover.steps.verify import verify
from mover.storage.memory import MemoryEndpoint
from tests.unit.mover.bench import LFN, NOW, RUN, Bench
from tests.unit.mover.running import (
    DEADLINE_SECONDS,
    LATER_RUN,
    News,
    RunningEngine,
    SettableClock,
    end_later_run,
    events,
    is_in,
    known,
    look_once_more,
    marker_of,
    running,
    tune,
)

_A_WEEK = 7 * 86400.0
pytestmark = pytest.mark.usefixtures("looks_often")


def test_an_ended_run_becomes_safe_and_one_that_ends_later_too(bench: Bench, news: News) -> None:
    with running(bench):
        news.wait_until(is_in(bench, RUN, RunState.SAFE))
        end_later_run(bench)
        news.wait_until(is_in(bench, LATER_RUN, RunState.SAFE))
    assert [file.path for file in bench.endpoints["disk"].list("MICE")] == [LFN, LFN.replace("4742", "4743")]


def test_what_the_lanes_do_wakes_the_engine(bench: Bench, news: News) -> None:
    tune(bench, "runs", poll_seconds=_A_WEEK)
    bench.close_run()
    with running(bench):
        news.wait_until(is_in(bench, RUN, RunState.SAFE))


def test_an_engine_whose_lanes_wait_for_a_week_stops_when_asked(bench: Bench, news: News) -> None:
    tune(bench, "runs", poll_seconds=_A_WEEK)
    tune(bench, "endpoint", archive_poll_seconds=_A_WEEK)
    bench.endpoints["tape"].migrated = lambda _: False
    bench.close_run()
    with running(bench) as engine:
        news.wait_until(lambda: {one.state for one in replicas_of(bench.catalogue, RUN)} == {ReplicaState.VERIFIED})
        engine.engine.stop()
        engine.wait()


class WaitedForEndpoint(MemoryEndpoint):
    """Says how an upload failed."""

    def __init__(self, failed: Callable[[BaseException], None]) -> None:
        super().__init__(name="tape", tape=True)
        self._failed = failed

    def upload(self, path: str, chunks: Iterable[bytes], size_bytes: int, *, may_remove: MayRemove = always) -> None:
        """Store `chunks`."""
        try:
            super().upload(path, chunks, size_bytes, may_remove=may_remove)
        except BaseException as error:
            self._failed(error)
            raise


def test_an_engine_that_waits_for_a_dead_disk_stops_when_asked(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs, disk_is_back = threading.Event(), threading.Event()
    failures: list[BaseException] = []
    real_read = os.read

    def read(descriptor: int, length: int) -> bytes:
        if threading.current_thread().name == "prefetch":
            hangs.set()
            disk_is_back.wait(DEADLINE_SECONDS)
        return real_read(descriptor, length)

    def failed(error: BaseException) -> None:
        failures.append(error)
        disk_is_back.set()

    monkeypatch.setattr(os, "read", read)
    bench.endpoints["tape"] = WaitedForEndpoint(failed)
    bench.config = bench.config.model_copy(update={"endpoint": bench.config.endpoint[:1]})
    try:
        with running(bench) as engine:
            assert hangs.wait(DEADLINE_SECONDS)
            engine.engine.stop()
            engine.wait()
    finally:
        disk_is_back.set()
    assert [type(error) for error in failures] == [StoppedError]
    assert [(one.state, one.failures) for one in replicas_of(bench.catalogue, RUN)] == [(ReplicaState.WANTED, 0)]


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), RuntimeError("odd")])
def test_a_run_that_cannot_be_read_keeps_no_other_from_being_closed(
    bench: Bench, news: News, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    real_pread = os.pread
    sick = str(bench.files[1])

    def pread(descriptor: int, length: int, offset: int) -> bytes:
        if str(Path(f"/proc/self/fd/{descriptor}").readlink()) == sick:
            raise error
        return real_pread(descriptor, length, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", pread)
        with running(bench):
            end_later_run(bench)
            news.wait_until(is_in(bench, LATER_RUN, RunState.SAFE))
    assert find_run(bench.catalogue, RUN) is None, "nothing is known of it"
    assert news.count(f"run {RUN}: cannot be closed") > 0
    with running(bench):
        news.wait_until(is_in(bench, RUN, RunState.SAFE))


def test_a_directory_that_cannot_be_listed_for_a_moment_holds_up_one_run_for_one_look(
    bench: Bench, news: News, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine's own listing is another call; this one is made for each run that is closed."""
    real_scandir = os.scandir
    failed: list[object] = []

    def scandir(path: int) -> "os._ScandirIterator[str]":
        if not failed:
            failed.append(path)
            raise OSError(errno.EIO, "Input/output error")
        return real_scandir(path)

    end_later_run(bench)
    monkeypatch.setattr(os, "scandir", scandir)
    with running(bench):
        news.wait_until(is_in(bench, RUN, RunState.PLANNED))
    told = [message for message in news.messages if "clos" in message or "noticed" in message]
    assert told[0].startswith(f"run {RUN}: cannot be closed now: cannot list the run directory: Input/output error")
    assert told[1:] == [f"run {run}: end of run noticed, planned" for run in (LATER_RUN, RUN)]


def test_a_run_directory_that_goes_away_stops_neither_engine_nor_lanes(bench: Bench, news: News) -> None:
    bench.close_run()
    runs = bench.config.runs.directory
    away = runs.rename(runs.with_name("away"))
    with running(bench):
        news.wait_until(lambda: news.count("cannot read the run directory") > 0)
        news.wait_until(lambda: {one.failures > 0 for one in replicas_of(bench.catalogue, RUN)} == {True})
        away.rename(runs)
        look_once_more(bench, news)
    assert known(bench.catalogue, RUN).problem is None


def test_a_replica_at_an_endpoint_that_is_no_longer_configured_does_not_count(bench: Bench, news: News) -> None:
    extra = bench.config.endpoint[1].model_copy(update={"name": "old-disk", "url": "davs://e/f"})
    before = bench.config
    bench.config = before.model_copy(update={"endpoint": (*before.endpoint, extra)})
    bench.close_run()
    bench.config = before
    assert len(replicas_of(bench.catalogue, RUN)) == 3
    with running(bench):
        news.wait_until(is_in(bench, RUN, RunState.SAFE))


def test_what_a_dead_engine_held_is_taken_up_at_once(bench: Bench, news: News) -> None:
    bench.close_run()
    *place, started = this_process().split("/")
    dead = "/".join([*place, f"0{started}"])
    claim = claim_next(bench.catalogue, "tape", [ReplicaState.WANTED], owner=dead, lease=timedelta(days=1), now=NOW)
    assert claim is not None
    with running(bench):
        news.wait_until(is_in(bench, RUN, RunState.SAFE))


@pytest.mark.parametrize("table", ["member", "run"])
def test_a_catalogue_that_fails_ends_the_engine_with_that_error(bench: Bench, table: str) -> None:
    """`member` is written by a lane, `run` is read by the engine itself."""
    bench.spoiled = True
    lanes = {place.name for place in bench.config.endpoint}

    def damage(_: object) -> None:
        raw = sqlite3.connect(bench.config.catalogue)
        raw.execute(f"DROP TABLE IF EXISTS {table}")
        raw.close()

    engine = RunningEngine(Engine(bench.config, bench.open_endpoints, SettableClock(), observe=damage))
    with pytest.raises(CatalogueError, match=f"no such table: (main.)?{table}"):
        engine.wait()
    assert not lanes & {thread.name for thread in threading.enumerate()}


def test_an_engine_without_a_catalogue_does_not_start(bench: Bench) -> None:
    config = bench.config.model_copy(update={"catalogue": bench.config.catalogue / "no" / "such"})
    with pytest.raises(CatalogueError, match="cannot open the catalogue"):
        Engine(config, bench.open_endpoints, SettableClock()).run()


def test_two_engines_share_the_work(bench: Bench, news: News) -> None:
    end_later_run(bench)
    bench.close_run()
    close_run(bench.catalogue, bench.config, LATER_RUN, now=NOW)
    with running(bench), running(bench):
        for run in (RUN, LATER_RUN):
            news.wait_until(is_in(bench, run, RunState.SAFE))
    for run in (RUN, LATER_RUN):
        assert events(bench, run).count("upload intended") == 2
        assert events(bench, run).count(RunEvent.POLICY_HOLDS) == 1


class ClockOfAnother:
    """Asked by the engine's own thread for the first time, it has something happen before it answers."""

    def __init__(self, happens: Callable[[], None]) -> None:
        self._happens = happens
        self._engine = threading.current_thread()
        self._asked = False

    def now(self) -> datetime:
        """The time at which everything in these tests happens."""
        if threading.current_thread() is self._engine and not self._asked:
            self._asked = True
            self._happens()
        return NOW


def test_another_engine_may_find_the_run_safe_a_moment_earlier(bench: Bench) -> None:
    """It does so between our look at the replicas and our commit."""
    bench.close_run()
    marker_of(bench).unlink()
    for endpoint in ("tape", "disk"):
        bench.step(transfer, endpoint)
        bench.step(verify, endpoint)
    bench.step(archive, "tape")

    def find_safe() -> None:
        assert record_safe(bench.catalogue, RUN, now=NOW, found="by another engine")
        engine.stop()

    engine = Engine(bench.config, bench.open_endpoints, ClockOfAnother(find_safe))
    engine.run()
    assert known(bench.catalogue, RUN).state is RunState.SAFE
    assert events(bench, RUN).count(RunEvent.POLICY_HOLDS) == 1


@pytest.mark.parametrize("complete", [True, False])
def test_another_may_close_the_run_a_moment_earlier(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, complete: bool
) -> None:
    """An engine or `mover run close` does so between our look at the catalogue and our commit."""
    real_scandir = os.scandir
    engine = Engine(bench.config, bench.open_endpoints, SettableClock())

    def scandir(path: int) -> "os._ScandirIterator[str]":
        monkeypatch.setattr(os, "scandir", real_scandir)
        _close_elsewhere(bench.config)
        if not complete:
            bench.files[1].unlink()
        engine.stop()
        return real_scandir(path)

    monkeypatch.setattr(os, "scandir", scandir)
    engine.run()
    assert known(bench.catalogue, RUN).state is RunState.PLANNED


def _close_elsewhere(config: Config) -> None:
    database = Database(config.catalogue)
    try:
        close_run(database, config, RUN, now=NOW)
    finally:
        database.close()


def test_the_log_has_heads_of_the_custody_chain_to_compare_with_later(bench: Bench, news: News) -> None:
    clock = SettableClock()

    def heads() -> list[custody.Head]:
        said = (message.partition("custody head ")[2] for message in list(news.messages))
        return [custody.Head.parse(text) for text in said if text]

    with running(bench, clock):
        news.wait_until(is_in(bench, RUN, RunState.SAFE))
        assert not heads()
        clock.advance(3600)
        look_once_more(bench, news)
        news.wait_until(lambda: len(heads()) == 1)
        clock.advance(-3600)
        end_later_run(bench, run=LATER_RUN + 1)
        news.wait_until(lambda: len(heads()) == 2)
    assert heads()[-1] == custody.head(bench.catalogue)
    assert custody.verify(bench.catalogue, noted=heads()).records > 10
