"""What is told of dongles goes through the helper's socket unchanged, and always fits."""

import json
from datetime import UTC, datetime

from proxyagent.description import DongleState, ListedCertificate, ListedDongle, ListedKey
from proxyagent.protocol import MAX_FRAME_BYTES
from proxyagent.uri import Uri
from tests.unit.proxyagent.conftest import Credential

WIDE = "\N{SNOWMAN}"  # six bytes in JSON

# As much as `listing` tells, and PKCS#11's longest texts.
LARGEST = ListedDongle(
    label=WIDE * 32,
    serial=WIDE * 16,
    manufacturer=WIDE * 32,
    model=WIDE * 16,
    initialised=True,
    pin_state="locked",
    pin_pad=True,
    keys=(ListedKey(label=WIDE * 64, id="f" * 64, type="RSA", size_bits=4096),) * 20,
    certificates=(
        ListedCertificate(
            label=WIDE * 64,
            id="f" * 64,
            subject=WIDE * 160,
            issuer=WIDE * 160,
            not_after=datetime(2027, 1, 1, tzinfo=UTC),
            key="RSA 4096",
        ),
    )
    * 20,
    problem=WIDE * 100,
)


def through_json(message: dict[str, object]) -> dict[str, object]:
    read = json.loads(json.dumps(message))
    assert isinstance(read, dict)
    return read


def test_a_listed_dongle() -> None:
    message = LARGEST.to_message()
    assert len(json.dumps({"dongle": message})) < MAX_FRAME_BYTES - 1000
    assert ListedDongle.from_message(through_json(message)) == LARGEST


def test_the_uri_of_a_listed_dongle_means_it() -> None:
    assert Uri.parse(LARGEST.uri) == Uri(serial=LARGEST.serial)


def test_a_state(robot: Credential) -> None:
    for certificates in ((), robot.chain, robot.chain * 20):
        state = DongleState(WIDE * 16, WIDE * 32, WIDE * 32, WIDE * 16, "low", True, certificates)
        assert len(json.dumps(state.to_message())) < MAX_FRAME_BYTES - 1000
        assert DongleState.from_message(through_json(state.to_message())) == state


def test_a_state_with_more_certificates_than_fit_tells_none(robot: Credential) -> None:
    state = DongleState("1", "label", "maker", "model", "low", True, robot.chain * 100)
    assert DongleState.from_message(state.to_message()).certificates == ()
