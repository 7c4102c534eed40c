"""One server program of the sandbox: started, waited for, and ended with everything that it started."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path

from mover.errors import SandboxError

#: Says whether the server is ready, given what it has logged since it was started.
Probe = Callable[[str], bool]

_POLL_SECONDS = 0.02
_KILLED_SECONDS = 5.0
_LOG_LINES = 15


def server_user(name: str) -> str | None:
    """`name` if we are root, since servers refuse to run as root; None if we are an ordinary user already.

    Raises:
        SandboxError: we are root and the system has no such user.
    """
    if os.geteuid() != 0:
        return None
    try:
        pwd.getpwnam(name)
    except KeyError:
        raise SandboxError(
            f"there is no user {name} to run a server as", hint=f"apt install the package that makes the user {name}"
        ) from None
    return name


def give_to(user: str | None, *paths: Path) -> None:
    """Make `user` the owner of the paths and of all below them; nothing to do if `user` is None."""
    if user is None:
        return
    entry = pwd.getpwnam(user)
    for path in paths:
        for below in (path, *path.rglob("*")):
            os.chown(below, entry.pw_uid, entry.pw_gid, follow_symlinks=False)


def write_config(template: str, target: Path, values: Mapping[str, object]) -> None:
    """Write the template of that name, filled in, to `target`."""
    target.write_text(fill_config(template, values))


def fill_config(template: str, values: Mapping[str, object]) -> str:
    """The template of that name from `mover/sandbox/files`, with every @NAME@ replaced."""
    text = resources.files(__package__).joinpath("files", template).read_text()
    for name, value in values.items():
        text = text.replace(f"@{name}@", str(value))
    return text


def together(*calls: Callable[[], None]) -> None:
    """Make the calls concurrently; when all have ended, raise the first error if there was one."""
    with ThreadPoolExecutor(max_workers=len(calls)) as pool:
        running = [pool.submit(call) for call in calls]
    for call in running:
        call.result()


class ServerProcess:
    """A server program with a log file of its own, `<directory>/log/<name>.log`.

    It ends when `stop` is called or when our process is gone, whichever comes first, and its children with it. It can
    be started from any thread and started again after `stop`.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        directory: Path,
        package: str,
        environment: Mapping[str, str],
        user: str | None = None,
        grace_seconds: float = 3.0,
    ) -> None:
        """Describe the server; nothing is started yet.

        `directory` is the working directory; `package` the Debian package that has the program; `environment` is given
        whole; `user`, possible for root only, is who the server runs as. A server that has not ended `grace_seconds`
        after it was asked to is killed.
        """
        self.name = name
        self.log = directory / "log" / f"{name}.log"
        self._argv = list(argv)
        self._directory = directory
        self._package = package
        self._environment = dict(environment)
        self._user = user
        self._grace_seconds = grace_seconds
        self._guard: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def running(self) -> bool:
        """Whether the server has been started and has not ended."""
        return self._guard is not None and self._guard.poll() is None

    def start(self, ready: Probe, *, seconds: float = 15.0) -> None:
        """Start the server and wait until `ready` says so.

        Raises:
            SandboxError: the program is not installed, ended, or was not ready in time; it is stopped then.
        """
        if shutil.which(self._argv[0], path=self._environment.get("PATH", os.defpath)) is None:
            raise SandboxError(f"{self._argv[0]} is not installed", hint=f"apt install {self._package}")
        self._launch()
        deadline = time.monotonic() + seconds
        while not ready(self.logged()):
            if not self.running:
                raise self._failure("ended before it was ready")
            if time.monotonic() > deadline:
                self.stop()
                raise self._failure(f"was not ready after {seconds:g} s")
            time.sleep(_POLL_SECONDS)
        # Another program's server may have answered the probe.
        if not self.running:
            raise self._failure("ended as soon as it was ready")

    def stop(self) -> None:
        """End the server and everything that it started; nothing to do if it is not running."""
        if self._guard is None:
            return
        guard, self._guard = self._guard, None
        assert guard.stdin is not None  # noqa: S101 - asked for in _launch
        guard.stdin.close()
        try:
            guard.wait(timeout=2 * self._grace_seconds + _KILLED_SECONDS)
        except subprocess.TimeoutExpired:
            guard.kill()
            guard.wait(timeout=_KILLED_SECONDS)

    def set_frozen(self, *, frozen: bool) -> None:
        """Stop the server and everything that it started in its tracks (SIGSTOP), or let them go on.

        Connections stay open, the kernel takes new ones, and nobody answers.
        """
        if self._guard is None:
            return
        for process in _below(self._guard.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGSTOP if frozen else signal.SIGCONT)

    def logged(self) -> str:
        """What the server has logged since it was last started."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def _launch(self) -> None:
        self.stop()
        self.log.parent.mkdir(exist_ok=True)
        guard = resources.files(__package__).joinpath("files", "guard.py")
        with self.log.open("ab") as log, resources.as_file(guard) as program:
            self._log_start = log.tell()
            self._guard = subprocess.Popen(
                [sys.executable, "-ISs", program, str(os.getpid()), str(self._grace_seconds), *self._as_user()],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._directory,
                env=self._environment,
                start_new_session=True,
            )

    def _as_user(self) -> list[str]:
        setpriv = ["setpriv", "--pdeathsig", "KILL", "--no-new-privs"]
        if self._user is not None:
            setpriv += [f"--reuid={self._user}", f"--regid={pwd.getpwnam(self._user).pw_gid}", "--clear-groups"]
        return [*setpriv, "--", *self._argv]

    def _failure(self, what: str) -> SandboxError:
        tail = "\n".join(self.logged().splitlines()[-_LOG_LINES:])
        return SandboxError(
            f"{self.name} {what}; its log ends with:\n{tail}",
            hint=f"see the log's end above, and check that the package {self._package} is installed as Debian ships it",
        )


def _below(ancestor: int) -> list[int]:
    """The processes that the process has started, and those that they have started."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            # The name stands in brackets and may hold anything; the parent is the second field after it.
            parents[int(stat.parent.name)] = int(stat.read_bytes().rpartition(b")")[2].split()[1])
    found = [ancestor]
    for one in found:
        found.extend(child for child, parent in parents.items() if parent == one)
    return found[1:]
