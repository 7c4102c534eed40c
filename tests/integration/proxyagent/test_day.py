"""A day of simulated time: everything is renewed before it ends, and what goes wrong shows in time."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from mover.sandbox.ca import CertificateAuthority
from mover.sandbox.dongle import Dongle
from proxyagent import policy
from proxyagent.agent import Agent
from proxyagent.audit import AuditLog
from proxyagent.chain import not_after
from proxyagent.errors import CrlError, NoSessionError, RevokedError, VomsError
from proxyagent.forecast import Level
from proxyagent.messages import IdentityStatus
from proxyagent.pin import Secret
from proxyagent.report import identity_status
from proxyagent.request import make_request, new_key
from tests.movable_clock import MovableClock
from tests.voms_maker import AcMaker

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
SESSION = 3 * HOUR
FQANS = ("/mice/Role=production",)
KEY = new_key()


class Day:
    """An agent that is ticked by hand, with a VOMS server that answers at once."""

    def __init__(self, config: policy.Config, clock: MovableClock, voms: AcMaker) -> None:
        self.config = config
        self.clock = clock
        self.voms = voms
        self.voms_lifetime = 2 * HOUR
        self.audit = AuditLog(config.agent.state_directory, now=clock.now, on_head=lambda _sequence, _digest: None)
        self.agent = Agent(config, clock, self.audit)
        (self.identity,) = self.agent.identities.values()

    @property
    def status(self) -> IdentityStatus:
        return identity_status(self.identity, self.agent, self.config, self.clock)

    def pass_time(self, time: timedelta, each_minute: Callable[[], object] = lambda: None) -> None:
        for _ in range(time // MINUTE):
            self.clock.advance(MINUTE)
            self.agent.tick(self.identity)
            self.serve_voms()
            each_minute()

    def serve_voms(self) -> None:
        for want in self.agent.attributes.take_due(wait_seconds=0):
            session = self.identity.issuer.usable_session()
            der = self.voms.make(
                holder=session.certificate,
                fqans=want.fqans,
                not_before=self.clock.now() - MINUTE,
                lifetime=self.voms_lifetime,
            )
            try:
                self.agent.deliver(want, der)
            except VomsError as error:
                # As the fetcher does.
                self.agent.deliver_failure(want, error)

    def issue(self) -> datetime:
        """The end of a new client proxy."""
        (profile,) = self.config.profile
        return not_after(self.agent.issue(profile, make_request(KEY), 3600))


@pytest.fixture
def own_authority(tmp_path: Path) -> CertificateAuthority:
    return CertificateAuthority(tmp_path / "certificates")


@pytest.fixture
def day(tmp_path: Path, own_authority: CertificateAuthority, monkeypatch: pytest.MonkeyPatch) -> Iterator[Day]:
    dongle = Dongle(tmp_path / "dongle", own_authority)
    for name, value in dongle.environment.items():
        monkeypatch.setenv(name, value)
    voms = AcMaker(own_authority)
    voms.write_lsc(tmp_path / "vomsdir")
    file = tmp_path / "proxyagent.toml"
    file.write_text(
        f'[agent]\nsocket = "/nonexistent"\nstate_directory = "{tmp_path}"\n'
        f"session_lifetime_seconds = {int(SESSION.total_seconds())}\nwarn_seconds = 3600\n"
        f'[trust]\nca_directory = "{own_authority.directory}"\n'
        f'[voms]\nuid = 0\nvomsdir = "{tmp_path / "vomsdir"}"\n'
        f"{dongle.config()}"
        f'[[profile]]\nname = "mover"\nfqans = ["{FQANS[0]}"]\nuids = [0]\n'
    )
    found = Day(policy.load(file), MovableClock(), voms)
    try:
        with Secret(bytearray(dongle.pin.encode())) as pin:
            found.identity.unlock(pin, None)
        found.serve_voms()
        yield found
    finally:
        found.agent.close()
        found.audit.close()


def test_a_day_renews_everything_on_time(day: Day, own_authority: CertificateAuthority) -> None:
    sessions, fetched, levels = set(), set(), set()

    def look() -> None:
        status = day.status
        levels.add(status.level)
        session = day.identity.issuer.usable_session()
        sessions.add(session.chain[0].serial_number)
        # Never close to its end: the next one comes at six tenths of its life at the latest.
        assert session.left(day.clock) >= SESSION * 0.4 - 2 * MINUTE
        (attributes,) = day.agent.attributes.states(day.identity.name)
        assert attributes.not_after is not None
        fetched.add(attributes.not_after)
        assert attributes.not_after - day.clock.now() >= day.voms_lifetime * 0.4 - 2 * MINUTE
        assert day.issue() - day.clock.now() >= 0.4 * day.voms_lifetime - 2 * MINUTE

    for _ in range(24):
        own_authority.write_crl(last_update=day.clock.now() - HOUR, next_update=day.clock.now() + timedelta(days=2))
        day.pass_time(HOUR, look)
    assert levels == {Level.OK}
    # 3 h sessions, each used for 1.5 to 1.8 h; attribute certificates of 2 h, each for 1 to 1.2 h.
    assert 13 <= len(sessions) - 1 <= 16
    assert 19 <= len(fetched) - 1 <= 24


def test_a_pulled_dongle_lets_the_session_end_and_says_so_in_time(day: Day, tmp_path: Path) -> None:
    (tmp_path / "dongle" / "tokens").rename(tmp_path / "dongle" / "away")
    (tmp_path / "dongle" / "tokens").mkdir()
    end = day.identity.issuer.usable_session().not_after
    seen = []
    day.pass_time(SESSION - MINUTE, lambda: seen.append(day.status.level))
    assert seen == sorted(seen, key=list(Level).index)
    assert seen[0] is Level.OK
    assert seen.count(Level.SOON) >= 59
    status = day.status
    assert status.plug_before == end
    assert any("plug the dongle before" in advice for advice in status.advice)
    day.pass_time(2 * MINUTE)
    assert day.status.level is Level.EXPIRED
    with pytest.raises(NoSessionError):
        day.issue()


def test_an_expired_crl_fails_closed_until_there_is_a_new_one(day: Day, own_authority: CertificateAuthority) -> None:
    now = day.clock.now()
    own_authority.write_crl(last_update=now - HOUR, next_update=now + HOUR)
    day.pass_time(2 * MINUTE)
    assert day.status.level == "soon"
    assert "run fetch-crl" in day.status.advice[0]
    # Within the skew of five minutes it still counts; the test's own time passes too.
    day.pass_time(timedelta(minutes=60))
    day.issue()
    day.pass_time(timedelta(minutes=4))
    with pytest.raises(CrlError):
        day.issue()
    assert day.status.level == "expired"
    own_authority.write_crl(last_update=day.clock.now(), next_update=day.clock.now() + timedelta(days=7))
    day.pass_time(2 * MINUTE)
    day.issue()
    assert day.status.level == "ok"


def test_a_revoked_certificate_issues_nothing(day: Day, own_authority: CertificateAuthority) -> None:
    own_authority.revoke(day.identity.issuer.usable_session().certificate.serial_number)
    day.pass_time(2 * MINUTE)
    with pytest.raises(RevokedError):
        day.issue()
    assert day.status.level is Level.EXPIRED


def test_a_silent_voms_server_shows_before_its_attributes_end(day: Day) -> None:
    # From now on nothing is delivered, but the failures are reported, as the fetcher does.
    def fail() -> None:
        for want in day.agent.attributes.take_due(wait_seconds=0):
            day.agent.deliver_failure(want, VomsError("no VOMS server answered", hint="see whether it is up"))

    levels: list[Level] = []
    for _ in range(day.voms_lifetime // MINUTE - 5):
        day.clock.advance(MINUTE)
        day.agent.tick(day.identity)
        fail()
        levels.append(day.status.level)
    day.issue()
    assert levels[0] is Level.OK
    assert levels[-1] is Level.SOON
    day.clock.advance(6 * MINUTE)
    with pytest.raises(VomsError, match="no VOMS server answered"):
        day.issue()
    assert day.status.level is Level.EXPIRED
    day.clock.advance(20 * MINUTE)
    day.serve_voms()
    day.issue()


@pytest.mark.parametrize("step", [6 * HOUR, -8 * MINUTE])
def test_a_step_of_the_clock_is_noticed_and_survived(day: Day, step: timedelta) -> None:
    day.clock.step(step)
    day.pass_time(10 * MINUTE)
    session = day.identity.issuer.usable_session()
    assert timedelta(0) < session.left(day.clock) <= SESSION
    assert session.left(day.clock) == pytest.approx(SESSION, abs=SESSION * 0.6)
    assert "clock-step" in "".join(file.read_text() for file in day.config.agent.state_directory.glob("audit-*.jsonl"))
    day.pass_time(2 * HOUR)
    day.issue()
    assert day.status.level is Level.OK
