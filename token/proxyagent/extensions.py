"""What a certificate's extensions say; certificates come from others, so reading them may fail."""

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from proxyagent.errors import ChainError

#: What cryptography raises over malformed certificates, requests and CRLs, some of it only when a part is first used.
UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
_HINT = "look at the certificate with `openssl x509 -text`, and get one that conforms to RFC 5280"


def extensions_of(certificate: x509.Certificate) -> x509.Extensions:
    """The certificate's extensions.

    Raises:
        ChainError: one is malformed or there twice.
    """
    try:
        return certificate.extensions
    except UNREADABLE as error:
        raise ChainError("a certificate with unreadable extensions", hint=_HINT) from error


def is_ca(certificate: x509.Certificate) -> bool:
    """Whether basicConstraints call it a CA.

    Raises:
        ChainError: its extensions are unreadable.
    """
    try:
        return extensions_of(certificate).get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def key_usage_of(certificate: x509.Certificate) -> x509.KeyUsage | None:
    """The certificate's keyUsage; None if it has none, which allows everything.

    Raises:
        ChainError: its extensions are unreadable.
    """
    try:
        return extensions_of(certificate).get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return None
