"""The PIN guard, and PINs that can be wiped."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyagent.errors import PinNotSentError
from proxyagent.pin import PinGuard, Secret, check_form


def secret(text: str) -> Secret:
    return Secret(bytearray(text.encode()))


def test_a_pin_that_failed_is_not_sent_again_to_that_dongle() -> None:
    guard = PinGuard()
    guard.check("A", secret("1234"))
    assert not guard.failed("A", secret("1234"), suspect=False)
    with pytest.raises(PinNotSentError, match="failed on dongle A before") as caught:
        guard.check("A", secret("1234"))
    assert "1234" not in caught.value.message + caught.value.hint
    guard.check("A", secret("12345"))
    guard.check("B", secret("1234"))
    # Another process knows nothing of it.
    PinGuard().check("A", secret("1234"))


def test_a_suspect_failure_may_be_repeated_once() -> None:
    guard = PinGuard()
    assert guard.failed("A", secret("1234"), suspect=True)
    guard.check("A", secret("1234"))
    # The second time it is final, however suspect.
    assert not guard.failed("A", secret("1234"), suspect=True)
    with pytest.raises(PinNotSentError):
        guard.check("A", secret("1234"))


@given(serials=st.lists(st.text(max_size=5), min_size=2, max_size=2, unique=True), pin=st.text(min_size=1, max_size=5))
def test_serial_and_pin_do_not_run_into_each_other(serials: list[str], pin: str) -> None:
    guard = PinGuard()
    guard.failed(serials[0], secret(pin), suspect=False)
    assert guard._digest(serials[0], secret(pin)) in guard._suspect
    assert guard._digest(serials[1], secret(pin)) not in guard._suspect


def test_the_memory_of_failures_is_bounded_and_holds_no_pin() -> None:
    guard = PinGuard()
    for number in range(1000):
        guard.failed("A", secret(f"pin-{number}"), suspect=False)
    assert len(guard._suspect) == 256
    assert b"pin-999" not in pickle.dumps(guard.__dict__)
    with pytest.raises(PinNotSentError):
        guard.check("A", secret("pin-999"))


@pytest.mark.parametrize("pin", [b"", b"x" * 256, b"12\n34", b"12\x0034", b"\xff\xfe", b"\x7f"])
def test_what_cannot_be_a_pin_costs_no_attempt(pin: bytes) -> None:
    with pytest.raises(PinNotSentError) as caught:
        check_form(Secret(bytearray(pin)))
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_secret_is_wiped_and_never_shown() -> None:
    buffer = bytearray(b"1234")
    with Secret(buffer) as pin:
        assert "1234" not in repr(pin)
    assert buffer == bytes(4)
