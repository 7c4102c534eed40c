"""Keys on a dongle in the shape that `cryptography`'s certificate builders sign with."""

# The base classes fix the arguments of what a dongle's key refuses to do.
# ruff: noqa: ARG002

import hashlib
from collections.abc import Collection
from typing import Any, NoReturn, Protocol

import pkcs11
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from pkcs11 import Mechanism
from pkcs11.util.ec import encode_ec_public_key

from proxyagent.errors import NoCredentialError

# DigestInfo up to the digest (RFC 8017 section 9.2, note 1).
_SHA256_INFO = bytes.fromhex("3031300d060960864801650304020105000420")


class PrivateKeyObject(Protocol):
    """A private key object on a dongle, as python-pkcs11 puts its classes together at run time."""

    key_type: pkcs11.KeyType
    label: str
    id: bytes

    def __getitem__(self, attribute: pkcs11.Attribute) -> Any: ...

    def sign(self, data: bytes, *, mechanism: Mechanism) -> bytes: ...


def token_key(
    private: PrivateKeyObject,
    public_key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey,
    mechanisms: Collection[Mechanism | int],
) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    """The private key on the dongle whose public half is `public_key`; `mechanisms` are those of the dongle."""
    if isinstance(public_key, rsa.RSAPublicKey):
        return TokenRsaKey(private, public_key, mechanisms)
    return TokenEcKey(private, public_key)


def public_key_of(public: pkcs11.PublicKey) -> rsa.RSAPublicKey | ec.EllipticCurvePublicKey:
    """The key in a public key object of the dongle.

    Raises:
        NoCredentialError: it is neither RSA nor EC.
    """
    if public.key_type is pkcs11.KeyType.RSA:
        exponent = int.from_bytes(public[pkcs11.Attribute.PUBLIC_EXPONENT], "big")
        return rsa.RSAPublicNumbers(exponent, int.from_bytes(public[pkcs11.Attribute.MODULUS], "big")).public_key()
    if public.key_type is pkcs11.KeyType.EC:
        key = serialization.load_der_public_key(encode_ec_public_key(public))
        if isinstance(key, ec.EllipticCurvePublicKey):
            return key
    raise NoCredentialError("the dongle's key is neither RSA nor EC", hint="make a new key with `proxyagent init`")


class TokenRsaKey(rsa.RSAPrivateKey):
    """An RSA key on a dongle. It signs with PKCS#1 v1.5 and SHA-256 and does nothing else."""

    def __init__(
        self, private: PrivateKeyObject, public_key: rsa.RSAPublicKey, mechanisms: Collection[Mechanism | int]
    ) -> None:
        self._private = private
        self._public_key = public_key
        # Some modules hash nothing themselves.
        self._raw = Mechanism.RSA_PKCS in mechanisms and Mechanism.SHA256_RSA_PKCS not in mechanisms

    @property
    def key_size(self) -> int:
        """Bits of the modulus."""
        return self._public_key.key_size

    def public_key(self) -> rsa.RSAPublicKey:
        """The public half."""
        return self._public_key

    def sign(
        self,
        data: bytes | bytearray | memoryview,
        padding: padding.AsymmetricPadding,
        algorithm: utils.Prehashed | hashes.HashAlgorithm | utils.NoDigestInfo,
    ) -> bytes:
        """Sign on the dongle (RFC 8017 section 8.2)."""
        if not isinstance(padding, _PKCS1) or not isinstance(algorithm, hashes.SHA256):
            raise NotImplementedError("a dongle's key signs with PKCS#1 v1.5 and SHA-256 only")
        if not self._raw:
            return bytes(self._private.sign(bytes(data), mechanism=Mechanism.SHA256_RSA_PKCS))
        return bytes(self._private.sign(_SHA256_INFO + hashlib.sha256(data).digest(), mechanism=Mechanism.RSA_PKCS))

    def decrypt(self, ciphertext: bytes, padding: padding.AsymmetricPadding) -> NoReturn:
        """Never."""
        _refuse()

    def private_numbers(self) -> NoReturn:
        """Never."""
        _refuse()

    def private_bytes(self, encoding: object, format: object, encryption_algorithm: object) -> NoReturn:  # noqa: A002
        """Never."""
        _refuse()

    def __copy__(self) -> "TokenRsaKey":
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> "TokenRsaKey":
        return self


class TokenEcKey(ec.EllipticCurvePrivateKey):
    """An EC key on a dongle. It signs with ECDSA and SHA-256 and does nothing else."""

    def __init__(self, private: PrivateKeyObject, public_key: ec.EllipticCurvePublicKey) -> None:
        self._private = private
        self._public_key = public_key

    @property
    def key_size(self) -> int:
        """Bits of the curve's order."""
        return self._public_key.key_size

    @property
    def curve(self) -> ec.EllipticCurve:
        """The curve."""
        return self._public_key.curve

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """The public half."""
        return self._public_key

    def sign(
        self, data: bytes | bytearray | memoryview, signature_algorithm: ec.EllipticCurveSignatureAlgorithm
    ) -> bytes:
        """Sign on the dongle, which returns r and s side by side (PKCS#11 v2.40 section 2.3.1)."""
        if not isinstance(signature_algorithm.algorithm, hashes.SHA256):
            raise NotImplementedError("a dongle's key signs with SHA-256 only")
        digest = hashlib.sha256(data).digest()
        raw = bytes(self._private.sign(digest, mechanism=Mechanism.ECDSA))
        half = len(raw) // 2
        return utils.encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> NoReturn:
        """Never."""
        _refuse()

    def private_numbers(self) -> NoReturn:
        """Never."""
        _refuse()

    def private_bytes(self, encoding: object, format: object, encryption_algorithm: object) -> NoReturn:  # noqa: A002
        """Never."""
        _refuse()

    def __copy__(self) -> "TokenEcKey":
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> "TokenEcKey":
        return self


_PKCS1 = padding.PKCS1v15


def _refuse() -> NoReturn:
    raise NotImplementedError("the key never leaves its dongle")
