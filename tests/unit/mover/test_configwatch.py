"""A daemon that goes by an old configuration: it calls no run safe, and its catalogue says which one it goes by."""

import os
from datetime import UTC, datetime

import pytest

from mover.catalogue.services import record_service, services_here
from mover.config import Config
from mover.engine import Engine
from mover.errors import ConfigError
from mover.states import RunState
from tests.unit.mover.bench import NOW, RUN, Bench
from tests.unit.mover.running import RIVAL, News, SettableClock, add_run, known, look_once_more, running, tune, work


def all_moved(bench: Bench) -> None:
    """Everything is proven, and the engine has not looked yet."""
    bench.close_run()
    for endpoint in ("tape", "disk"):
        work(bench, endpoint, SettableClock())


def test_an_old_policy_makes_no_run_safe(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    now: list[Config] = []

    def read() -> Config:
        if not now:
            raise ConfigError("mover.toml is not TOML", hint="mend it")
        return now[0]

    all_moved(bench)
    add_run(bench, RUN + 1)
    started_with = bench.config
    engine = Engine(started_with, bench.open_endpoints, SettableClock(), read_config=read)
    tune(bench, "runs", poll_seconds=7.0)
    for changed in ([], [bench.config]):
        now[:] = changed
        for _ in range(2):
            engine.look_around(bench.catalogue)
        assert known(bench.catalogue, RUN).state is RunState.PLANNED
    assert [message for message in caplog.messages if "restart" in message] == [
        "no run becomes safe, and no local file is released: mover.toml is not TOML (mend it); restart the engine",
        "no run becomes safe, and no local file is released: the configuration has changed; restart the engine",
    ]
    now[:] = [started_with.model_copy()]
    engine.look_around(bench.catalogue)
    assert [known(bench.catalogue, run).state for run in (RUN, RUN + 1)] == [RunState.SAFE, RunState.PLANNED]


def test_runs_are_assessed_without_their_plans_and_members(bench: Bench) -> None:
    """Hundreds may be planned, of many parts each, and all are assessed each time that something is proven."""
    all_moved(bench)
    bench.spoiled = True
    with bench.catalogue.transaction() as connection:
        connection.execute("UPDATE bundle SET plan = 'not to be read'")
        connection.execute("UPDATE member SET digests = 'not to be read'")
    Engine(bench.config, bench.open_endpoints, SettableClock()).look_around(bench.catalogue)
    assert known(bench.catalogue, RUN).state is RunState.SAFE


def test_an_engine_says_by_which_configuration_it_goes(bench: Bench, news: News) -> None:
    bench.close_run()
    with running(bench):
        look_once_more(bench, news)
        (found,) = services_here(bench.catalogue)
    assert (found.name, found.config, found.started_at) == ("engine", bench.config.digest(), NOW)
    tune(bench, "runs", poll_seconds=7.0)
    assert found.config != bench.config.digest()


def test_daemons_that_ended_are_forgotten_and_those_of_other_machines_left_alone(bench: Bench) -> None:
    ended = f"{os.uname().nodename}/an earlier boot/pid:[1]/1/1"
    with bench.catalogue.transaction() as connection:
        connection.executemany(
            "INSERT INTO service (owner, name, started_at, config) VALUES (?, 'engine', ?, 'old')",
            [(ended, NOW.isoformat()), (RIVAL, NOW.isoformat())],
        )
    assert services_here(bench.catalogue) == []
    record_service(bench.catalogue, "engine", "new", now=datetime.now(UTC))
    assert [one.config for one in services_here(bench.catalogue)] == ["new"]
    assert {row["owner"] for row in bench.catalogue.query("SELECT owner FROM service")} >= {RIVAL}
    assert ended not in {row["owner"] for row in bench.catalogue.query("SELECT owner FROM service")}
