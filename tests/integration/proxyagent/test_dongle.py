"""Setting up a dongle, and finding the one key that is meant."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from mover.sandbox.ca import CertificateAuthority
from mover.sandbox.dongle import Dongle
from proxyagent.chain import certificates_to_pem, proxy_pem
from proxyagent.errors import (
    NoCredentialError,
    NoDongleError,
    ProtocolError,
    RequestError,
    SeveralDonglesError,
    WrongDongleError,
)
from proxyagent.request import new_key
from proxyagent.verify import verify_chain
from tests.integration.proxyagent.conftest import HelperMaker, log_in, pin_of

SECONDS = 30.0

# python-pkcs11 in a process of its own: the test's process never loads a PKCS#11 module.
INSIDE = """
import sys, pkcs11
from pkcs11 import Attribute, KeyType, ObjectClass
module, label, script = sys.argv[1:]
pin = sys.stdin.readline().strip()
with pkcs11.lib(module).get_token(token_label=label).open(rw=True, user_pin=pin) as session:
    exec(script)
"""


def inside(dongle: Dongle, script: str) -> str:
    """Run Python with a logged-in `session` on the dongle."""
    label = dongle.uri.removeprefix("pkcs11:token=").replace("%20", " ")
    done = subprocess.run(
        [sys.executable, "-P", "-c", INSIDE, str(dongle.module), label, script],
        input=f"{dongle.pin}\n",
        env={"PATH": "/usr/bin", **dongle.environment},
        capture_output=True,
        check=True,
        timeout=SECONDS,
        text=True,
    )
    return done.stdout.strip()


def init(dongle: Dongle, *arguments: str) -> subprocess.CompletedProcess[str]:
    config = dongle.directory / "init.toml"
    return subprocess.run(
        [sys.executable, "-P", "-m", "proxyagent", "--config", str(config), "init", *arguments],
        input=f"{dongle.pin}\n",
        env={"PATH": "/usr/bin", **dongle.environment},
        capture_output=True,
        check=False,
        timeout=SECONDS,
        text=True,
    )


def test_the_key_was_made_on_the_dongle_and_stays_there(dongle: Dongle) -> None:
    flags = inside(
        dongle,
        "[key] = session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY})\n"
        "names = ('LOCAL', 'SENSITIVE', 'ALWAYS_SENSITIVE', 'NEVER_EXTRACTABLE', 'EXTRACTABLE', 'SIGN', 'DECRYPT')\n"
        "print([key[Attribute[name]] for name in names])",
    )
    assert flags == "[True, True, True, True, False, True, False]"


def test_init_again_makes_no_second_key_and_the_request_is_for_the_first(dongle: Dongle) -> None:
    again = init(dongle, "--subject", "CN=Robot 2,O=Site")
    assert again.returncode == 0, again.stderr
    assert "has a key already" in again.stderr
    request = x509.load_pem_x509_csr(again.stdout.encode())
    assert request.public_key() == dongle.certificate.public_key()
    assert request.is_signature_valid
    assert request.subject == x509.Name.from_rfc4514_string("CN=Robot 2,O=Site")
    file = dongle.directory / "request.pem"
    assert init(dongle, "--request", str(file)).returncode == 0
    assert x509.load_pem_x509_csr(file.read_bytes()).public_key() == dongle.certificate.public_key()


def test_a_new_certificate_replaces_the_old_one(
    dongle: Dongle, authority: CertificateAuthority, start_helper: HelperMaker
) -> None:
    public_key = dongle.certificate.public_key()
    assert isinstance(public_key, rsa.RSAPublicKey)
    newer = authority.issue_robot("Robot - renewed", public_key)
    file = dongle.directory / "newer.pem"
    file.write_bytes(newer.public_bytes(serialization.Encoding.PEM))
    assert init(dongle, "--certificate", str(file)).returncode == 0
    helper = start_helper()
    log_in(helper, dongle)
    assert helper.sign_session(new_key().public_key(), timedelta(hours=1), now=datetime.now(UTC))[1] == newer


def test_certificates_that_do_not_belong_are_refused(dongle: Dongle, authority: CertificateAuthority) -> None:
    foreign = dongle.directory / "foreign.pem"
    foreign.write_text(certificates_to_pem([authority.issue_robot("Other", new_key().public_key())]))
    refused = init(dongle, "--certificate", str(foreign))
    assert refused.returncode == 9
    assert "not for the dongle's key" in refused.stderr
    foreign.write_text("hello")
    assert init(dongle, "--certificate", str(foreign)).returncode == 3
    # The one that was there is still the only one.
    count = "print(len(list(session.get_objects({Attribute.CLASS: ObjectClass.CERTIFICATE}))))"
    assert inside(dongle, count) == "1"


def test_the_helper_signs_nothing_but_proxies(dongle: Dongle, start_helper: HelperMaker) -> None:
    helper = start_helper()
    log_in(helper, dongle)
    for verb in ("sign", "generate-key", "make-request", "import-certificate", ""):
        with pytest.raises(ProtocolError, match="does not know"):
            helper.call({"verb": verb, "data": "00", "label": "x", "subject": "CN=x"})
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505  it must be refused
    with pytest.raises(RequestError, match="1024 bits"):
        helper.sign_session(weak.public_key(), timedelta(hours=1), now=datetime.now(UTC))


def test_several_keys_are_named_and_the_uri_chooses(
    dongle: Dongle, authority: CertificateAuthority, start_helper: HelperMaker
) -> None:
    inside(dongle, "session.generate_keypair(KeyType.RSA, 2048, id=b'2', label='second', store=True)")
    with_setup = start_helper(f"{dongle.uri};object=second", setup=True)
    log_in(with_setup, dongle)
    request = x509.load_pem_x509_csr(
        str(with_setup.call({"verb": "make-request", "subject": "CN=x"})["request"]).encode()
    )
    public_key = request.public_key()
    assert isinstance(public_key, rsa.RSAPublicKey)
    second = authority.issue_robot("Second", public_key)
    with_setup.call({"verb": "import-certificate", "certificate": certificates_to_pem([second])})
    both = start_helper()
    log_in(both, dongle)
    with pytest.raises(SeveralDonglesError, match="2 keys with certificates") as caught:
        both.sign_session(new_key().public_key(), timedelta(hours=1), now=datetime.now(UTC))
    assert "object=robot" in caught.value.message
    assert "object=second" in caught.value.message
    for choice in ("object=second", "id=%32"):
        chosen = start_helper(f"{dongle.uri};{choice}")
        log_in(chosen, dongle)
        assert chosen.sign_session(new_key().public_key(), timedelta(hours=1), now=datetime.now(UTC))[1] == second


def test_several_dongles_are_named(
    dongle: Dongle, authority: CertificateAuthority, start_helper: HelperMaker, tmp_path: Path
) -> None:
    other = Dongle(tmp_path / "other", authority)
    tokens = dongle.directory / "tokens"
    for token in (other.directory / "tokens").iterdir():
        token.rename(tokens / token.name)
    with pytest.raises(SeveralDonglesError, match="several dongles match") as caught:
        start_helper("pkcs11:").describe()
    for each in (dongle, other):
        found = start_helper(each.uri).describe()
        assert f"'{found.label}' (serial {found.serial})" in caught.value.message
        assert start_helper(f"pkcs11:serial={found.serial}").describe() == found


def test_the_pin_goes_to_no_other_dongle(dongle: Dongle, start_helper: HelperMaker) -> None:
    helper = start_helper()
    with pytest.raises(WrongDongleError, match="exchanged"):
        helper.login(pin_of(dongle), "another serial")
    with pytest.raises(NoDongleError, match="no dongle that matches pkcs11:serial=0"):
        start_helper("pkcs11:serial=0").describe()


def test_a_certificate_that_ended_is_told_with_its_own_remedy(dongle: Dongle, start_helper: HelperMaker) -> None:
    issuer = new_key()
    now = datetime.now(UTC)
    public_key = dongle.certificate.public_key()
    assert isinstance(public_key, rsa.RSAPublicKey)
    ended = (
        x509.CertificateBuilder()
        .subject_name(dongle.certificate.subject)
        .issuer_name(dongle.certificate.issuer)
        .public_key(public_key)
        .serial_number(1)
        .not_valid_before(now - timedelta(days=2))
        .not_valid_after(now - timedelta(days=1))
        .sign(issuer, hashes.SHA256())
    )
    file = dongle.directory / "ended.pem"
    file.write_text(certificates_to_pem([ended]))
    refused = init(dongle, "--certificate", str(file))
    assert refused.returncode == 9
    assert "ended at" in refused.stderr
    value = ended.public_bytes(serialization.Encoding.DER).hex()
    inside(
        dongle,
        "[old] = session.get_objects({Attribute.CLASS: ObjectClass.CERTIFICATE})\n"
        "new = old.copy({})\nold.destroy()\nnew.destroy()\n"
        "[key] = session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY})\n"
        "session.create_object({Attribute.CLASS: ObjectClass.CERTIFICATE, Attribute.TOKEN: True,\n"
        "  Attribute.CERTIFICATE_TYPE: pkcs11.CertificateType.X_509, Attribute.ID: key.id,\n"
        f"  Attribute.SUBJECT: b'', Attribute.VALUE: bytes.fromhex('{value}')}})",
    )
    helper = start_helper()
    log_in(helper, dongle)
    with pytest.raises(NoCredentialError, match="ended at") as caught:
        helper.sign_session(new_key().public_key(), timedelta(hours=1), now=datetime.now(UTC))
    assert "--certificate" in caught.value.hint


def test_an_ec_identity_signs_rsa_proxies(
    dongle: Dongle, authority: CertificateAuthority, start_helper: HelperMaker
) -> None:
    inside(
        dongle,
        "from pkcs11.util.ec import encode_named_curve_parameters as curve\n"
        "p256 = session.create_domain_parameters(KeyType.EC, {Attribute.EC_PARAMS: curve('secp256r1')}, local=True)\n"
        "p256.generate_keypair(id=b'3', label='elliptic', store=True)",
    )
    with_setup = start_helper(f"{dongle.uri};object=elliptic", setup=True)
    log_in(with_setup, dongle)
    request = x509.load_pem_x509_csr(
        str(with_setup.call({"verb": "make-request", "subject": "CN=x"})["request"]).encode()
    )
    assert request.is_signature_valid
    robot = authority.issue_robot("Elliptic", request.public_key())  # type: ignore[arg-type]  # it is EC
    with_setup.call({"verb": "import-certificate", "certificate": certificates_to_pem([robot])})
    key = new_key()
    chain = with_setup.sign_session(key.public_key(), timedelta(hours=1), now=datetime.now(UTC))
    verify_chain(certificates_to_pem(chain), authority.directory)
    assert b"BEGIN RSA PRIVATE KEY" in proxy_pem(chain, key)
