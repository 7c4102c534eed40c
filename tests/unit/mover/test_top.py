"""`mover top`: what it shows, how it ends, and that the terminal is as it was before."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from mover.agentstate import AgentState, IdentityState, Urgency
from mover.catalogue.owner import this_process
from mover.catalogue.recent import proven_bytes
from mover.catalogue.replicas import claim_next
from mover.cli.main import cli
from mover.cli.tables import console
from mover.cli.topfacts import look
from mover.cli.topview import draw
from mover.errors import EndpointUnavailableError
from mover.states import ReplicaState
from mover.steps.hold import hold_run
from mover.steps.transfer import transfer
from mover.steps.verify import verify
from tests.unit.mover.bench import NOW, RUN, Bench
from tests.unit.mover.reco.campaignbench import CampaignBench
from tests.unit.mover.running import SettableClock, add_run, tune, work

SECONDS = 120.0


@pytest.fixture
def config(bench: Bench, tmp_path: Path) -> Path:
    """A configuration of the bench's catalogue."""
    bench.close_run()
    path = tmp_path / "mover.toml"
    path.write_text(
        f'experiment = "MICE"\ncatalogue = "{bench.config.catalogue}"\n[runs]\ndirectory = "{tmp_path}/daq"\n'
        f'[bundle]\nlfn = "MICE/{{run:05d}}.tar"\n[credential]\nagent = "{tmp_path}/none"\n'
        f'[[endpoint]]\nname = "disk"\nsite = "here"\nkind = "disk"\nurl = "file://{tmp_path}/disk"\n'
        "[policy.raw]\ntapes = 0\ntape_sites = 0\ndisks = 1\n"
    )
    return path


def shown(bench: Bench, *, hours: float = 0.0, agents: tuple[AgentState, ...] = ()) -> str:
    """The frame of so many hours after the bench's moment."""
    facts = look(bench.catalogue, bench.config, now=NOW + timedelta(hours=hours), agents=agents)
    out = console()
    with out.capture() as captured:
        out.print(draw(facts))
    return captured.get()


def test_what_is_moved_and_how_fast(bench: Bench) -> None:
    bench.close_run()
    assert claim_next(bench.catalogue, "disk", list(ReplicaState), owner=this_process(), lease=timedelta(1), now=NOW)
    bench.step(transfer, "tape")
    bench.step(verify, "tape")
    frame = shown(bench)
    assert "runs: 0 quarantined, 1 planned, 0 safe, 0 released" in frame
    assert f" {RUN}   raw      disk       brought there   71.7 kB" in frame
    (row,) = bench.catalogue.query("SELECT size_bytes FROM bundle")
    assert proven_bytes(bench.catalogue, since=NOW) == {"tape": row["size_bytes"]}
    assert proven_bytes(bench.catalogue, since=NOW + timedelta(seconds=1)) == {}
    assert f"{row['size_bytes'] / 600:.0f} B/s" in frame
    assert "0 B/s" in shown(bench, hours=1)
    # Its lease is over.
    assert "brought there" not in shown(bench, hours=25)


def test_health_alarms_and_credentials(bench: Bench, clock: SettableClock) -> None:
    bench.close_run()
    tune(bench, "engine", failures_before_pause=1)
    bench.endpoints["disk"].fail_next(EndpointUnavailableError("not \x1b[2J today", hint="wait"))
    work(bench, "disk", clock)
    add_run(bench, RUN + 1)
    hold_run(bench.catalogue, RUN + 1, reason="x", now=NOW)
    robot = IdentityState("robot", Urgency.SOON, NOW + timedelta(hours=3), NOW + timedelta(hours=2), ("plug it in",))
    frame = shown(bench, hours=2, agents=(AgentState(Path("/a"), (robot,)), AgentState(Path("/b"), (), "silence")))
    assert " disk       silent since 2026-01-02 03:04:05Z " in frame
    assert " tape       well " in frame
    assert "credential robot: soon until 2026-01-02 06:04:05Z; plug the dongle before 2026-01-02 05:04:05Z" in frame
    assert "credential agent: silence" in frame
    assert "! run 4743 was quarantined by " in frame
    assert "! disk has not answered for 60 min: not \\x1b[2J today — ask the site; " in frame
    assert frame.index("!! ") < frame.index(" ! ")


