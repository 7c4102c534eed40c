"""What `mover status` and `mover run show` say: each thing once, who has to do something, and what waits for what."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from mover.catalogue.database import Database
from mover.catalogue.replicas import renew_claim
from mover.catalogue.services import record_service
from mover.cli.main import cli
from mover.config import load_config
from mover.errors import EndpointUnavailableError, LeaseLostError, RunChangedError
from mover.sandbox.daq import DaqWriter
from mover.steps.close import close_run
from mover.steps.transfer import transfer
from mover.steps.verify import verify
from tests.unit.mover.bench import NOW, RUN, Bench
from tests.unit.mover.running import SettableClock, add_run, claim_as_rival, tune, work

Mover = Callable[..., str]


@pytest.fixture
def mover(bench: Bench, tmp_path: Path) -> Mover:
    """The command, on the bench's catalogue; what it prints."""
    tune(bench, "endpoint", source="tpc")
    bench.close_run()
    config = tmp_path / "mover.toml"
    endpoints = "".join(
        f'[[endpoint]]\nname = "{name}"\nsite = "{name}"\nkind = "{name}"\nurl = "davs://{name}.example.org/store"\n'
        for name in ("tape", "disk")
    )
    config.write_text(
        f'experiment = "MICE"\ncatalogue = "{bench.config.catalogue}"\n[runs]\ndirectory = "{tmp_path}/daq"\n'
        f'[bundle]\nlfn = "MICE/{{run:05d}}.tar"\n{endpoints}[policy.raw]\ntapes = 1\ntape_sites = 1\ndisks = 1\n'
    )

    def run(*arguments: str, fails: int = 0) -> str:
        result = CliRunner().invoke(cli, ["--config", str(config), *arguments])
        assert result.exit_code == fails, result.output
        return result.stdout

    return run


def test_without_a_run_there_is_no_table(tmp_path: Path, mover: Mover, bench: Bench) -> None:
    bench.catalogue.close()
    for file in tmp_path.glob("catalogue.sqlite*"):
        file.unlink()
    Database(bench.config.catalogue, create=True).close()
    assert mover("status") == "no run was closed yet\n"


def test_status_says_once_who_has_to_do_what(bench: Bench, mover: Mover, clock: SettableClock) -> None:
    tune(bench, "endpoint", source="local")
    runs = [RUN, *range(RUN + 1, RUN + 12)]
    for run in runs[1:]:
        add_run(bench, run)
    bench.endpoints["tape"].upload("MICE/04744.tar", [b"theirs"], 6)
    work(bench, "tape", clock)
    for _ in runs:
        bench.endpoints["disk"].fail_next(EndpointUnavailableError("not today", hint="wait"))
    work(bench, "disk", clock)
    (bench.config.runs.directory / "04745.007").touch()
    with pytest.raises(RunChangedError):
        close_run(bench.catalogue, bench.config, 4745, now=clock.now())
    table, _, said = mover("status").partition("needs a person:\n")
    assert " 4743   planned   2026-01-02 03:04:05Z   tape: archived " in table
    people, _, itself = said.partition("is tried again:\n")
    assert people == (
        "  run 4744 at tape: memory://here/MICE/04744.tar is taken by another file of 6 bytes\n"
        "  run 4745 ended a second time, with other files: 04745.007 is new\n"
    )
    assert itself == (
        "  disk has not answered since 2026-01-02 03:04:05Z, and is asked again at 2026-01-02 03:04:35Z: not today "
        "(wait); runs 4742, 4743, 4744 wait\n"
    )


def test_what_an_endpoint_says_of_many_runs_is_said_once(bench: Bench, mover: Mover, clock: SettableClock) -> None:
    tune(bench, "endpoint", source="local")
    tune(bench, "engine", failures_before_pause=100)
    for run in range(RUN + 1, RUN + 12):
        add_run(bench, run)
        bench.endpoints["disk"].fail_next(EndpointUnavailableError("not today", hint="wait"))
    work(bench, "disk", clock)
    _, _, itself = mover("status").partition("is tried again:\n")
    named = ", ".join(str(run) for run in range(RUN, RUN + 10))
    assert itself == f"  runs {named} and 1 more at disk: not today\n"


def test_a_run_of_which_a_message_says_nothing_is_named(mover: Mover, tmp_path: Path) -> None:
    DaqWriter(tmp_path / "daq").write_run(7, parts=1, part_bytes=5000)[0].with_name("00007.001").symlink_to("/etc")
    assert mover("run", "close", "7", fails=4) == ""
    assert "needs a person:\n  run 7: 00007.001 is a symlink, not a plain file\n" in mover("status")


def test_a_replica_says_what_it_waits_for(bench: Bench, mover: Mover) -> None:
    def shown(endpoint: str) -> str:
        return next(line for line in mover("run", "show", str(RUN)).splitlines() if line.startswith(f" {endpoint} "))

    assert "wanted, waits for a third-party copy from tape  " in shown("disk")
    assert "waits" not in shown("tape")
    bench.step(transfer, "tape")
    assert "wanted, waits for a third-party copy from tape  " in shown("disk")
    bench.step(verify, "tape")
    assert "waits" not in shown("disk")


def test_a_daemon_that_goes_by_another_configuration_is_told(bench: Bench, mover: Mover, tmp_path: Path) -> None:
    path = tmp_path / "mover.toml"
    record_service(bench.catalogue, "engine", load_config(path).digest(), now=NOW)
    path.write_text("# only a comment\n" + path.read_text())
    assert "another configuration" not in mover("status")
    path.write_text(path.read_text().replace("disks = 1", "disks = 1\noptional = []\n[engine]\norder = 'newest-first'"))
    assert (
        "needs a person:\n  the engine, which runs since 2026-01-02 03:04:05Z, goes by another configuration than "
        f"{path} has now: restart it; until then it calls no run safe and releases nothing\n"
    ) in mover("status")


def test_a_claim_that_a_clock_ahead_made_is_told_and_taken_over_by_a_person(bench: Bench, mover: Mover) -> None:
    """Its engine is on another machine, and most likely dead: nothing goes on, and nothing failed."""
    now = datetime.now(UTC)
    claim = claim_as_rival(bench, "disk", now + timedelta(days=365))
    assert claim is not None
    said = f"run {RUN} at disk: an engine on elsewhere holds it until "
    assert said in mover("status").partition("needs a person:\n")[2]
    assert said in mover("run", "show", str(RUN))
    assert f"run {RUN}: taken over at disk from elsewhere\n" in mover("run", "retry", str(RUN))
    assert said not in mover("status")
    assert bench.work("disk").claim.fence == claim.fence + 1
    with pytest.raises(LeaseLostError):
        renew_claim(bench.catalogue, claim, now=now)


def test_a_lease_that_is_only_long_is_nothing_to_tell(bench: Bench, mover: Mover) -> None:
    claim = claim_as_rival(bench, "disk", datetime.now(UTC))
    assert claim is not None
    assert "elsewhere" not in mover("status") + mover("run", "show", str(RUN)) + mover("run", "retry", str(RUN))
    renew_claim(bench.catalogue, claim, now=datetime.now(UTC))


def test_why_a_replica_waits_is_said_below_the_table_whole(bench: Bench, mover: Mover, clock: SettableClock) -> None:
    tune(bench, "endpoint", source="local")
    bench.endpoints["disk"].fail_next(EndpointUnavailableError("not today" * 30, hint="wait \x1b"))
    work(bench, "disk", clock)
    assert f"\ndisk: {'not today' * 30}\n    wait \\x1b\n" in mover("run", "show", str(RUN))
