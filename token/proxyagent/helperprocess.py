"""The process of the PKCS#11 module, from outside: every call has a time limit, and a dead one is replaced."""

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from proxyagent.errors import BusyError, ModuleCrashedError, ModuleError, ModuleTimeoutError, ProtocolError
from proxyagent.modules import check_module
from proxyagent.pin import Secret
from proxyagent.protocol import Channel, DeadlineError, Message, PeerClosedError, success_or_raise
from proxyagent.uri import Uri

_log = logging.getLogger(__name__)
_EXIT_SECONDS = 5.0

# What modules and the libraries below them are configured by. Not what loads other code (LD_PRELOAD).
_VARIABLES = {"HOME", "LANG", "TZ", "SOFTHSM2_CONF"}
_PREFIXES = ("LC_", "P11_KIT_", "PKCS11_", "PCSCLITE_", "OPENSC_", "YUBIHSM_PKCS11_")
_TALKATIVE = ("DEBUG", "DBG", "LOG")  # what these print may hold the PIN


class HelperProcess:
    """One `hsm_helper` at a time, for one module. See `hsm.Helper`, which knows what to ask it."""

    def __init__(
        self, module: Path, uri: Uri, *, timeout_seconds: float, allowed_modules: Sequence[str], setup: bool
    ) -> None:
        self._module = module
        self._uri = uri
        self._timeout_seconds = timeout_seconds
        self._allowed_modules = allowed_modules
        self._setup = setup
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self.logged_in = False
        self.confined: bool | None = None

    @property
    def pid(self) -> int | None:
        """The helper's process id while it runs."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def call(self, request: Message, pin: Secret | None, *, timeout_seconds: float | None) -> Message:
        """Send one request, with a PIN if it takes one, and return the answer or raise its error."""
        seconds = self._timeout_seconds if timeout_seconds is None else timeout_seconds
        with self._turn():
            process, connection = self._running()
            channel = Channel(connection, timeout_seconds=seconds)
            try:
                channel.send(request)
                if pin is not None:
                    channel.send_secret(pin)
                answer = channel.receive()
            except DeadlineError as error:
                self._kill()
                raise ModuleTimeoutError(
                    f"the PKCS#11 module did not answer within {seconds:g} s and was stopped",
                    hint="replug the dongle, then run `proxyagent renew`; another helper starts by itself",
                ) from error
            except PeerClosedError as error:
                raise self._crashed(process) from error
            except ProtocolError as error:
                self._kill()
                raise ModuleCrashedError(
                    f"the process of the PKCS#11 module answered nonsense ({error.message}) and was stopped",
                    hint="look for another version of the vendor's PKCS#11 module",
                ) from error
            except BaseException:
                self._kill()  # its late answer would be taken for that to the next request
                raise
            was_logged_in, self.logged_in = self.logged_in, answer.pop("logged_in", False) is True
            self.confined = answer.pop("confined", False) is True
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
        module = check_module(self._module, self._allowed_modules)
        try:
            self._process, self._socket = self._start(module)
        except OSError as error:
            raise ModuleError(
                f"cannot start a process for the PKCS#11 module: {error.strerror}",
                hint="see whether the agent has run out of processes, memory or open files",
            ) from error
        return self._process, self._socket

    def _start(self, module: Path) -> tuple[subprocess.Popen[bytes], socket.socket]:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-I", "-B", "-m", "proxyagent.hsm_helper"]
        command += ["--fd", str(theirs.fileno()), "--module", str(module), "--uri", str(self._uri)]
        with theirs:
            try:
                # A session of its own: Ctrl-C is for the agent, which then ends the helper in order.
                process = subprocess.Popen(
                    command + (["--setup"] if self._setup else []),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    env=environment_for_module(os.environ),
                    cwd="/",
                    umask=0o077,
                    start_new_session=True,
                )
            except OSError:
                ours.close()
                raise
        return process, ours

    def _crashed(self, process: subprocess.Popen[bytes]) -> ModuleCrashedError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_EXIT_SECONDS)
        code = process.poll()
        how = _signal_name(-code) if code is not None and code < 0 else f"exit code {code}"
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


def environment_for_module(environment: Mapping[str, str]) -> dict[str, str]:
    """What a module's process gets of the agent's environment."""
    kept = {
        name: value
        for name, value in environment.items()
        if (name in _VARIABLES or name.startswith(_PREFIXES)) and not any(word in name for word in _TALKATIVE)
    }
    return {**kept, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
