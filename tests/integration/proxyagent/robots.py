"""An agent in the test's own process, with one identity over a real dongle, ticked by hand."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from mover.sandbox.dongle import Dongle
from proxyagent import policy
from proxyagent.agent import Agent
from proxyagent.audit import AuditLog
from proxyagent.messages import IdentityStatus
from proxyagent.report import identity_status
from proxyagent.request import make_request, new_key
from proxyagent.session import Session
from tests.integration.proxyagent.conftest import pin_of
from tests.movable_clock import MovableClock

TICK = timedelta(seconds=15)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
REQUEST = make_request(new_key())
FQANS = ("/mice/Role=production",)


class HookedClock(MovableClock):
    """Does something once, when the time of day is next asked for: what another thread may do at that moment."""

    def __init__(self) -> None:
        super().__init__()
        self.hook: Callable[[], object] | None = None

    def now(self) -> datetime:
        hook, self.hook = self.hook, None
        if hook is not None:
            hook()
        return super().now()


class Robot:
    """An agent in this process, with one identity, whose threads the test is."""

    def __init__(self, dongle: Dongle, directory: Path, *, settings: str = "", identity: str = "") -> None:
        file = directory / "proxyagent.toml"
        file.write_text(
            f'[agent]\nsocket = "/nonexistent"\nstate_directory = "{directory}"\nmodule_timeout_seconds = 10.0\n'
            f'modules = ["{dongle.module}", "/usr/lib/*"]\nsession_lifetime_seconds = 7200\n{settings}\n'
            f'[trust]\nca_directory = "{dongle.ca_directory}"\n[voms]\nuid = 0\nvomsdir = "{directory}"\n'
            f"{dongle.config(settings=identity)}"
            f'[[profile]]\nname = "mover"\nfqans = ["{FQANS[0]}"]\nuids = [0]\n'
            '[[profile]]\nname = "plain"\nuids = [0]\n'
        )
        self.dongle = dongle
        self.directory = directory
        self.config = policy.load(file)
        self.clock = HookedClock()
        self.audit = AuditLog(directory, now=self.clock.now, on_head=lambda _sequence, _digest: None)
        self.agent = Agent(self.config, self.clock, self.audit)
        (self.identity,) = self.agent.identities.values()

    def unlock(self, dongle: Dongle | None = None) -> Session:
        with pin_of(dongle or self.dongle) as pin:
            return self.identity.unlock(pin, None)

    def tick(self, after: timedelta = TICK) -> None:
        self.clock.advance(after)
        self.agent.tick(self.identity)

    def issue(self) -> None:
        self.agent.issue(self.config.profile[1], REQUEST, 600)

    def problem(self) -> str | None:
        problem = self.identity.problem
        return problem.kind if problem is not None else None

    @property
    def status(self) -> IdentityStatus:
        return identity_status(self.identity, self.agent, self.config, self.clock)

    @property
    def audited(self) -> str:
        return "".join(file.read_text() for file in self.directory.glob("audit-*.jsonl"))

    def close(self) -> None:
        self.agent.close()
        self.audit.close()


RobotMaker = Callable[..., Robot]


@pytest.fixture
def make_robot(dongle: Dongle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RobotMaker]:
    for name, value in dongle.environment.items():
        monkeypatch.setenv(name, value)
    robots: list[Robot] = []

    def make(**options: str) -> Robot:
        directory = tmp_path / f"state-{len(robots)}"
        directory.mkdir(mode=0o700)
        robots.append(Robot(dongle, directory, **options))
        return robots[-1]

    yield make
    for robot in robots:
        robot.close()
