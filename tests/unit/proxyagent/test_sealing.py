"""What a credential is sealed to, from what systemd-creds has written."""

import shutil
import subprocess
from pathlib import Path

import pytest

from proxyagent.errors import ConfigError
from proxyagent.sealing import WARNINGS, Seal, seal_of

#: The beginnings of what systemd-creds of systemd 252 wrote with --with-key=host and --with-key=tpm2-absent.
HOST = "Whxqht+dQJax1aZeCGLxmiAAAAABAAAADAAAABAAAAD3QP+Oo+/iiRBwZgkA"
EMPTY = "BYRp2vb1QySABUnaD46i+yAAAAABAAAADAAAABAAAACSTAaHMcRWgy6cUEYA"


def seal(directory: Path, text: str | None) -> Seal:
    if text is not None:
        (directory / "pin.sealed").write_text(text)
    return seal_of("pin", {"CREDENTIALS_DIRECTORY": str(directory)})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (HOST, Seal.HOST),
        (EMPTY, Seal.NOTHING),
        ("k6iUCUh0RJCQyvL8k8q1UyAA", Seal.TPM2),  # SD_ID128 93a89409…, host and TPM2
        ("DHzAexF2RZGcSwvqCLwg/iAA", Seal.TPM2),  # 0c7cc07b…, TPM2
        ("MTIzNDU2Nzg5MDEyMzQ1Njc4", Seal.UNKNOWN),
        ("1234\n", Seal.UNKNOWN),
        ("", Seal.UNKNOWN),
        (None, Seal.UNKNOWN),
    ],
)
def test_the_kind_of_key_is_known_from_the_beginning(tmp_path: Path, text: str | None, expected: Seal) -> None:
    assert seal(tmp_path, text) is expected
    assert (expected in WARNINGS) == (expected is not Seal.TPM2)


def test_without_any_credential_nothing_is_known() -> None:
    assert seal_of("pin", {}) is Seal.UNKNOWN


def test_what_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "pin.sealed").mkdir()
    with pytest.raises(ConfigError, match=r"the credential 'pin\.sealed' cannot be read"):
        seal(tmp_path, None)


@pytest.mark.parametrize(("key", "expected"), [("host", Seal.HOST), ("tpm2-absent", Seal.NOTHING)])
def test_this_systemds_seals_are_known(tmp_path: Path, key: str, expected: Seal) -> None:
    if shutil.which("systemd-creds") is None:
        pytest.skip("needs the package systemd")
    # With a /var/lib/systemd of its own, so that the machine gets no key from us.
    script = (
        'mount -t tmpfs tmpfs /var/lib/systemd && printf 1234 | systemd-creds encrypt --with-key="$1" --name=pin - "$2"'
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", key, str(tmp_path / "pin.sealed")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if done.returncode != 0 and ("mount" in done.stderr or "unshare" in done.stderr):
        pytest.skip("needs to be allowed to mount")
    assert done.returncode == 0, done.stderr
    assert seal(tmp_path, None) is expected
