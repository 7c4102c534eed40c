"""A dongle made of software: a SoftHSM token with a robot's key and certificate, set up as a real one is."""

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from mover.errors import SandboxError
from mover.sandbox.ca import CertificateAuthority

MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")
_SECONDS = 60.0
_LABEL = "robot"


class Dongle:
    """A SoftHSM token in a directory of its own, with random PINs that are only in our memory.

    Programs see it through `module` if `environment` is in theirs. The key was made on the token by
    `proxyagent init` and cannot be taken from it.
    """

    def __init__(
        self,
        directory: Path,
        authority: CertificateAuthority,
        common_name: str = "Robot - sandbox mover",
        *,
        module: Path = MODULE,
        label: str | None = None,
        key: str = "rsa-2048",
    ) -> None:
        """Make the dongle in `directory`, which must not exist, with a certificate from `authority`.

        `key` is the kind of its key, as `proxyagent init --key` has it.

        Raises:
            SandboxError: SoftHSM is not installed, or the setting up failed.
        """
        if not MODULE.exists():
            raise SandboxError(f"there is no {MODULE}", hint="apt install softhsm2")
        self.directory = directory
        self.module = module
        self.ca_directory = authority.directory
        self._pin = _random_pin()
        self._make_token(label or f"sandbox {secrets.token_hex(4)}")
        self.certificate = self._set_up(authority, common_name, key)

    @property
    def pin(self) -> str:
        """The user PIN."""
        return self._pin

    @property
    def environment(self) -> dict[str, str]:
        """What a program's environment needs, besides its own, to see the dongle."""
        return {"SOFTHSM2_CONF": str(self.directory / "softhsm2.conf")}

    @property
    def uri(self) -> str:
        """The dongle's PKCS#11 URI."""
        return f"pkcs11:token={self._label.replace(' ', '%20')}"

    def config(self, name: str = "robot", settings: str = "") -> str:
        """An ``[[identity]]`` section of the agent's configuration, with more TOML in `settings`."""
        module, uri = json.dumps(str(self.module)), json.dumps(self.uri)
        return f'[[identity]]\nname = "{name}"\nmodule = {module}\nuri = {uri}\n{settings}\n'

    def plug_beside(self, other: "Dongle") -> None:
        """Move it to the computer that `other` is in, so that one agent sees both."""
        for token in (self.directory / "tokens").iterdir():
            token.rename(other.directory / "tokens" / token.name)
        self.directory = other.directory

    def _make_token(self, label: str) -> None:
        self._label = label
        self.directory.mkdir(mode=0o700)
        tokens = self.directory / "tokens"
        tokens.mkdir(mode=0o700)
        (self.directory / "softhsm2.conf").write_text(
            f"directories.tokendir = {tokens}\nobjectstore.backend = file\nlog.level = ERROR\n"
        )
        pins = f"{_random_pin()}\n{self._pin}\n"
        self._run([sys.executable, "-P", "-m", "mover.sandbox.blank_token", str(MODULE), label], pins)

    def _set_up(self, authority: CertificateAuthority, common_name: str, key: str) -> x509.Certificate:
        config = self.directory / "init.toml"
        # `init` opens no socket; one below our directory might be longer than a socket's path may be.
        config.write_text(f'[agent]\nsocket = "/nonexistent"\n{self.config()}')
        init = [sys.executable, "-P", "-m", "proxyagent", "--config", str(config), "init", "--label", _LABEL]
        request = x509.load_pem_x509_csr(self._run([*init, "--key", key], f"{self._pin}\n").encode())
        public_key = request.public_key()
        if not isinstance(public_key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey) or not request.is_signature_valid:
            raise SandboxError("proxyagent init made a bad request", hint="run the tests of proxyagent")
        certificate = authority.issue_robot(common_name, public_key)
        file = self.directory / "robot.pem"
        file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        self._run([*init, "--certificate", str(file)], f"{self._pin}\n")
        return certificate

    def _run(self, command: list[str], stdin: str) -> str:
        done = subprocess.run(
            ["setpriv", "--pdeathsig", "TERM", *command],
            input=stdin,
            capture_output=True,
            text=True,
            env={**os.environ, **self.environment},
            timeout=_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise SandboxError(
                f"{' '.join(command[3:5])} failed: {done.stderr.strip()}", hint="apt install softhsm2, or run its tests"
            )
        return done.stdout


def _random_pin() -> str:
    return f"{secrets.randbelow(10**8):08}"