def test_jobs_and_campaigns(tmp_path: Path) -> None:
    bench = CampaignBench(tmp_path)
    bench.create()
    bench.turns(2)
    frame = shown(bench, hours=0.1)
    assert "campaign 1, runs 4742-4746: reco with 0.4.1: " in frame
    assert "jobs: 0 wanted, 0 submitted, " in frame


def test_without_a_terminal_it_is_shown_once(bench: Bench, config: Path) -> None:
    shown_once = CliRunner().invoke(cli, ["--config", str(config), "top"])
    assert shown_once.exit_code == 0, shown_once.output
    assert shown_once.stdout.startswith("MICE  20")
    found = CliRunner().invoke(cli, ["--config", str(config), "top", "--json"])
    assert json.loads(found.stdout)["runs"]["planned"] == 1


class Terminal:
    """A command on a terminal of its own, of 100 columns and 40 lines."""

    def __init__(self, process: "subprocess.Popen[bytes]", descriptor: int) -> None:
        self.process = process
        self.descriptor = descriptor
        self.seen = b""

    def read_until(self, done: Callable[[], bool]) -> None:
        """Read what it shows until something is so."""
        end = time.monotonic() + SECONDS
        while not done():
            assert time.monotonic() < end, self.seen
            if select.select([self.descriptor], [], [], 0.2)[0]:
                try:
                    self.seen += os.read(self.descriptor, 65536)
                except OSError:  # it has ended
                    return

    def ends(self) -> int:
        """Its exit code."""
        self.read_until(lambda: self.process.poll() is not None)
        return self.process.wait(SECONDS)


@contextmanager
def terminal(config: Path) -> Iterator[tuple[Terminal, list[object]]]:
    ours, its = pty.openpty()
    termios.tcsetwinsize(ours, (40, 100))
    before = termios.tcgetattr(its)
    command = [sys.executable, "-m", "mover", "--config", str(config), "top", "--every", "0.2"]
    environment = {**os.environ, "TERM": "xterm-256color"}
    process = subprocess.Popen(command, stdin=its, stdout=its, stderr=its, env=environment, start_new_session=True)
    try:
        one = Terminal(process, ours)
        one.read_until(lambda: one.seen.count(b"no engine runs") >= 2)
        yield one, before
        assert termios.tcgetattr(its) == before
        # The screen that was there before is there again, and the cursor.
        assert one.seen.rstrip().endswith((b"\x1b[?25h", b"\x1b[?1049l"))
    finally:
        process.kill()
        process.wait(SECONDS)
        os.close(its)
        os.close(ours)


def test_q_ends_it_and_leaves_the_terminal_as_it_was(bench: Bench, config: Path) -> None:
    with terminal(config) as (one, before):
        assert termios.tcgetattr(one.descriptor) != before
        os.write(one.descriptor, b"q")
        assert one.ends() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_leaves_the_terminal_as_it_was(bench: Bench, config: Path, number: signal.Signals) -> None:
    with terminal(config) as (one, _):
        one.process.send_signal(number)
        assert one.ends() == 0


def test_it_is_live(bench: Bench, config: Path) -> None:
    with terminal(config) as (one, _):
        add_run(bench, RUN + 1, now=datetime.now(UTC))
        one.read_until(lambda: b"2 planned" in one.seen)
        os.write(one.descriptor, b"x")
        one.read_until(lambda: one.seen.count(b"2 planned") >= 3)
        os.write(one.descriptor, b"q")
        assert one.ends() == 0


def test_a_catalogue_that_goes_away_is_an_error_on_a_terminal_as_it_was(bench: Bench, config: Path) -> None:
    with terminal(config) as (one, _):
        for file in bench.config.catalogue.parent.glob("catalogue.sqlite*"):
            file.unlink()
        assert one.ends() == 5
        assert b"cannot open the catalogue" in one.seen
        one.seen = one.seen.partition(b"error: ")[0]
        bench.spoiled = True
