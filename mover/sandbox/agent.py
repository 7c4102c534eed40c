"""A running `proxyagent` for one or more sandbox dongles."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from mover.errors import SandboxError
from mover.sandbox.dongle import Dongle
from mover.sandbox.process import ServerProcess

_SECONDS = 60.0
_IDENTITY = "robot"
_LONGEST_SOCKET_PATH = 107  # unix(7)


class Agent:
    """`proxyagent serve` on a Unix socket of its own, unlocked as an operator does it, by `proxyagent renew`."""

    profile = "mover"
    """The profile of the first dongle's robot."""

    def __init__(
        self,
        dongle: Dongle,
        *,
        parent: Path | None = None,
        settings: str = "",
        identity: str = "",
        allow: str | None = None,
        profiles: str = "",
        others: Mapping[str, Dongle] | None = None,
        unlock: bool = True,
    ) -> None:
        """Start the agent; with `unlock`, give it the PINs.

        Its files lie in a new folder in `parent` (by default, where temporary files go). `settings` is TOML for the
        ``[agent]`` section, `identity` for the ``[[identity]]`` section, `allow` says who may have the profile (by
        default, our own user), `profiles` is TOML to stand behind the ``[[profile]]`` section. `others` are more
        dongles by the name of their identity, plugged beside the first.

        Raises:
            SandboxError: it did not start, or did not accept the PIN, or the path of `parent` is too long.
        """
        self.dongle = dongle
        self.directory = Path(tempfile.mkdtemp(prefix="agent-", dir=parent))
        self.socket = self.directory / "agent.sock"
        if len(os.fsencode(self.socket)) > _LONGEST_SOCKET_PATH:
            self.directory.rmdir()
            raise SandboxError(
                f"{self.socket} is too long for a socket", hint="set TMPDIR to a shorter path, such as /tmp"
            )
        self.config = self.directory / "proxyagent.toml"
        self._others = dict(others or {})
        others_config = "\n".join(other.config(name) for name, other in self._others.items())
        self._write_config(settings, identity, allow or f"uids = [{os.geteuid()}]", f"{others_config}\n{profiles}")
        self._process = ServerProcess(
            "proxyagent",
            self.command("serve"),
            directory=self.directory,
            package="softhsm2",
            environment={**os.environ, **dongle.environment},
        )
        try:
            self.start()
            if unlock:
                self.unlock()
        except BaseException:
            self.stop()
            raise

    @property
    def running(self) -> bool:
        """Whether the agent runs."""
        return self._process.running

    @property
    def log(self) -> str:
        """What the agent has written since it was last started."""
        return self._process.logged()

    def command(self, *arguments: str) -> list[str]:
        """The command line of `proxyagent` with this agent's configuration."""
        return [sys.executable, "-P", "-m", "proxyagent", "--config", str(self.config), *arguments]

    def start(self) -> None:
        """Start it, or start it again after `halt`: without a session.

        Raises:
            SandboxError: it did not start.
        """
        self._process.start(lambda log: "proxyagent listens on" in log)

    def unlock(self, pin: str | None = None) -> None:
        """Give the agent every dongle's PIN; or another one for the first.

        Raises:
            SandboxError: it was not accepted, for the reason that `proxyagent renew` gives.
        """
        self._renew(_IDENTITY, self.dongle.pin if pin is None else pin)
        for name, other in self._others.items() if pin is None else ():
            self._renew(name, other.pin)

    def _renew(self, identity: str, pin: str) -> None:
        done = subprocess.run(
            ["setpriv", "--pdeathsig", "TERM", *self.command("renew", "--identity", identity)],
            input=f"{pin}\n",
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise SandboxError(f"proxyagent renew: {done.stderr.strip()}", hint="read the agent's log")

    def halt(self) -> None:
        """Stop the agent, so that its session is gone, and keep what `start` needs."""
        self._process.stop()

    def stop(self) -> None:
        """Stop the agent for good."""
        self.halt()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _write_config(self, settings: str, identity: str, allow: str, more: str) -> None:
        modules = [str(self.dongle.module), "/usr/lib/*"]
        self.config.write_text(
            f"[agent]\nsocket = {json.dumps(str(self.socket))}\nstate_directory = {json.dumps(str(self.directory))}\n"
            f"modules = {json.dumps(modules)}\n{settings}\n"
            f"[trust]\nca_directory = {json.dumps(str(self.dongle.ca_directory))}\n\n"
            f"{self.dongle.config(_IDENTITY, identity)}\n"
            f'[[profile]]\nname = "{self.profile}"\nidentity = "{_IDENTITY}"\n{allow}\n\n{more}\n'
        )
