"""What a sealed PIN is sealed to: a TPM2, this host's disk, or nothing. systemd's credentials begin with that."""

import base64
from collections.abc import MutableMapping
from enum import StrEnum
from os import environ

from proxyagent.systemd import read_credential

SUFFIX = ".sealed"
"""A credential of this name, less the suffix, is given to us as it was sealed, too: LoadCredential=NAME.sealed:FILE."""

_ID_BYTES = 16
_HEAD_CHARACTERS = 24  # base64 of 18 bytes


class Seal(StrEnum):
    """Who can open it."""

    TPM2 = "tpm2"
    """This host's TPM2, with or without a key on its disk beside it: a disk that was taken away yields nothing."""
    HOST = "host"
    """Who has this host's disk: the key is in /var/lib/systemd/credential.secret."""
    NOTHING = "nothing"
    """Everybody who has the file: the key is empty."""
    UNKNOWN = "unknown"
    """We were not given it as it was sealed, or it is of a kind that we do not know."""


#: systemd's identifiers of its kinds of keys, which an encrypted credential begins with (src/shared/creds-util.h).
_SEALS = {
    bytes.fromhex(identifier): seal
    for seal, identifiers in {
        Seal.HOST: ("5a1c6a86df9d4096b1d5a65e0862f19a", "55b9ed1d38594d43a8319d2ebb332ac6"),
        Seal.TPM2: (
            "0c7cc07b117645919c4b0bea08bc20fe",
            "faf7eb9341e3412ca1a436f95a29362f",
            "93a894094874449090caf2fc93cab553",
            "ef4ac13679a9480ea7db68897f9f165d",
            "af4950a849134eb1a73846304ff30c05",
            "adbc4ca3efb64201ba881b6f2e4095ea",
        ),
        Seal.NOTHING: ("058469daf6f54324800549da0f8ea2fb",),
    }.items()
    for identifier in identifiers
}

WARNINGS = {
    Seal.HOST: "sealed with a key on this host's disk only: a stolen disk yields it; seal it to a TPM2",
    Seal.NOTHING: "sealed with an empty key: whoever reads the file has it; seal it to a TPM2",
    Seal.UNKNOWN: "sealed to what, nobody knows; load it as systemd/examples/sealed-pin.conf does",
}
"""What a person should know of seals that do not protect the PIN; TPM2 does."""


def seal_of(name: str, environment: MutableMapping[str, str] = environ) -> Seal:
    """What the credential `name` is sealed to, as far as systemd gave us to know.

    Raises:
        ConfigError: the name is unusable, or what was sealed cannot be read.
    """
    sealed = read_credential(f"{name}{SUFFIX}", _HEAD_CHARACTERS, environment)
    if sealed is None:
        return Seal.UNKNOWN
    try:
        head = base64.b64decode(sealed, validate=True)
    except ValueError:
        return Seal.UNKNOWN
    return _SEALS.get(head[:_ID_BYTES], Seal.UNKNOWN)
