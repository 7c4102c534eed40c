"""Every fault of a dongle or its module is answered in time, by name and with a remedy, and is over when it is gone."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from mover.sandbox.ca import CertificateAuthority
from mover.sandbox.dongle import MODULE, Dongle
from proxyagent.errors import (
    LoginFailedError,
    ModuleCrashedError,
    ModuleError,
    ModuleTimeoutError,
    NoDongleError,
    NoSessionError,
    PinAtRiskError,
    PinCancelledError,
    PinExpiredError,
    PinLockedError,
    PinNotSentError,
    ProxyAgentError,
    WrongDongleError,
    WrongPinError,
)
from proxyagent.hsm import Helper
from proxyagent.pin import Secret
from proxyagent.request import new_key
from tests.integration.proxyagent.conftest import HelperMaker, Shim, log_in, pin_of

# PKCS#11 v2.40: CKF_… of a token, CKR_…
PIN_PAD, LOW, FINAL_TRY, LOCKED = 0x100, 0x10000, 0x20000, 0x40000
GENERAL_ERROR, DEVICE_ERROR, DEVICE_REMOVED = 5, 0x30, 0x32
CANCEL, FUNCTION_CANCELED, FUNCTION_REJECTED = 1, 0x50, 0x200
PIN_INCORRECT, PIN_LEN_RANGE, PIN_EXPIRED, PIN_LOCKED = 0xA0, 0xA2, 0xA3, 0xA4
SESSION_HANDLE_INVALID, TOKEN_NOT_PRESENT, USER_NOT_LOGGED_IN = 0xB3, 0xE0, 0x101
VENDOR = 0x80000001

SHORT_SECONDS = 4.0  # long enough to start a helper, short enough to wait for one that hangs
KEY = new_key()


@dataclass(frozen=True)
class Fault:
    """A switch of the module, and what comes of it."""

    switch: str
    value: int
    error: type[ProxyAgentError]
    says: str
    hint: str
    logins: int = 1

    def __str__(self) -> str:
        return f"{self.switch}={self.value:#x}"


@pytest.fixture(scope="module")
def dongle(tmp_path_factory: pytest.TempPathFactory, authority: CertificateAuthority) -> Dongle:
    """One for all, for nothing here changes what is on it; the switches are each test's own."""
    if not MODULE.exists():
        pytest.skip("needs the package softhsm2")
    return Dongle(tmp_path_factory.mktemp("dongle") / "dongle", authority)


def case(*fault: object, **more: object) -> Fault:
    return Fault(*fault, **more)  # type: ignore[arg-type]  # a table's row


def sign(helper: Helper) -> None:
    chain = helper.sign_session(KEY.public_key(), timedelta(hours=1), now=datetime.now(UTC))
    chain[0].verify_directly_issued_by(chain[1])


def works(helper: Helper, dongle: Dongle) -> bool:
    """Whether the dongle can be seen, logged in to and signed with."""
    log_in(helper, dongle)
    sign(helper)
    return helper.logged_in


