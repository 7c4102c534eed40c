"""A real storage element on loopback: XRootD with root:// (GSI) and davs:// (TLS, proxies) on one export."""

import re
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path

from mover.errors import SandboxError
from mover.sandbox.ca import CertificateAuthority
from mover.sandbox.plugin import compile_plugin
from mover.sandbox.ports import PortLease
from mover.sandbox.process import Probe, ServerProcess, give_to, server_user, write_config

_ATTEMPTS = 3


class StorageServer:
    """An XRootD server for one robot; everybody else is denied. What is common to disk and tape.

    Everything lies in `directory`. The ports stay the server's from construction to `close`, so that it comes back on
    the same ports when it is started again.
    """

    #: The exported directory, the first part of every path; and the options of the export.
    export = ""
    export_options = ""

    def __init__(self, directory: Path, ca: CertificateAuthority, *, robot: str) -> None:
        """Lay out the directory (which must not exist) for the robot of that common name (`ca.distinguished_name`).

        Raises:
            SandboxError: no port is free, or we are root and there is no user xrootd.
        """
        self.directory = directory.resolve()
        self.robot_name = f"/C=UK/O=Sandbox/CN={robot}"
        self._ca_directory = ca.directory
        self._user = server_user("xrootd")
        self._ports = self._lease_ports()
        self._has_run = False
        for name in ("adm/tmp", "bin", "control", "etc", "log", f"disk/{self.export}", "disk/.well-known"):
            (self.directory / name).mkdir(parents=True)
        ca.issue_host(self.directory / "etc")
        (self.directory / "etc/grid-mapfile").write_text(f'"{self.robot_name}" robot\n')
        (self.directory / "etc/authdb").write_text(f"u robot /{self.export} a\nu * /.well-known rl\n")
        # Without -s, xrootd leaves a file with its environment in /tmp.
        argv = ["xrootd", "-c", "/proc/self/cwd/etc/server.cfg", "-s", "/proc/self/cwd/adm/xrootd.run"]
        preload = {"LD_PRELOAD": "/proc/self/cwd/bin/libfulldisk.so"}
        self._xrootd = self.process("xrootd", argv, package="xrootd-server", environment=preload)

    @property
    def root_url(self) -> str:
        """The base for root:// clients, without a trailing slash."""
        return f"root://localhost:{self._ports['ROOT_PORT'].number}//{self.export}"

    @property
    def davs_url(self) -> str:
        """The base for WebDAV clients, without a trailing slash."""
        return f"davs://localhost:{self._ports['DAVS_PORT'].number}/{self.export}"

    @property
    def disk_directory(self) -> Path:
        """Where the files below the base are on disk: `root_url + "/a"` is `disk_directory / "a"`."""
        return self.directory / "disk" / self.export

    def start(self) -> None:
        """Start the server and wait until it is ready. After the first time, the URLs stay the same.

        Raises:
            SandboxError: it is not installed, or did not start.
        """
        _check_host_name()
        for attempt in range(1, _ATTEMPTS + 1):
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

    def stop(self) -> None:
        """End the server: connections break, new ones are refused, the files stay."""
        self._xrootd.stop()

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

    def process(
        self, name: str, argv: list[str], *, package: str, environment: Mapping[str, str] | None = None
    ) -> ServerProcess:
        """A program of this server, run in its directory, as its user, with `environment` added to the usual one."""
        whole = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "HOME": "/proc/self/cwd/adm",
            "TMPDIR": "/proc/self/cwd/adm/tmp",
            **(environment or {}),
        }
        return ServerProcess(
            name,
            argv,
            directory=self.directory,
            package=package,
            environment=whole,
            user=self._user,
            # FRM would wait for its copies; nothing here needs more.
            grace_seconds=0.5,
        )

    def port_names(self) -> tuple[str, ...]:
        """The names, in the configuration's template, of the ports that the server needs."""
        return ("ROOT_PORT", "DAVS_PORT")

    def port(self, name: str) -> int:
        """The port of that name in the configuration's template."""
        return self._ports[name].number

    def configure(self) -> None:
        """Write what depends on the ports, and take the CA's directory as it is now (it may have a new CRL)."""
        shutil.copytree(self._ca_directory, self.directory / "etc/certificates", dirs_exist_ok=True)
        write_config("xrootd.cfg", self.directory / "etc/server.cfg", self.values())

    def values(self) -> dict[str, object]:
        """What stands for the names in the configuration's templates."""
        return {
            "EXPORT": self.export,
            "EXPORT_OPTIONS": self.export_options,
            **{name: port.number for name, port in self._ports.items()},
        }

    def start_processes(self) -> None:
        """Start the programs of this server, and wait until they are ready."""
        compile_plugin("fulldisk", self.directory / "bin")
        self._xrootd.start(initialised("xrootd"))

    def _lease_ports(self) -> dict[str, PortLease]:
        return {name: PortLease() for name in self.port_names()}

    def _release_ports(self) -> None:
        for port in self._ports.values():
            port.close()


def _check_host_name() -> None:
    """XRootD does not start on a machine that cannot find its own name."""
    name = socket.gethostname()
    try:
        socket.getaddrinfo(name, None)
    except OSError as error:
        raise SandboxError(
            f"this machine's own name {name!r} does not resolve: {error}",
            hint=f"add the line '127.0.1.1 {name}' to /etc/hosts",
        ) from error


def initialised(program: str) -> Probe:
    """Whether the program of XRootD's has logged that it, and not just a part of it, is ready."""
    line = re.compile(rf"^-+ {program} anon@\S+ initialization completed\.$", re.MULTILINE)
    return lambda log: line.search(log) is not None


class DiskServer(StorageServer):
    """A disk-only storage element."""

    export = "disk"
