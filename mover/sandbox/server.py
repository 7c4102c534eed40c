"""What the sandbox's storage servers have in common: a directory, leased ports, one robot, a full disk on request."""

import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

from mover.errors import SandboxError
from mover.sandbox.ca import CertificateAuthority, slash_name
from mover.sandbox.ports import PortLease
from mover.sandbox.process import ServerProcess, give_to, server_user

#: The server's directory, as its programs see it: so Unix socket paths stay short, and the server's user needs no
#: permission on the directories above.
HERE = "/proc/self/cwd"
_ATTEMPTS = 3


class RobotServer(ABC):
    """A storage server for one robot; everybody else is denied.

    Everything lies in `directory`. The ports stay the server's from construction to `close`, so that it comes back on
    the same ports when it is started again.
    """

    def __init__(
        self, directory: Path, ca: CertificateAuthority, *, robot: str, user: str, folders: Sequence[str]
    ) -> None:
        """Lay out the directory (which must not exist) for the robot of that common name (`ca.distinguished_name`).

        `folders` are made in it, beside those that every server has: bin, control, etc with a host's certificate, log.
        The programs run as the system's `user` if we are root, else as who we are.

        Raises:
            SandboxError: no port is free, or we are root and there is no such user.
        """
        self.directory = directory.resolve()
        self.robot_name = slash_name(robot)
        self._ca_directory = ca.directory
        self._user = server_user(user)
        self._ports = self._lease_ports()
        self._has_run = False
        for name in ("bin", "control", "etc", "log", *folders):
            (self.directory / name).mkdir(parents=True)
        ca.issue_host(self.directory / "etc")

    @property
    @abstractmethod
    def disk_directory(self) -> Path:
        """Where the files below the base of the server's URLs are on disk."""

    def start(self) -> None:
        """Start the server and wait until it is ready. After the first time, the URLs stay the same.

        Raises:
            SandboxError: it is not installed, or did not start.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            self.stop()
            self.configure()
            give_to(self._user, self.directory)
            try:
                self.start_processes()
            except SandboxError:
                self.stop()
                lost_race = any(port.in_use for port in self._ports.values())
                if self._has_run or not lost_race or attempt == _ATTEMPTS:
                    raise
                self._release_ports()
                self._ports = self._lease_ports()
            else:
                self._has_run = True
                return

    @abstractmethod
    def stop(self) -> None:
        """End the server: connections break, new ones are refused, the files stay."""

    def close(self) -> None:
        """Stop for good, and let others have the ports."""
        self.stop()
        self._release_ports()

    def set_disk_full(self, *, full: bool) -> None:
        """Let every write to a stored file fail from now on, as on a full disk; or no longer."""
        flag = self.directory / "control/DISK_FULL"
        if full:
            flag.touch()
        else:
            flag.unlink(missing_ok=True)

    def port(self, name: str) -> int:
        """The port of that name, one of `port_names`."""
        return self._ports[name].number

    @abstractmethod
    def port_names(self) -> tuple[str, ...]:
        """The names, in the configuration's template, of the ports that the server needs."""

    def configure(self) -> None:
        """Write what depends on the ports, and take the CA's directory as it is now (it may have a new CRL)."""
        shutil.copytree(self._ca_directory, self.directory / "etc/certificates", dirs_exist_ok=True)

    @abstractmethod
    def start_processes(self) -> None:
        """Start the programs of this server, and wait until they are ready."""

    def process(
        self, name: str, argv: Sequence[str], *, package: str, environment: Mapping[str, str] | None = None
    ) -> ServerProcess:
        """A program of this server, run in its directory, as its user, with `environment` added to the usual one."""
        return ServerProcess(
            name,
            argv,
            directory=self.directory,
            package=package,
            environment={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "LANG": "C.UTF-8",
                "HOME": HERE,
                "TMPDIR": f"{HERE}/control",
                **(environment or {}),
            },
            user=self._user,
            # Nothing is to be finished at the end; FRM would wait for its copies.
            grace_seconds=0.5,
        )

    def _lease_ports(self) -> dict[str, PortLease]:
        return {name: PortLease() for name in self.port_names()}

    def _release_ports(self) -> None:
        for port in self._ports.values():
            port.close()