IN_LOGIN = [
    case("login_rv", PIN_INCORRECT, WrongPinError, "refused the PIN (CKR_PIN_INCORRECT)", "enter the right PIN"),
    case("login_rv", PIN_LOCKED, PinLockedError, "is locked", "PUK"),
    case("login_rv", PIN_EXPIRED, PinExpiredError, "has expired", "vendor's own tool"),
    case("login_rv", CANCEL, PinCancelledError, "CKR_CANCEL", "while the reader asks"),
    case("login_rv", FUNCTION_CANCELED, PinCancelledError, "CKR_FUNCTION_CANCELED", "while the reader asks"),
    case("login_rv", FUNCTION_REJECTED, PinCancelledError, "CKR_FUNCTION_REJECTED", "while the reader asks"),
    case("login_rv", GENERAL_ERROR, LoginFailedError, "CKR_GENERAL_ERROR", "`proxyagent status`"),
    case("login_rv", DEVICE_ERROR, LoginFailedError, "CKR_DEVICE_ERROR", "`proxyagent status`"),
    case("login_rv", PIN_LEN_RANGE, LoginFailedError, "CKR_PIN_LEN_RANGE", "`proxyagent status`"),
    # The PIN was on its way: that is not as if there were no dongle.
    case("login_rv", DEVICE_REMOVED, LoginFailedError, "CKR_DEVICE_REMOVED", "replug"),
    case("login_rv", TOKEN_NOT_PRESENT, LoginFailedError, "CKR_TOKEN_NOT_PRESENT", "replug"),
    case("login_rv", SESSION_HANDLE_INVALID, LoginFailedError, "CKR_SESSION_HANDLE_INVALID", "replug"),
    case("login_rv", VENDOR, LoginFailedError, "vendor code 0x80000001", "replug"),
    case("login_rv", 0x7777, LoginFailedError, "code 0x7777", "replug"),
    case("login_crash", 1, ModuleCrashedError, "SIGSEGV); an attempt of the PIN may be used up", "before you enter"),
    case("login_hang", 1, ModuleTimeoutError, "was stopped; an attempt of the PIN may be used up", "before you enter"),
    case("flags", FINAL_TRY, PinAtRiskError, "one more wrong PIN would lock", "the right PIN", logins=0),
    case("flags", LOCKED, PinAtRiskError, "the dongle's PIN is locked", "PUK", logins=0),
    case("flags", LOCKED | FINAL_TRY | LOW, PinAtRiskError, "is locked", "PUK", logins=0),
    case("removed", 1, NoDongleError, "no dongle that matches", "plug it in", logins=0),
    case("open_session_rv", GENERAL_ERROR, ModuleError, "GeneralError", "try again", logins=0),
    case("token_info_rv", DEVICE_ERROR, ModuleError, "DeviceError", "try again", logins=0),
    case("token_info_rv", VENDOR, ModuleError, "0x80000001", "try again", logins=0),
]


@pytest.mark.parametrize("fault", IN_LOGIN, ids=str)
def test_what_goes_wrong_in_a_login(dongle: Dongle, start_helper: HelperMaker, shim: Shim, fault: Fault) -> None:
    helper = start_helper(timeout_seconds=SHORT_SECONDS if "hang" in fault.switch else 30.0)
    serial = helper.describe().serial
    shim.set(fault.switch, fault.value)
    with pytest.raises(fault.error) as caught:
        helper.login(pin_of(dongle), serial)
    assert type(caught.value) is fault.error
    assert fault.says in caught.value.message
    assert fault.hint in caught.value.hint
    assert shim.logins == fault.logins
    assert not helper.logged_in
    with pytest.raises(NoSessionError):
        sign(helper)
    shim.clear(fault.switch)
    assert works(helper, dongle)
    assert shim.logins == fault.logins + 1


IN_SIGNING = [
    case("sign_rv", GENERAL_ERROR, ModuleError, "GeneralError", "run `proxyagent renew` once it works"),
    case("sign_rv", VENDOR, ModuleError, "Unmapped error code 0x80000001", "run `proxyagent renew` once it works"),
    case("sign_rv", DEVICE_REMOVED, NoDongleError, "was pulled (DeviceRemoved)", "plug it in again"),
    case("sign_rv", USER_NOT_LOGGED_IN, NoSessionError, "has forgotten the login", "run `proxyagent renew`"),
    case("sign_rv", SESSION_HANDLE_INVALID, NoSessionError, "has forgotten the login", "run `proxyagent renew`"),
    case("sign_rv", PIN_EXPIRED, PinExpiredError, "has expired", "vendor's own tool"),
    case("sign_crash", 1, ModuleCrashedError, "ended (SIGSEGV)", "run `proxyagent renew`"),
    case("sign_hang", 1, ModuleTimeoutError, "did not answer within 4 s", "run `proxyagent renew`"),
    case("token_info_crash", 1, ModuleCrashedError, "ended (SIGSEGV)", "run `proxyagent renew`"),
    case("token_info_rv", DEVICE_ERROR, ModuleError, "DeviceError", "try again"),
    case("find_rv", DEVICE_ERROR, ModuleError, "DeviceError", "try again"),
    case("find_hang", 1, ModuleTimeoutError, "was stopped", "run `proxyagent renew`"),
    case("removed", 1, NoDongleError, "was pulled", "plug it in again"),
]


