"""Metrics: true, bounded in number, readable by Prometheus, and served on loopback only."""

import json
import math
import re
import socket
import stat
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from prometheus_client.parser import text_string_to_metric_families

from mover.agentstate import AgentState, IdentityState, Urgency
from mover.catalogue.services import record_service
from mover.cli.main import cli
from mover.config import Config
from mover.errors import ConfigError, EndpointUnavailableError
from mover.metrics.collector import MoverCollector, render, served
from mover.steps.archive import archive
from mover.steps.hold import hold_run
from mover.steps.transfer import transfer
from mover.steps.verify import verify
from tests.unit.mover.bench import NOW, RUN, Bench
from tests.unit.mover.reco.recobench import RecoBench
from tests.unit.mover.running import SettableClock, add_run, tune, work

Values = dict[str, float]


def collector(bench: Bench, *, hours: float = 0.0, agents: tuple[AgentState, ...] = ()) -> MoverCollector:
    return MoverCollector(bench.config, now=lambda: NOW + timedelta(hours=hours), ask_agents=lambda: agents)


def parsed(text: bytes) -> Values:
    """Every sample, by its name and its labels' values."""
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def values(bench: Bench, **more: object) -> Values:
    return parsed(render(collector(bench, **more)))  # type: ignore[arg-type]


def test_runs_bundles_and_replicas_are_counted_by_state(bench: Bench) -> None:
    bench.close_run()
    add_run(bench, RUN + 1)
    hold_run(bench.catalogue, RUN + 1, reason="x", now=NOW)
    bench.step(transfer, "tape")
    found = values(bench, hours=2)
    assert (found["mover_runs planned"], found["mover_runs quarantined"], found["mover_runs safe"]) == (1, 1, 0)
    assert found["mover_run_oldest_seconds planned"] == 7200
    assert found["mover_runs_with_problem"] == 1
    assert found["mover_replicas tape copied"] == 1
    assert found["mover_replicas tape wanted"] == 1
    assert found["mover_replicas tape archived"] == 0
    assert found["mover_replica_oldest_seconds disk wanted"] == 7200
    (row,) = bench.catalogue.query("SELECT sum(size_bytes) AS bytes FROM bundle")
    assert found["mover_bundle_bytes raw"] == row["bytes"]
    assert found["mover_replica_bytes disk wanted"] == row["bytes"]
    assert found["mover_uploads_total tape"] == 1
    assert found["mover_custody_records_total"] > 3


def test_what_is_done_has_no_age(bench: Bench) -> None:
    bench.make_safe()
    found = values(bench, hours=2)
    assert not [name for name in found if name.startswith("mover_replica_oldest_seconds")]
    assert "mover_run_oldest_seconds safe" in found


def test_failures_and_silent_endpoints(bench: Bench, clock: SettableClock) -> None:
    bench.close_run()
    tune(bench, "engine", failures_before_pause=1)
    bench.endpoints["disk"].fail_next(EndpointUnavailableError("not today", hint="wait"))
    work(bench, "disk", clock)
    found = values(bench, hours=1)
    assert (found["mover_endpoint_up disk"], found["mover_endpoint_up tape"]) == (0, 1)
    assert found["mover_endpoint_silent_seconds disk"] == 3600
    assert found["mover_replica_failures disk"] == 1


def test_the_latency_to_tape_is_that_of_the_last_day(bench: Bench, clock: SettableClock) -> None:
    bench.close_run()
    for run, hours in ((RUN + 1, 2), (RUN + 2, 4)):
        add_run(bench, run, now=NOW - timedelta(hours=hours))
    bench.step(transfer, "disk")
    work(bench, "tape", clock)
    clock.advance(3600)
    work(bench, "tape", clock)
    clock.advance(3600)
    work(bench, "tape", clock)
    states = {row["state"] for row in bench.catalogue.query("SELECT state FROM replica WHERE endpoint = 'tape'")}
    assert states == {"archived"}
    (row,) = bench.catalogue.query("SELECT max(since) AS since FROM replica WHERE endpoint = 'tape'")
    found = values(bench, hours=3)
    assert found["mover_taped_last_day tape"] == 3
    assert found["mover_tape_latency_seconds tape 1"] - found["mover_tape_latency_seconds tape 0.5"] == 2 * 3600
    later = values(bench, hours=30)
    assert later["mover_taped_last_day tape"] == 0
    assert "mover_tape_latency_seconds tape 1" not in later
    assert row["since"]


def test_jobs_are_counted_by_kind_and_state(tmp_path: Path) -> None:
    bench = RecoBench(tmp_path)
    bench.what_becomes = lambda _: None
    bench.turn()
    found = values(bench, hours=1)
    assert (found["mover_jobs reco submitted"], found["mover_jobs mc submitted"]) == (1, 1)
    assert found["mover_jobs reco proven"] == 0
    assert found["mover_job_oldest_seconds reco submitted"] == 3600
    assert found["mover_job_attempts_total reco"] == 1
    assert found["mover_disk_free_bytes scratch"] > 0


