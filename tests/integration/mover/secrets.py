"""Find private keys: in files, by their PEM armour or their DER structure."""

import re
from collections.abc import Iterator
from pathlib import Path

#: PEM of any kind of private key (RFC 7468), and DER of an RSA or EC one: PKCS #1 (RFC 8017 A.1.2) with a modulus of
#: 1024 to 4096 bits, PKCS #8 (RFC 5208) and SEC 1 (RFC 5915).
_KEYS = re.compile(
    rb"-----BEGIN [A-Z ]*PRIVATE KEY-----"
    rb"|\x30\x82..\x02\x01\x00\x02[\x81\x82].{1,2}\x00?[\x80-\xff]"
    rb"|\x30[\x81\x82].{1,2}\x02\x01\x00\x30.\x06[\x07\x09]"
    rb"|\x30\x77\x02\x01\x01\x04\x20",
    re.DOTALL,
)
_OVERLAP = 4096
_BLOCK = 8 << 20


def has_key(path: Path) -> bool:
    """Whether a private key is anywhere in the file."""
    tail = b""
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            if _KEYS.search(tail + block):
                return True
            tail = block[-_OVERLAP:]
    return False


def files_with_keys(*folders: Path) -> Iterator[Path]:
    """The plain files at and below the folders that have a private key in them."""
    for folder in folders:
        for path in [folder, *folder.rglob("*")]:
            if path.is_file() and not path.is_symlink() and has_key(path):
                yield path