@pytest.mark.parametrize("fault", IN_SIGNING, ids=str)
def test_what_goes_wrong_in_signing(dongle: Dongle, start_helper: HelperMaker, shim: Shim, fault: Fault) -> None:
    helper = start_helper(timeout_seconds=SHORT_SECONDS if "hang" in fault.switch else 30.0)
    log_in(helper, dongle)
    shim.set(fault.switch, fault.value)
    with pytest.raises(fault.error) as caught:
        sign(helper)
    assert type(caught.value) is fault.error
    assert fault.says in caught.value.message
    assert fault.hint in caught.value.hint
    assert not helper.logged_in
    shim.clear(fault.switch)
    # It comes back by a new login only, which somebody must ask for.
    with pytest.raises(NoSessionError):
        sign(helper)
    assert shim.logins == 1
    assert works(helper, dongle)
    assert shim.logins == 2


IN_LOOKING = [
    case("initialize_rv", GENERAL_ERROR, ModuleError, "GeneralError", "try again"),
    case("initialize_hang", 1, ModuleTimeoutError, "was stopped", "replug"),
    case("initialize_crash", 1, ModuleCrashedError, "ended (SIGSEGV)", "starts by itself"),
    case("slot_list_rv", VENDOR, ModuleError, "0x80000001", "try again"),
    case("slot_list_hang", 1, ModuleTimeoutError, "was stopped", "replug"),
    case("token_info_crash", 1, ModuleCrashedError, "ended (SIGSEGV)", "starts by itself"),
    case("token_info_rv", DEVICE_ERROR, ModuleError, "DeviceError", "try again"),
    case("open_session_rv", GENERAL_ERROR, ModuleError, "GeneralError", "try again"),
    case("find_crash", 1, ModuleCrashedError, "ended (SIGSEGV)", "starts by itself"),
    case("removed", 1, NoDongleError, "no dongle that matches", "plug it in"),
]


@pytest.mark.parametrize("ask", [Helper.describe, Helper.list_dongles], ids=["describe", "list"])
@pytest.mark.parametrize("fault", IN_LOOKING, ids=str)
def test_what_goes_wrong_in_looking(
    dongle: Dongle, start_helper: HelperMaker, shim: Shim, fault: Fault, ask: Callable[[Helper], object]
) -> None:
    helper = start_helper(timeout_seconds=SHORT_SECONDS if "hang" in fault.switch else 30.0)
    shim.set(fault.switch, fault.value)
    if ask is Helper.list_dongles and fault.switch in {"removed", "open_session_rv"}:
        _listed_all_the_same(helper, fault)
    else:
        with pytest.raises(fault.error) as caught:
            ask(helper)
        assert type(caught.value) is fault.error
        assert fault.says in caught.value.message
        assert fault.hint in caught.value.hint
    shim.clear(fault.switch)
    assert shim.logins == 0
    assert ask(helper)
    assert works(helper, dongle)


def _listed_all_the_same(helper: Helper, fault: Fault) -> None:
    listed = [each for each in helper.list_dongles() if each.initialised]
    if fault.switch == "removed":
        assert not listed
    else:
        assert fault.says in (listed[0].problem or "")


@pytest.mark.parametrize("answer", [FUNCTION_CANCELED, CANCEL, FUNCTION_REJECTED])
def test_a_pin_pad_that_is_cancelled(dongle: Dongle, start_helper: HelperMaker, shim: Shim, answer: int) -> None:
    shim.set("flags", PIN_PAD)
    helper = start_helper()
    shim.set("login_rv", answer)
    with pytest.raises(PinCancelledError, match="was cancelled at the reader"):
        helper.login(None, helper.describe().serial)
    assert shim.logins == 1
    shim.clear("login_rv")
    shim.write("pin_pad", dongle.pin)
    helper.login(None, helper.describe().serial)
    sign(helper)
    assert shim.logins == 2


def test_a_pin_pad_that_nobody_touches(dongle: Dongle, start_helper: HelperMaker, shim: Shim) -> None:
    shim.set("flags", PIN_PAD)
    shim.set("login_hang")
    helper = start_helper()
    serial = helper.describe().serial
    with pytest.raises(PinCancelledError, match="nobody entered the PIN"):
        helper.login(None, serial, timeout_seconds=0.5)
    assert shim.logins == 1
    shim.clear("login_hang")
    assert works(helper, dongle)


def test_a_person_at_a_pin_pad_has_longer_than_a_module(dongle: Dongle, start_helper: HelperMaker, shim: Shim) -> None:
    shim.set("flags", PIN_PAD)
    shim.write("pin_pad", dongle.pin)
    helper = start_helper(timeout_seconds=1e-6)
    with pytest.raises(ModuleTimeoutError):
        helper.describe()
    patient = start_helper()
    serial = patient.describe().serial
    helper.login(None, serial, timeout_seconds=30.0)
    assert helper.logged_in


