"""One identity over real dongles, ticked by hand: what is noticed when, what is tried again when, and what is not."""

import threading
from datetime import timedelta

import pytest

from mover.sandbox.ca import CertificateAuthority
from proxyagent.errors import (
    BusyError,
    ModuleError,
    NoSessionError,
    PinAtRiskError,
    PinNotSentError,
    VomsError,
)
from proxyagent.identity import Identity
from tests.integration.proxyagent.conftest import Shim
from tests.integration.proxyagent.robots import FQANS, HOUR, MINUTE, REQUEST, RobotMaker, make_robot
from tests.integration.proxyagent.test_helper_matrix import FINAL_TRY, GENERAL_ERROR
from tests.integration.proxyagent.test_module import wait_until
from tests.integration.proxyagent.test_unattended import SEALED, Sealer, seal
from tests.voms_maker import AcMaker

SECONDS = 60.0

__all__ = ["make_robot", "seal"]


def test_a_pulled_dongle_is_noticed_while_the_next_try_to_log_in_waits(
    make_robot: RobotMaker, seal: Sealer, shim: Shim
) -> None:
    robot = make_robot(settings='on_removal = "wipe"', identity=SEALED)
    robot.unlock()
    # The login is lost, the sealed PIN is refused, and the session lives on.
    seal("000000000")
    shim.set("sign_rv", GENERAL_ERROR)
    robot.tick(HOUR + 10 * MINUTE)
    shim.clear("sign_rv")
    for _ in range(6):
        robot.tick(5 * MINUTE)
    assert isinstance(robot.identity.problem, PinNotSentError)
    assert not robot.identity.logged_in
    session = robot.identity.issuer.usable_session()
    shim.set("removed")
    robot.tick()
    with pytest.raises(NoSessionError):
        robot.issue()
    assert session.left(robot.clock) > MINUTE
    assert "session-wiped" in robot.audited


def test_a_dongle_that_was_away_is_tried_at_once_and_soon_again(
    make_robot: RobotMaker, seal: Sealer, shim: Shim
) -> None:
    robot = make_robot(identity=SEALED)
    for _ in range(8):
        robot.tick(5 * MINUTE)
    assert robot.problem() == "pin-not-sent"  # none is sealed yet
    assert robot.audited.count("renewal-failed") == 1
    shim.set("removed")
    robot.tick()
    assert robot.problem() is None
    assert not robot.identity.renews_itself
    shim.clear("removed")
    robot.tick()
    seal(robot.dongle.pin)
    robot.tick()
    robot.issue()


def test_a_sealed_pin_that_was_not_sent_waits_for_nobody(make_robot: RobotMaker, seal: Sealer, shim: Shim) -> None:
    seal(make_robot().dongle.pin)
    robot = make_robot(identity=SEALED)
    shim.set("flags", FINAL_TRY)
    robot.tick()
    assert isinstance(robot.identity.problem, PinAtRiskError)
    assert robot.identity.unattended == "ready"
    shim.clear("flags")
    robot.tick()
    robot.issue()
    assert shim.logins == 1


def test_one_look_is_enough_for_a_login(make_robot: RobotMaker, shim: Shim) -> None:
    robot = make_robot()
    robot.identity.look()
    before = shim.calls("token_info")
    robot.identity.look()
    look = shim.calls("token_info") - before
    robot.unlock()
    # Once to look, and once more by the helper, just before the PIN is sent; signing looks at the serial number only.
    assert shim.calls("token_info") - before - look < 3 * look


def test_a_revocation_is_told_though_nobody_asks(make_robot: RobotMaker, authority: CertificateAuthority) -> None:
    robot = make_robot()
    certificate = robot.unlock().certificate
    authority.revoke(certificate.serial_number)
    robot.tick(2 * MINUTE)
    assert '"revoked"' in robot.audited


@pytest.mark.parametrize("on_removal", ["wipe", "keep"])
def test_a_dongle_that_was_away_between_two_looks_was_removed(
    make_robot: RobotMaker, shim: Shim, on_removal: str
) -> None:
    robot = make_robot(settings=f'on_removal = "{on_removal}"')
    robot.unlock()
    robot.tick()
    shim.set("replugged")
    robot.tick()
    assert not robot.identity.logged_in
    assert (robot.identity.issuer.session is None) == (on_removal == "wipe")
    assert ("session-wiped" in robot.audited) == (on_removal == "wipe")


def test_a_session_that_is_still_to_come_is_made_anew_or_told(make_robot: RobotMaker) -> None:
    robot = make_robot()
    robot.clock.step(HOUR)  # as by a clock in local time, until the time servers are reached
    robot.unlock()
    robot.clock.step(-HOUR)
    with pytest.raises(NoSessionError, match="set back"):
        robot.issue()
    assert robot.identity.issuer.session is None
    robot.tick()
    robot.issue()
    assert robot.identity.issuer.session is not None


