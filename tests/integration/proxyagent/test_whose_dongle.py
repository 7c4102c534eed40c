"""Whose dongle it is: what is seen of it before a login, what is asked of another robot's, and what is told of it."""

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from mover.sandbox.ca import CertificateAuthority
from mover.sandbox.dongle import Dongle
from proxyagent.errors import WrongDongleError
from proxyagent.forecast import Level
from proxyagent.request import new_key
from tests.integration.proxyagent.conftest import Shim, pin_of
from tests.integration.proxyagent.robots import HOUR, RobotMaker, make_robot
from tests.integration.proxyagent.tools import store_certificate

__all__ = ["make_robot"]


def exchange(dongle: Dongle, other: Dongle) -> None:
    """Pull one dongle and plug another into its place."""
    tokens = dongle.directory / "tokens"
    tokens.rename(dongle.directory / f"pulled-{other.pin}")
    (other.directory / "tokens").rename(tokens)


def same_label(dongle: Dongle, authority: CertificateAuthority, name: str) -> Dongle:
    """Another robot's dongle, with the same label."""
    label = dongle.uri.removeprefix("pkcs11:token=").replace("%20", " ")
    return Dongle(dongle.directory / "other", authority, name, label=label)


def test_a_pin_goes_to_no_other_dongle_than_the_person_was_asked_for(make_robot: RobotMaker, shim: Shim) -> None:
    robot = make_robot()
    with pin_of(robot.dongle) as pin, pytest.raises(WrongDongleError, match="dongle 0123 was exchanged for"):
        robot.identity.unlock(pin, "0123")
    assert shim.logins == 0


def test_another_robots_dongle_is_asked_for_nothing_when_the_session_has_ended(
    make_robot: RobotMaker, shim: Shim, authority: CertificateAuthority
) -> None:
    robot = make_robot()
    robot.unlock()
    other = same_label(robot.dongle, authority, "Robot - somebody else")
    exchange(robot.dongle, other)
    robot.tick(3 * HOUR)  # SoftHSM answers with an error before it sees the exchange
    assert robot.identity.issuer.session is None
    logins = shim.logins
    with pytest.raises(WrongDongleError, match="somebody else, not of") as caught:
        robot.unlock(other)
    assert "restart the agent if the robot's name has changed" in caught.value.hint
    assert shim.logins == logins


def test_a_dongle_that_hides_whose_it_is_until_it_signs_makes_no_session(
    make_robot: RobotMaker, authority: CertificateAuthority
) -> None:
    robot = make_robot(identity='subject = "/C=UK/O=Sandbox/CN=Robot - another"')
    # Of two certificates nobody can tell before the login which one it will be.
    other = authority.issue_robot("Robot - another", new_key().public_key())
    store_certificate(robot.dongle, other.public_bytes(Encoding.DER), identifier=b"other")
    with pytest.raises(WrongDongleError, match=r"signs as /C=UK/O=Sandbox/CN=Robot - sandbox mover, not as .*another"):
        robot.unlock()
    assert robot.identity.issuer.session is None
    assert not robot.identity.logged_in


def test_a_dongle_with_others_certificates_only_is_asked_for_nothing(
    make_robot: RobotMaker, authority: CertificateAuthority, shim: Shim
) -> None:
    robot = make_robot(identity='subject = "/C=UK/O=Sandbox/CN=Robot - another"')
    stale = authority.issue_robot("Robot - of old", new_key().public_key())
    store_certificate(robot.dongle, stale.public_bytes(Encoding.DER), identifier=b"old")
    names = (
        "of .*CN=Robot - (sandbox mover|of old) and of .*CN=Robot - (sandbox mover|of old), not of .*CN=Robot - another"
    )
    with pytest.raises(WrongDongleError, match=names):
        robot.unlock()
    assert shim.logins == 0


def test_the_certificates_end_is_known_without_a_session(make_robot: RobotMaker, shim: Shim) -> None:
    robot = make_robot()
    end = robot.dongle.certificate.not_valid_after_utc
    assert robot.status.certificate_not_after == end
    assert robot.status.advice[0] == "plug the dongle now and run `proxyagent renew`"
    robot.unlock()
    shim.set("removed")
    robot.tick(3 * HOUR)
    assert robot.identity.issuer.session is None
    assert robot.status.certificate_not_after == end
    robot.clock.advance(end - robot.clock.now())
    for present in (False, True):
        if present:
            shim.clear("removed")
        assert robot.status.dongle.present == present
        assert robot.status.level is Level.EXPIRED
        assert not any("plug" in each for each in robot.status.advice)
        assert any(each.startswith("get a new certificate from the CA") for each in robot.status.advice)


def test_the_end_of_another_robots_certificate_is_not_told(make_robot: RobotMaker) -> None:
    robot = make_robot(identity='subject = "/C=UK/O=Sandbox/CN=Robot - another"')
    assert robot.status.dongle.kind == "wrong-dongle"
    assert robot.status.certificate_not_after is None