def test_a_pin_pad_is_used_only_where_there_is_one(dongle: Dongle, start_helper: HelperMaker, shim: Shim) -> None:
    helper = start_helper()
    state = helper.describe()
    assert not state.pin_pad
    with pytest.raises(PinNotSentError, match="no pin pad"):
        helper.login(None, state.serial)
    for flag in (FINAL_TRY, LOCKED):
        shim.set("flags", PIN_PAD | flag)
        assert helper.describe().pin_pad
        with pytest.raises(PinAtRiskError):
            helper.login(None, state.serial)
    assert shim.logins == 0


def test_the_flags_are_read_again_just_before_the_pin_is_sent(
    dongle: Dongle, start_helper: HelperMaker, shim: Shim
) -> None:
    helper = start_helper()
    assert helper.describe().pin_state == "ok"
    for flag, state in ((LOW, "low"), (FINAL_TRY | LOW, "final"), (LOCKED | FINAL_TRY | LOW, "locked")):
        shim.set("flags", flag)
        assert helper.describe().pin_state == state
    shim.clear("flags")
    serial = helper.describe().serial
    shim.set("flags", FINAL_TRY)
    with pytest.raises(PinAtRiskError):
        helper.login(pin_of(dongle), serial)
    assert shim.logins == 0


def test_another_dongle_of_the_same_label_gets_no_pin(dongle: Dongle, start_helper: HelperMaker, shim: Shim) -> None:
    helper = start_helper()
    before = helper.describe()
    shim.write("serial", "0123456789abcdef")
    after = helper.describe()
    assert (after.label, after.serial) == (before.label, "0123456789abcdef")
    with pytest.raises(WrongDongleError, match=f"dongle {before.serial} was exchanged for 0123456789abcdef"):
        helper.login(pin_of(dongle), before.serial)
    assert shim.logins == 0
    shim.clear("serial")
    assert works(helper, dongle)


def test_a_dongle_that_was_exchanged_while_logged_in_does_not_sign(
    dongle: Dongle, start_helper: HelperMaker, shim: Shim
) -> None:
    helper = start_helper()
    log_in(helper, dongle)
    shim.write("serial", "0123456789abcdef")
    with pytest.raises(WrongDongleError, match="since the login; nothing was signed") as caught:
        sign(helper)
    assert "run `proxyagent renew`" in caught.value.hint
    assert shim.calls("sign") == 0
    assert not helper.logged_in
    # That the right one came back is not enough.
    shim.clear("serial")
    with pytest.raises(NoSessionError):
        sign(helper)
    assert works(helper, dongle)


def test_looking_notices_the_exchange_too(dongle: Dongle, start_helper: HelperMaker, shim: Shim) -> None:
    helper = start_helper()
    log_in(helper, dongle)
    shim.write("serial", "0123456789abcdef")
    assert helper.describe().serial == "0123456789abcdef"
    assert not helper.logged_in


def test_a_dongle_that_is_pulled_while_it_signs(dongle: Dongle, start_helper: HelperMaker, shim: Shim) -> None:
    helper = start_helper()
    log_in(helper, dongle)
    shim.set("sign_removes")
    with pytest.raises(NoDongleError, match="was pulled"):
        sign(helper)
    with pytest.raises(NoDongleError, match="no dongle that matches"):
        helper.describe()
    shim.clear("sign_removes")
    shim.clear("removed")
    assert works(helper, dongle)
    assert shim.logins == 2


def test_a_wrong_pin_is_told_from_the_right_one(dongle: Dongle, start_helper: HelperMaker, shim: Shim) -> None:
    helper = start_helper()
    serial = helper.describe().serial
    with pytest.raises(WrongPinError):
        helper.login(Secret(bytearray(b"000000000")), serial)
    assert shim.logins == 1
    log_in(helper, dongle)
    # A login that is refused ends the one before.
    with pytest.raises(WrongPinError):
        helper.login(Secret(bytearray(b"000000000")), serial)
    assert not helper.logged_in
    with pytest.raises(NoSessionError):
        sign(helper)
    assert works(helper, dongle)
    assert shim.logins == 4
