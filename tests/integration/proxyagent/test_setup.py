"""Setting up a dongle: keys of every kind that stay on it, requests, and certificates that belong to them."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from mover.sandbox.ca import CertificateAuthority
from mover.sandbox.dongle import MODULE, Dongle
from proxyagent.chain import certificates_to_pem, proxy_pem
from proxyagent.errors import ModuleError, NoCredentialError, RequestError
from proxyagent.hsm import Helper
from proxyagent.proxy import Language, ProxyInfo, issue_proxy
from proxyagent.request import new_key
from proxyagent.uri import Uri
from proxyagent.verify import verify_chain
from tests.integration.proxyagent.conftest import HelperMaker, Shim, log_in
from tests.integration.proxyagent.tools import (
    COUNT_CERTIFICATES,
    KEY,
    SECONDS,
    certify,
    import_to,
    inside,
    request_of,
    sign,
    store_certificate,
)

DEVICE_MEMORY = 0x31


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


def key_flags(dongle: Dongle, label: str) -> str:
    return inside(
        dongle,
        f"key = session.get_key(object_class=ObjectClass.PRIVATE_KEY, label={label!r})\n"
        "names = ('LOCAL', 'SENSITIVE', 'ALWAYS_SENSITIVE', 'NEVER_EXTRACTABLE', 'PRIVATE', 'SIGN')\n"
        "others = ('EXTRACTABLE', 'DECRYPT', 'UNWRAP', 'DERIVE')\n"
        "print({key[Attribute[name]] for name in names}, {key[Attribute[name]] for name in others})",
    )


def public_rsa_key(certificate: x509.Certificate) -> rsa.RSAPublicKey:
    key = certificate.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    return key


def test_init_again_makes_no_second_key_and_the_request_is_for_the_first(dongle: Dongle) -> None:
    assert key_flags(dongle, "robot") == "{True} {False}"
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


def test_init_puts_a_new_certificate_in_the_place_of_the_old_one(
    dongle: Dongle, authority: CertificateAuthority, start_helper: HelperMaker
) -> None:
    newer = authority.issue_robot("Robot - renewed", public_rsa_key(dongle.certificate))
    file = dongle.directory / "newer.pem"
    file.write_bytes(newer.public_bytes(serialization.Encoding.PEM))
    assert init(dongle, "--certificate", str(file)).returncode == 0
    helper = start_helper()
    assert helper.describe().certificates == (newer,)
    log_in(helper, dongle)
    assert sign(helper)[1] == newer
    file.write_text("hello")
    assert init(dongle, "--certificate", str(file)).returncode == 3
    assert inside(dongle, COUNT_CERTIFICATES) == "1"


@pytest.mark.parametrize(("kind", "name"), [("rsa-3072", "RSA 3072"), ("rsa-4096", "RSA 4096"), ("ec-p256", "EC 256")])
def test_every_kind_of_key(
    dongle: Dongle, authority: CertificateAuthority, start_helper: HelperMaker, kind: str, name: str
) -> None:
    helper = start_helper(f"{dongle.uri};object=new", setup=True)
    log_in(helper, dongle)
    make = {"verb": "generate-key", "label": "new", "kind": kind}
    assert helper.call(make)["created"] is True
    assert helper.call(make)["created"] is False
    assert key_flags(dongle, "new") == "{True} {False}"
    request = request_of(helper, "CN=Robot,O=Site")
    assert request.is_signature_valid
    robot = certify(helper, authority, "New")
    (listed,) = (each for each in helper.list_dongles() if each.initialised)
    assert name in {f"{key.type} {key.size_bits}" for key in listed.keys if key.label == "new"}
    assert name in {each.key for each in listed.certificates if each.label == "new"}
    chain = sign(helper)
    assert chain[1] == robot
    verify_chain(certificates_to_pem(chain), authority.directory)
    # gsiftp takes an EC identity's proxies from the second generation on; both are for RSA keys.
    second = new_key()
    leaf = issue_proxy(
        chain[0],
        KEY,
        second.public_key(),
        info=ProxyInfo(Language.INHERIT_ALL),
        lifetime=timedelta(minutes=5),
        now=datetime.now(UTC),
    )
    verify_chain(certificates_to_pem((leaf, *chain)), authority.directory)
    assert b"BEGIN RSA PRIVATE KEY" in proxy_pem((leaf, *chain), second)


def test_init_sets_up_an_identity_with_an_elliptic_key(
    authority: CertificateAuthority, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if not MODULE.exists():
        pytest.skip("needs the package softhsm2")
    dongle = Dongle(tmp_path / "elliptic", authority, key="ec-p256")
    assert isinstance(dongle.certificate.public_key(), ec.EllipticCurvePublicKey)
    monkeypatch.setenv("SOFTHSM2_CONF", dongle.environment["SOFTHSM2_CONF"])
    helper = Helper(dongle.module, Uri.parse(dongle.uri), timeout_seconds=SECONDS)
    try:
        assert helper.describe().certificates == (dongle.certificate,)
        log_in(helper, dongle)
        verify_chain(certificates_to_pem(sign(helper)), authority.directory)
    finally:
        helper.close()


def test_what_cannot_be_made_is_refused_before_it_is_made(dongle: Dongle, start_helper: HelperMaker) -> None:
    helper = start_helper(f"{dongle.uri};object=new", setup=True)
    log_in(helper, dongle)
    with pytest.raises(RequestError, match="no kind of key 'rsa-1024'") as caught:
        helper.call({"verb": "generate-key", "label": "new", "kind": "rsa-1024"})
    assert "ec-p256" in caught.value.hint
    with pytest.raises(RequestError, match="does not mean a key of label 'other'"):
        helper.call({"verb": "generate-key", "label": "other", "kind": "ec-p256"})
    with pytest.raises(NoCredentialError, match="has no key"):
        request_of(helper)
    assert inside(dongle, "print(len(list(session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY}))))") == "1"


def test_the_uri_may_give_the_new_keys_id(dongle: Dongle, start_helper: HelperMaker) -> None:
    helper = start_helper(f"{dongle.uri};id=%42", setup=True)
    log_in(helper, dongle)
    helper.call({"verb": "generate-key", "label": "new", "kind": "ec-p256"})
    assert inside(dongle, "print(session.get_key(object_class=ObjectClass.PRIVATE_KEY, label='new').id)") == "b'B'"


def test_certificates_that_do_not_belong_are_refused(
    dongle: Dongle, authority: CertificateAuthority, start_helper: HelperMaker
) -> None:
    helper = start_helper(setup=True)
    log_in(helper, dongle)
    now = datetime.now(UTC)
    ours = public_rsa_key(dongle.certificate)
    ended = authority.issue_robot("Ended", ours, not_before=now - timedelta(days=2), not_after=now - timedelta(days=1))
    elliptic = ec.generate_private_key(ec.SECP256R1()).public_key()
    for certificate, message in (
        (authority.issue_robot("Other", new_key().public_key()), "not for the dongle's key"),
        (authority.issue_robot("Other", elliptic), "not for the dongle's key"),
        (authority.certificate, "that of a CA"),
        (ended, "ended at"),
    ):
        with pytest.raises(NoCredentialError, match=message):
            import_to(helper, certificate)
        # The one that was there is still the only one, and signs.
        assert inside(dongle, COUNT_CERTIFICATES) == "1"
        assert sign(helper)[1] == dongle.certificate
    file = dongle.directory / "other.pem"
    file.write_text(certificates_to_pem([authority.issue_robot("Other", new_key().public_key())]))
    refused = init(dongle, "--certificate", str(file))
    assert refused.returncode == 9
    assert "not for the dongle's key" in refused.stderr


def test_a_key_that_tells_nothing_is_known_by_its_signature(
    dongle: Dongle, authority: CertificateAuthority, start_helper: HelperMaker
) -> None:
    helper = start_helper(f"{dongle.uri};object=new", setup=True)
    log_in(helper, dongle)
    helper.call({"verb": "generate-key", "label": "new", "kind": "ec-p256"})
    public_key = request_of(helper).public_key()
    assert isinstance(public_key, ec.EllipticCurvePublicKey)
    # A private EC key does not tell its point, and some dongles keep no public key objects.
    inside(dongle, "session.get_key(object_class=ObjectClass.PUBLIC_KEY, label='new').destroy()")
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    with pytest.raises(NoCredentialError, match="not for the dongle's key"):
        import_to(helper, authority.issue_robot("Other", other))
    with pytest.raises(NoCredentialError, match="0 public keys"):
        request_of(helper)
    mine = authority.issue_robot("Mine", public_key)
    import_to(helper, mine)
    assert sign(helper)[1] == mine


def test_a_certificate_that_finds_no_room_does_not_cost_the_old_one(
    dongle: Dongle, authority: CertificateAuthority, start_helper: HelperMaker, shim: Shim
) -> None:
    helper = start_helper(setup=True)
    log_in(helper, dongle)
    shim.set("create_rv", DEVICE_MEMORY)
    newer = authority.issue_robot("Newer", public_rsa_key(dongle.certificate))
    with pytest.raises(ModuleError, match="DeviceMemory"):
        import_to(helper, newer)
    assert helper.describe().certificates == (dongle.certificate,)
    shim.clear("create_rv")
    log_in(helper, dongle)
    import_to(helper, newer)
    assert helper.describe().certificates == (newer,)
    assert sign(helper)[1] == newer


def test_importing_leaves_one_certificate_of_several(
    dongle: Dongle, authority: CertificateAuthority, start_helper: HelperMaker
) -> None:
    older = authority.issue_robot("Older", public_rsa_key(dongle.certificate))
    store_certificate(dongle, older.public_bytes(serialization.Encoding.DER))
    assert inside(dongle, COUNT_CERTIFICATES) == "2"
    helper = start_helper(setup=True)
    log_in(helper, dongle)
    import_to(helper, dongle.certificate)
    assert inside(dongle, COUNT_CERTIFICATES) == "1"
    assert sign(helper)[1] == dongle.certificate


@pytest.mark.parametrize("switch", [None, "no_sha256"])
def test_a_module_that_hashes_nothing_itself(
    dongle: Dongle, authority: CertificateAuthority, start_helper: HelperMaker, shim: Shim, switch: str | None
) -> None:
    if switch:
        shim.set(switch)
    helper = start_helper(setup=True)
    log_in(helper, dongle)
    verify_chain(certificates_to_pem(sign(helper)), authority.directory)
    assert request_of(helper).is_signature_valid
