"""Finding the one dongle and the one key that are meant, seeing what is plugged in, and signing proxies alone."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from mover.sandbox.ca import CertificateAuthority
from mover.sandbox.dongle import Dongle
from proxyagent.errors import (
    ConfigError,
    ModuleError,
    NoCredentialError,
    NoDongleError,
    NoSessionError,
    ProtocolError,
    RequestError,
    SeveralDonglesError,
    WrongDongleError,
)
from proxyagent.hsm import Helper
from proxyagent.uri import Uri
from tests.integration.proxyagent.conftest import HelperMaker, Shim, log_in, pin_of
from tests.integration.proxyagent.tools import (
    KEY,
    certify,
    inside,
    remove_certificates,
    sign,
    store_certificate,
)

DER = serialization.Encoding.DER


def test_what_is_seen_before_the_login(dongle: Dongle, start_helper: HelperMaker) -> None:
    helper = start_helper()
    state = helper.describe()
    assert state.manufacturer == "SoftHSM project"
    assert state.model == "SoftHSM v2"
    assert state.label == Uri.parse(dongle.uri).token
    assert state.serial
    assert (state.pin_state, state.pin_pad) == ("ok", False)
    assert state.certificates == (dongle.certificate,)
    log_in(helper, dongle)
    assert helper.describe() == state


def test_the_certificate_that_is_seen_is_the_one_that_is_meant(
    dongle: Dongle, authority: CertificateAuthority, start_helper: HelperMaker
) -> None:
    # The CA's own, one that is no certificate, and one of another key.
    store_certificate(dongle, authority.certificate.public_bytes(DER), identifier=b"ca")
    store_certificate(dongle, b"0\x03junk", identifier=b"junk")
    assert start_helper().describe().certificates == (dongle.certificate,)
    other = authority.issue_robot("Other", KEY.public_key())
    store_certificate(dongle, other.public_bytes(DER), identifier=b"7", label="other")
    assert set(start_helper().describe().certificates) == {dongle.certificate, other}
    assert start_helper(f"{dongle.uri};id=7").describe().certificates == (other,)
    assert start_helper(f"{dongle.uri};object=other").describe().certificates == (other,)
    assert start_helper(f"{dongle.uri};object=robot").describe().certificates == (dongle.certificate,)
    assert start_helper(f"{dongle.uri};object=absent").describe().certificates == ()
    # The URI's label is that of the key: what the certificate is called does not matter.
    remove_certificates(dongle)
    store_certificate(dongle, dongle.certificate.public_bytes(DER), label="certificate of robot")
    assert start_helper(f"{dongle.uri};object=robot").describe().certificates == (dongle.certificate,)
    store_certificate(dongle, other.public_bytes(DER), identifier=b"7", label="other")
    # Signing goes by the key, of which there is one.
    helper = start_helper()
    log_in(helper, dongle)
    assert sign(helper)[1] == dongle.certificate


def test_the_helper_signs_nothing_but_proxies(dongle: Dongle, start_helper: HelperMaker) -> None:
    helper = start_helper()
    log_in(helper, dongle)
    for verb in ("sign", "generate-key", "make-request", "import-certificate", ""):
        with pytest.raises(ProtocolError, match="does not know"):
            helper.call({"verb": verb, "data": "00", "label": "x", "subject": "CN=x"})
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - it must be refused
    with pytest.raises(RequestError, match="1024 bits"):
        helper.sign_session(weak.public_key(), timedelta(hours=1), now=datetime.now(UTC))
    elliptic = ec.generate_private_key(ec.SECP256R1()).public_key()
    with pytest.raises(RequestError, match="must be RSA"):
        helper.sign_session(elliptic, timedelta(hours=1), now=datetime.now(UTC))  # type: ignore[arg-type]  # the point


def test_proxies_of_absurd_times_are_not_signed(dongle: Dongle, start_helper: HelperMaker) -> None:
    helper = start_helper()
    log_in(helper, dongle)
    now = datetime.now(UTC)
    for hours, when in ((7 * 24 + 1, now), (0, now), (-1, now), (1, now + timedelta(days=3)), (1, now.replace(year=1))):
        with pytest.raises(RequestError, match="absurd times"):
            sign(helper, hours=hours, now=when)
    # The clock is the agent's.
    later = now.replace(microsecond=0) + timedelta(days=1)
    proxy, _ = sign(helper, hours=7 * 24, now=later)
    assert proxy.not_valid_before_utc == later - timedelta(minutes=5)
    assert proxy.not_valid_after_utc == later + timedelta(days=7)


def test_several_keys_are_named_and_the_uri_chooses(
    dongle: Dongle, authority: CertificateAuthority, start_helper: HelperMaker
) -> None:
    inside(dongle, "session.generate_keypair(KeyType.RSA, 2048, id=b'2', label='second;=', store=True)")
    with_setup = start_helper(f"{dongle.uri};id=2", setup=True)
    log_in(with_setup, dongle)
    second = certify(with_setup, authority, "Second")
    both = start_helper()
    log_in(both, dongle)
    with pytest.raises(SeveralDonglesError, match="2 keys with certificates") as caught:
        sign(both)
    assert "object=robot;id=%" in caught.value.message
    # It can be put into the configuration as it stands.
    assert "object=second%3B%3D;id=%32 (/C=UK/O=Sandbox/CN=Second until 20" in caught.value.message
    assert "object= or id=" in caught.value.hint
    for choice in ("object=second%3B%3D", "id=%32", "object=second%3B%3D;id=2"):
        chosen = start_helper(f"{dongle.uri};{choice}")
        log_in(chosen, dongle)
        assert sign(chosen)[1] == second
    none = start_helper(f"{dongle.uri};object=robot;id=2")
    log_in(none, dongle)
    with pytest.raises(NoCredentialError, match="no key with a certificate"):
        sign(none)


def test_several_certificates_of_one_key_are_not_guessed_among(
    dongle: Dongle, authority: CertificateAuthority, start_helper: HelperMaker
) -> None:
    public_key = dongle.certificate.public_key()
    assert isinstance(public_key, rsa.RSAPublicKey)
    store_certificate(dongle, authority.issue_robot("Renewed", public_key).public_bytes(DER))
    helper = start_helper()
    log_in(helper, dongle)
    with pytest.raises(SeveralDonglesError, match="CN=Renewed until") as caught:
        sign(helper)
    assert "remove all but one" in caught.value.hint


def test_several_dongles_are_named_and_listed(
    dongle: Dongle, authority: CertificateAuthority, start_helper: HelperMaker, tmp_path: Path
) -> None:
    other = Dongle(tmp_path / "other", authority)
    tokens = dongle.directory / "tokens"
    for token in (other.directory / "tokens").iterdir():
        token.rename(tokens / token.name)
    with pytest.raises(SeveralDonglesError, match="several dongles match") as caught:
        start_helper("pkcs11:").describe()
    listed = {each.label: each for each in start_helper("pkcs11:serial=none").list_dongles()}
    for each in (dongle, other):
        found = start_helper(each.uri).describe()
        assert f"'{found.label}' (serial {found.serial})" in caught.value.message
        assert start_helper(f"pkcs11:serial={found.serial}").describe() == found
        told = listed[found.label]
        assert start_helper(told.uri).describe() == found
        assert (told.serial, told.manufacturer, told.model) == (found.serial, found.manufacturer, found.model)
        assert (told.initialised, told.pin_state, told.pin_pad, told.problem) == (True, "ok", False, None)
        assert [(key.label, key.type, key.size_bits) for key in told.keys] == [("robot", "RSA", 2048)]
        (certificate,) = told.certificates
        assert (certificate.label, certificate.id, certificate.key) == ("robot", told.keys[0].id, "RSA 2048")
        assert certificate.subject == "/C=UK/O=Sandbox/CN=Robot - sandbox mover"
        assert certificate.issuer.startswith("/C=UK/O=Sandbox/CN=")
        assert certificate.not_after == each.certificate.not_valid_after_utc
    # SoftHSM always has one more, which is blank.
    (blank,) = (each for each in listed.values() if not each.initialised)
    assert (blank.keys, blank.certificates) == ((), ())


def test_the_list_says_what_does_not_fit(
    dongle: Dongle, authority: CertificateAuthority, start_helper: HelperMaker
) -> None:
    robot = authority.issue_robot("Robot", KEY.public_key()).public_bytes(DER)
    store = (
        "for number in range(20): session.create_object({Attribute.CLASS: ObjectClass.CERTIFICATE,\n"
        "  Attribute.TOKEN: True, Attribute.PRIVATE: False, Attribute.CERTIFICATE_TYPE: CertificateType.X_509,\n"
        f"  Attribute.SUBJECT: b'', Attribute.ID: bytes([number]), Attribute.LABEL: 'x' * 100,\n"
        f"  Attribute.VALUE: bytes.fromhex('{robot.hex()}')}})"
    )
    inside(dongle, store)
    (told,) = (each for each in start_helper().list_dongles() if each.initialised)
    assert told.problem == "1 keys and 21 certificates; the first 20 are listed"
    assert len(told.certificates) == 20
    assert {len(each.label) for each in told.certificates if each.label != "robot"} == {64}


def test_foreign_labels_do_not_hide_a_dongle(dongle: Dongle, start_helper: HelperMaker) -> None:
    inside(
        dongle,
        "from pkcs11.attributes import AttributeMapper\n"
        "session.get_key(object_class=ObjectClass.PRIVATE_KEY)[Attribute.LABEL]\n"
        "mapper = AttributeMapper()\nmapper.register_handler(Attribute.LABEL, bytes, bytes)\n"
        "raw = session.token.open(rw=True, attribute_mapper=mapper)\n"
        "[each.__setitem__(Attribute.LABEL, b'\\xff\\xfe') for each in list(raw.get_objects())]",
    )
    helper = start_helper()
    assert helper.describe().certificates == (dongle.certificate,)
    log_in(helper, dongle)
    assert sign(helper)[1] == dongle.certificate
    (told,) = (each for each in helper.list_dongles() if each.initialised)
    assert told.keys[0].label == "\N{REPLACEMENT CHARACTER}" * 2


def test_the_pin_goes_to_no_other_dongle(dongle: Dongle, start_helper: HelperMaker) -> None:
    helper = start_helper()
    with pytest.raises(WrongDongleError, match="exchanged"):
        helper.login(pin_of(dongle), "another serial")
    with pytest.raises(NoDongleError, match="no dongle that matches pkcs11:serial=0"):
        start_helper("pkcs11:serial=0").describe()


def test_a_real_exchange_for_a_dongle_of_the_same_label(
    dongle: Dongle, authority: CertificateAuthority, start_helper: HelperMaker, tmp_path: Path
) -> None:
    label = Uri.parse(dongle.uri).token
    other = Dongle(tmp_path / "other", authority, "Somebody else", label=label)
    helper = start_helper()
    log_in(helper, dongle)
    sign(helper)
    before = helper.describe()
    plugged, drawer = dongle.directory / "tokens", other.directory / "tokens"
    plugged.rename(tmp_path / "pulled")
    drawer.rename(plugged)
    # SoftHSM only knows that something is wrong; other modules, see the matrix.
    with pytest.raises((ModuleError, NoDongleError, WrongDongleError, NoCredentialError)):
        sign(helper)
    after = helper.describe()
    assert not helper.logged_in
    assert (after.label, after.certificates) == (label, (other.certificate,))
    assert after.serial != before.serial
    with pytest.raises(WrongDongleError, match="exchanged"):
        helper.login(pin_of(dongle), before.serial)
    plugged.rename(drawer)
    (tmp_path / "pulled").rename(plugged)
    log_in(helper, dongle)
    assert sign(helper)[1] == dongle.certificate


def test_a_certificate_that_was_exchanged_since_the_login_is_not_used(
    dongle: Dongle, authority: CertificateAuthority, start_helper: HelperMaker
) -> None:
    public_key = dongle.certificate.public_key()
    assert isinstance(public_key, rsa.RSAPublicKey)
    helper = start_helper()
    log_in(helper, dongle)
    remove_certificates(dongle)
    with pytest.raises(NoCredentialError, match="no key with a certificate"):
        sign(helper)
    another = authority.issue_robot("Somebody else", public_key)
    store_certificate(dongle, another.public_bytes(DER))
    with pytest.raises(WrongDongleError, match=r"the certificate on dongle .* was exchanged since the login"):
        sign(helper)
    assert not helper.logged_in
    with pytest.raises(NoSessionError):
        sign(helper)
    log_in(helper, dongle)
    assert sign(helper)[1] == another


def test_a_certificate_that_ended_is_told_with_its_own_remedy(
    dongle: Dongle, authority: CertificateAuthority, start_helper: HelperMaker
) -> None:
    public_key = dongle.certificate.public_key()
    assert isinstance(public_key, rsa.RSAPublicKey)
    now = datetime.now(UTC)
    ended = authority.issue_robot(
        "Ended", public_key, not_before=now - timedelta(days=2), not_after=now - timedelta(hours=1)
    )
    remove_certificates(dongle)
    store_certificate(dongle, ended.public_bytes(DER))
    helper = start_helper()
    assert helper.describe().certificates == (ended,)
    log_in(helper, dongle)
    with pytest.raises(NoCredentialError, match="ended at") as caught:
        sign(helper)
    assert "--certificate" in caught.value.hint
    # By the agent's clock, that is.
    assert sign(helper, hours=0.5, now=now - timedelta(hours=2))[1] == ended


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{Attribute.ALWAYS_AUTHENTICATE: True}", "wants the PIN for every signature"),
        ("{Attribute.SIGN: False}", "is not for signing"),
    ],
)
def test_a_key_that_cannot_be_used_is_told(
    dongle: Dongle, authority: CertificateAuthority, start_helper: HelperMaker, template: str, message: str
) -> None:
    modulus = inside(
        dongle,
        "public, _ = session.generate_keypair(KeyType.RSA, 2048, id=b'2', label='odd', store=True,\n"
        f"  private_template={template})\nprint(public[Attribute.MODULUS].hex())",
    )
    public_key = rsa.RSAPublicNumbers(65537, int(modulus, 16)).public_key()
    robot = authority.issue_robot("Odd", public_key)
    store_certificate(dongle, robot.public_bytes(DER), identifier=b"2", label="odd")
    helper = start_helper(f"{dongle.uri};object=odd")
    log_in(helper, dongle)
    with pytest.raises(NoCredentialError, match=message):
        sign(helper)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\0\0\0\x05hello", "answered nonsense"),
        ("\xff" * 8, "answered nonsense"),
        ('\0\0\0\x0d{"version":1}', "makes no sense"),
        ('\0\0\0\x1c{"version":1,"dongle":"hello"}'[:32], "makes no sense|answered nonsense"),
    ],
)
def test_a_module_that_answers_in_the_helpers_place(
    dongle: Dongle, start_helper: HelperMaker, shim: Shim, text: str, message: str
) -> None:
    helper = start_helper()
    (shim.directory / "babble").write_bytes(text.encode("latin-1"))
    for ask in (helper.describe, helper.list_dongles):
        with pytest.raises(ModuleError, match=message):
            ask()
    shim.clear("babble")
    assert helper.describe().certificates == (dongle.certificate,)


def test_a_module_that_may_not_be_loaded_is_not(dongle: Dongle, tmp_path: Path) -> None:
    mine = tmp_path / "module.so"
    mine.write_bytes(dongle.module.read_bytes())
    for path, message in ((mine, "is not where modules may lie"), (Path("/usr/lib/a\0b.so"), "cannot use the PKCS#11")):
        helper = Helper(path, Uri.parse(dongle.uri), timeout_seconds=30.0)
        for ask in (helper.describe, helper.list_dongles):
            with pytest.raises(ConfigError, match=message):
                ask()
        assert helper.pid is None


def test_a_file_that_is_no_module_is_told(tmp_path: Path) -> None:
    for path in (Path("/usr/lib/os-release"), Path("/usr/lib/x86_64-linux-gnu/libz.so.1")):
        if not path.exists():
            continue
        helper = Helper(path, Uri(), timeout_seconds=30.0)
        with pytest.raises(ModuleError, match="answered PKCS11Error: OS exception while loading"):
            helper.describe()
        helper.close()