def test_daemons_disks_credentials_and_alarms(bench: Bench) -> None:
    end = NOW + timedelta(hours=3)
    robot = IdentityState("robot", Urgency.SOON, end, NOW + timedelta(hours=2), ())
    agents = (AgentState(Path("/a"), (robot,)), AgentState(Path("/b"), problem="nobody listens"))
    found = values(bench, hours=1, agents=agents)
    assert found["mover_service_up engine"] == 0
    assert "mover_service_config_current engine" not in found
    record_service(bench.catalogue, "engine", "another", now=NOW)
    found = values(bench, hours=1, agents=agents)
    assert (found["mover_service_up engine"], found["mover_service_config_current engine"]) == (1, 0)
    assert found["mover_credential_seconds robot"] == 7200
    assert found["mover_plug_seconds robot"] == 3600
    assert found["mover_credential_urgency robot"] == 1
    assert (found["mover_agent_up /a"], found["mover_agent_up /b"]) == (1, 0)
    assert found["mover_alarms credential warning"] == 1
    assert found["mover_alarms credential critical"] == 1
    assert 0 < found["mover_disk_free_bytes runs"] <= found["mover_disk_bytes runs"]
    assert found["mover_metrics_made_seconds"] == (NOW + timedelta(hours=1)).timestamp()


def test_a_disk_that_is_away_has_no_metrics_and_the_others_have(bench: Bench, tmp_path: Path) -> None:
    tune(bench, "runs", directory=tmp_path / "gone")
    found = values(bench)
    assert "mover_disk_bytes runs" not in found
    assert "mover_disk_bytes catalogue" in found
    assert found["mover_alarms disk-fills-up critical"] == 1


def test_there_are_not_more_of_them_for_more_runs(bench: Bench) -> None:
    bench.close_run()
    few = values(bench, hours=1000)
    for run in range(RUN + 1, RUN + 40):
        add_run(bench, run)
        if run % 2:
            hold_run(bench.catalogue, run, reason="x", now=NOW)
    many = values(bench, hours=1000)
    assert len(many) - len(few) <= 1  # the age of quarantined runs
    assert not [name for name in many if re.search(r"47\d\d", name)]


@pytest.fixture
def mover(bench: Bench, tmp_path: Path) -> Callable[..., Result]:
    """The command, on the bench's catalogue."""
    config = tmp_path / "mover.toml"
    config.write_text(
        f'experiment = "MICE"\ncatalogue = "{bench.config.catalogue}"\n[runs]\ndirectory = "{tmp_path}/daq"\n'
        f'[bundle]\nlfn = "MICE/{{run:05d}}.tar"\n[credential]\nagent = "{tmp_path}/none"\n'
        f'[[endpoint]]\nname = "disk"\nsite = "here"\nkind = "disk"\nurl = "file://{tmp_path}/disk"\n'
        "[policy.raw]\ntapes = 0\ntape_sites = 0\ndisks = 1\n"
    )
    return lambda *arguments: CliRunner().invoke(cli, ["--config", str(config), *arguments])


def test_the_command_prints_them_or_writes_them_whole(
    bench: Bench, mover: Callable[..., Result], tmp_path: Path
) -> None:
    bench.close_run()
    assert parsed(mover("metrics").stdout_bytes)["mover_runs planned"] == 1
    file = tmp_path / "mover.prom"
    file.write_text("old")
    assert mover("metrics", "--output", str(file)).exit_code == 0
    assert parsed(file.read_bytes())["mover_agent_up " + str(tmp_path / "none")] == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert not list(tmp_path.glob("*.part"))
    refused = mover("metrics", "--output", str(tmp_path / "no" / "mover.prom"))
    assert (refused.exit_code, refused.stdout) == (12, "")
    found = json.loads(mover("metrics", "--json").stdout)
    assert {"name": "mover_runs", "labels": {"state": "planned"}, "value": 1} in found


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def _listening(bench: Bench, listen: str | None) -> Config:
    raw = bench.config.model_dump(mode="json") | {"metrics": {"listen": listen}}
    return Config.model_validate(raw)


def test_they_are_served_on_loopback_as_long_as_the_engine_runs(bench: Bench) -> None:
    bench.close_run()
    listen = f"127.0.0.1:{_free_port()}"
    config = _listening(bench, listen)
    with served(config, collector(bench)):
        with urllib.request.urlopen(f"http://{listen}/metrics", timeout=60) as answer:
            assert parsed(answer.read())["mover_runs planned"] == 1
        with pytest.raises(ConfigError, match="cannot be served"), served(config, collector(bench)):
            pass
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://{listen}/metrics", timeout=60)
    with served(_listening(bench, None), collector(bench)):
        pass


@pytest.mark.parametrize("listen", ["0.0.0.0:9464", "192.0.2.1:9464", "localhost:1", "127.0.0.1", "127.0.0.1:0", "::1"])
def test_they_are_served_nowhere_else(bench: Bench, listen: str) -> None:
    with pytest.raises(ValueError, match="write a loopback address and a port"):
        _listening(bench, listen)


def test_loopback_of_both_kinds_is_taken(bench: Bench) -> None:
    assert _listening(bench, "[::1]:9464").metrics.address() == ("::1", 9464)
    assert _listening(bench, "127.0.0.2:9464").metrics.address() == ("127.0.0.2", 9464)


def test_no_value_is_no_number(bench: Bench) -> None:
    bench.close_run()
    bench.step(transfer, "tape")
    bench.step(verify, "tape")
    bench.step(archive, "tape")
    assert all(math.isfinite(value) for value in values(bench, hours=-5).values())
    ages = [value for name, value in values(bench, hours=-5).items() if "oldest" in name or "latency" in name]
    assert ages
    assert min(ages) >= 0
