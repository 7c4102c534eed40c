"""The agent's side of the PKCS#11 helper process: every call has a time limit, and a dead helper is replaced."""

import contextlib
import logging
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from proxyagent.chain import certificates_from_pem
from proxyagent.errors import BusyError, ModuleCrashedError, ModuleError, ModuleTimeoutError
from proxyagent.pin import Secret
from proxyagent.protocol import Channel, DeadlineError, Message, PeerClosedError, success_or_raise
from proxyagent.uri import Uri

_log = logging.getLogger(__name__)
_EXIT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class DongleState:
    """What the helper says of the dongle."""

    serial: str
    label: str
    pin_state: str
    """'ok', 'low', 'final' or 'locked'."""


class Helper:
    """A PKCS#11 module in a process of its own, started when it is first needed and again after it died or failed.

    No PIN outlives the call that it was given to: a helper that replaces another is not logged in.
    It may be used from several threads; they take turns. Every method may raise

    * ModuleTimeoutError: the module did not answer within `timeout_seconds`; its process was killed.
    * ModuleCrashedError: the module took its process down.
    * ModuleError: the module answered with an error; its process was killed, for some stay broken (SoftHSM does).
    * BusyError: another thread's call took so long that this one had no turn.
    * the errors of `proxyagent.dongle.Dongle`.
    """

    def __init__(self, module: Path, uri: Uri, *, timeout_seconds: float, setup: bool = False) -> None:
        self._module = module
        self._uri = uri
        self._timeout_seconds = timeout_seconds
        self._setup = setup
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self.logged_in = False
        """Whether the helper can sign without a PIN, as of its last answer."""

    @property
    def pid(self) -> int | None:
        """The helper's process id while it runs."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def describe(self) -> DongleState:
        """What the dongle says of itself now."""
        answer = self.call({"verb": "describe"})
        return DongleState(str(answer["serial"]), str(answer["label"]), str(answer["pin_state"]))

    def login(self, pin: Secret, serial: str) -> None:
        """Log in to the dongle with this serial number; see `Dongle.login`. It stays logged in."""
        self.call({"verb": "login", "serial": serial}, pin)

    def sign_session(self, public_key: rsa.RSAPublicKey, lifetime: timedelta) -> tuple[x509.Certificate, ...]:
        """A session proxy for `public_key`, and its issuer's certificate; see `Dongle.sign_session`."""
        spki = public_key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        answer = self.call(
            {
                "verb": "sign-session",
                "public_key": spki.decode(),
                "lifetime_seconds": int(lifetime.total_seconds()),
            }
        )
        return certificates_from_pem(str(answer["chain"]))

    def call(self, request: Message, pin: Secret | None = None) -> Message:
        """Send one request, with a PIN if it takes one, and return the answer or raise its error."""
        with self._turn():
            process, connection = self._running()
            channel = Channel(connection, timeout_seconds=self._timeout_seconds)
            try:
                channel.send(request)
                if pin is not None:
                    channel.send_secret(pin)
                answer = channel.receive()
            except DeadlineError as error:
                self._kill()
                raise ModuleTimeoutError(
                    f"the PKCS#11 module did not answer within {self._timeout_seconds:g} s and was stopped",
                    hint="replug the dongle, then run `proxyagent renew`; another helper starts by itself",
                ) from error
            except PeerClosedError as error:
                raise self._crashed(process) from error
            was_logged_in, self.logged_in = self.logged_in, answer.pop("logged_in", False) is True
            try:
                return success_or_raise(answer)
            except ModuleError as error:
                raise self._failed(error, login_lost=was_logged_in or self.logged_in) from error

    def close(self) -> None:
        """Stop the helper, whatever it is doing. The object may be used again; then another starts."""
        process = self._process
        if process is not None:
            process.kill()  # whoever waits for a hanging module is let go
        with self._turn():
            self._kill()

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._lock.acquire(timeout=self._timeout_seconds + _EXIT_SECONDS):
            raise BusyError("the dongle is busy with another request", hint="try again in a minute")
        try:
            yield
        finally:
            self._lock.release()

    def _running(self) -> tuple[subprocess.Popen[bytes], socket.socket]:
        if self._process is not None and self._socket is not None and self._process.poll() is None:
            return self._process, self._socket
        self._kill()
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-P", "-B", "-m", "proxyagent.hsm_helper"]
        command += ["--fd", str(theirs.fileno()), "--module", str(self._module), "--uri", str(self._uri)]
        try:
            # A session of its own: Ctrl-C is for the agent, which then ends the helper in order.
            self._process = subprocess.Popen(
                command + (["--setup"] if self._setup else []),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self._socket = ours
        return self._process, ours

    def _crashed(self, process: subprocess.Popen[bytes]) -> ModuleCrashedError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_EXIT_SECONDS)
        code = process.poll()
        how = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        self._kill()
        return ModuleCrashedError(
            f"the process of the PKCS#11 module ended ({how})",
            hint="run `proxyagent renew` to log in again; another helper starts by itself",
        )

    def _failed(self, error: ModuleError, *, login_lost: bool) -> ModuleError:
        self._kill()
        if not login_lost:
            return ModuleError(error.message, hint=error.hint)
        _log.warning("%s; the login is lost with its helper", error.message)
        return ModuleError(error.message, hint=f"{error.hint}; the login is lost: run `proxyagent renew` once it works")

    def _kill(self) -> None:
        self.logged_in = False
        connection, self._socket = self._socket, None
        process, self._process = self._process, None
        if connection is not None:
            connection.close()
        if process is not None:
            process.kill()
            # A process that hangs in the kernel stays; subprocess reaps it when it ends at last.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_EXIT_SECONDS)