def test_a_proxy_ends_with_its_session_by_the_stricter_clock(make_robot: RobotMaker) -> None:
    robot = make_robot()
    robot.unlock()
    robot.clock.advance(timedelta(seconds=6900))
    robot.clock.step(timedelta(seconds=-200))
    chain = robot.agent.issue(robot.config.profile[1], REQUEST, 600)
    assert chain[0].not_valid_after_utc <= robot.clock.now() + timedelta(seconds=301)


def test_attributes_of_a_wiped_session_are_forgotten_and_a_new_one_wants_them_at_once(
    make_robot: RobotMaker, authority: CertificateAuthority, shim: Shim
) -> None:
    robot = make_robot(settings='on_removal = "wipe"')
    store = robot.agent.attributes
    (want,) = store.wants
    found: list[object] = []
    fetching = threading.Thread(target=lambda: found.extend(store.take_due(wait_seconds=3600)), daemon=True)
    fetching.start()
    holder = robot.unlock().certificate
    fetching.join(SECONDS)
    assert found == [want]
    maker = AcMaker(authority)
    maker.write_lsc(robot.directory)
    der = maker.make(holder=holder, fqans=FQANS, not_before=robot.clock.now() - MINUTE, lifetime=HOUR)
    robot.agent.deliver(want, der)
    assert store.get(want, wait_seconds=0)
    shim.set("removed")
    robot.tick()
    with pytest.raises(VomsError):
        store.get(want, wait_seconds=0)


def test_attributes_that_come_when_the_session_is_wiped_are_not_kept(
    make_robot: RobotMaker, authority: CertificateAuthority, shim: Shim
) -> None:
    robot = make_robot(settings='on_removal = "wipe"')
    holder = robot.unlock().certificate
    (want,) = robot.agent.attributes.wants
    maker = AcMaker(authority)
    maker.write_lsc(robot.directory)
    der = maker.make(holder=holder, fqans=FQANS, not_before=robot.clock.now() - MINUTE, lifetime=HOUR)
    shim.set("removed")
    robot.clock.hook = lambda: robot.agent.tick(robot.identity)
    with pytest.raises(NoSessionError, match="changed meanwhile"):
        robot.agent.deliver(want, der)
    assert robot.identity.issuer.session is None
    with pytest.raises(VomsError, match="yet"):
        robot.agent.attributes.get(want, wait_seconds=0)


def test_a_sealed_pin_that_would_not_be_sent_again_is_not_promised(
    make_robot: RobotMaker, seal: Sealer, shim: Shim
) -> None:
    robot = make_robot(identity=SEALED)
    assert robot.identity.allow_unattended() is False
    seal("000000000")
    robot.tick()
    assert robot.identity.unattended == "waits"
    with pytest.raises(PinNotSentError, match=r"failed on dongle .* before") as caught:
        robot.identity.allow_unattended()
    assert "restart the agent, and say `proxyagent pin retry`" in caught.value.hint
    assert robot.identity.unattended == "waits"
    seal(robot.dongle.pin)
    assert robot.identity.allow_unattended() is True
    robot.tick()
    robot.issue()
    assert shim.logins == 2


def test_somebody_who_logs_in_is_no_failure_of_the_renewal(make_robot: RobotMaker, shim: Shim) -> None:
    robot = make_robot(settings="pin_pad_timeout_seconds = 60.0")
    robot.unlock()
    shim.set("login_hang")

    def log_in() -> None:
        with pytest.raises(ModuleError, match="an attempt of the PIN may be used up"):
            robot.unlock()

    waiting = threading.Thread(target=log_in)
    waiting.start()
    try:
        wait_until(shim.is_hanging)
        robot.tick(HOUR)
        assert robot.identity.problem is None
        assert "renewal-failed" not in robot.audited
    finally:
        shim.clear("login_hang")
        robot.agent.close()
        waiting.join(SECONDS)


def test_an_agent_that_has_ended_sends_no_pin(make_robot: RobotMaker, shim: Shim) -> None:
    robot = make_robot()
    robot.agent.close()
    with pytest.raises(BusyError, match="stopping"):
        robot.unlock()
    assert shim.logins == 0
    assert shim.calls("token_info") == 0


def test_one_dongle_is_tried_less_and_less_often_while_its_module_fails(make_robot: RobotMaker, shim: Shim) -> None:
    robot = make_robot()
    identity: Identity = robot.identity
    robot.unlock()
    shim.set("token_info_rv", GENERAL_ERROR)
    before = shim.calls("token_info")
    calls = []
    for _ in range(60):
        robot.tick()
        calls.append(shim.calls("token_info") - before)
    assert identity.problem is not None
    # Again after 15, 30, 60, 120, 240 and 300 s: that is seven tries in a quarter of an hour, not sixty.
    assert len(set(calls)) == 7
    shim.clear("token_info_rv")
    robot.tick(5 * MINUTE)
    assert identity.problem is None
