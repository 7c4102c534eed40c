"""Certificate requests: only a good RSA key that signed its own request gets through."""

import contextlib

import pytest
from asn1crypto import csr as asn1_csr
from asn1crypto import pem as armor
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from hypothesis import given
from hypothesis import strategies as st

from proxyagent.errors import RequestError
from proxyagent.request import check_public_key, check_request, make_request


def request_of(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> x509.CertificateSigningRequest:
    return x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())


def pem(request: x509.CertificateSigningRequest) -> str:
    return request.public_bytes(serialization.Encoding.PEM).decode()


def test_our_own_requests_are_accepted(keys: list[rsa.RSAPrivateKey]) -> None:
    assert check_request(make_request(keys[0])) == keys[0].public_key()


def test_weak_and_foreign_keys_are_refused() -> None:
    weak: dict[str, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey] = {
        "1024 bits": rsa.generate_private_key(public_exponent=65537, key_size=1024),  # noqa: S505 - it must be refused
        "bad public exponent": rsa.generate_private_key(public_exponent=3, key_size=2048),
        "must be RSA": ec.generate_private_key(ec.SECP256R1()),
    }
    for reason, key in weak.items():
        with pytest.raises(RequestError, match=reason):
            check_request(pem(request_of(key)))


@pytest.mark.parametrize("exponent", [3, 65535, (1 << 32) + 1, (1 << 2000) + 1])
def test_other_exponents_are_refused(exponent: int, keys: list[rsa.RSAPrivateKey]) -> None:
    modulus = keys[0].public_key().public_numbers().n
    with pytest.raises(RequestError, match="bad public exponent"):
        check_public_key(rsa.RSAPublicNumbers(exponent, modulus).public_key())


def test_a_weak_signature_is_refused(keys: list[rsa.RSAPrivateKey]) -> None:
    parsed = asn1_csr.CertificationRequest.load(request_of(keys[0]).public_bytes(serialization.Encoding.DER))
    parsed["signature_algorithm"] = {"algorithm": "sha1_rsa"}
    info = parsed["certification_request_info"].dump()
    parsed["signature"] = keys[0].sign(info, padding.PKCS1v15(), hashes.SHA1())  # noqa: S303
    with pytest.raises(RequestError, match="weak signature"):
        check_request(armor.armor("CERTIFICATE REQUEST", parsed.dump()).decode())


def test_a_request_with_pss_is_accepted(keys: list[rsa.RSAPrivateKey]) -> None:
    scheme = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    request = builder.sign(keys[0], hashes.SHA256(), rsa_padding=scheme)
    assert check_request(pem(request)) == keys[0].public_key()


def test_a_request_without_possession_of_the_key_is_refused(keys: list[rsa.RSAPrivateKey]) -> None:
    der = bytearray(request_of(keys[0]).public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    with pytest.raises(RequestError, match="not signed by its own key"):
        check_request(pem(x509.load_der_x509_csr(bytes(der))))


def test_what_does_not_call_itself_a_request_is_refused(keys: list[rsa.RSAPrivateKey]) -> None:
    der = request_of(keys[0]).public_bytes(serialization.Encoding.DER)
    check_request(armor.armor("NEW CERTIFICATE REQUEST", der).decode())
    with pytest.raises(RequestError, match="unreadable"):
        check_request(armor.armor("CERTIFICATE", der).decode())


@given(text=st.text(max_size=200))
def test_rubbish_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="unreadable"):
        check_request(text)


@given(position=st.integers(0, 10**6), byte=st.integers(0, 255))
def test_a_damaged_request_is_refused_or_the_same(position: int, byte: int, keys: list[rsa.RSAPrivateKey]) -> None:
    text = bytearray(make_request(keys[0]).encode())
    text[position % len(text)] = byte
    with contextlib.suppress(RequestError):
        assert check_request(text.decode("latin-1")) == keys[0].public_key()
