"""A real storage element on loopback: XRootD with root:// (GSI) and davs:// (TLS, proxies) on one export."""

import base64
import re
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mover.errors import SandboxError
from mover.sandbox.ca import CertificateAuthority, slash_name
from mover.sandbox.plugin import compile_plugin
from mover.sandbox.process import Probe, together, write_config
from mover.sandbox.server import HERE, RobotServer


@dataclass(frozen=True, slots=True)
class Guest:
    """A second robot at a server: what it may read, and where it may do anything, below the server's base.

    `account` is what the server's log calls it.
    """

    robot: str
    account: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]


class StorageServer(RobotServer):
    """An XRootD server for one robot and its guests; everybody else is denied. What is common to disk and tape."""

    #: The exported directory, the first part of every path; and the options of the export.
    export = ""
    export_options = ""

    def __init__(
        self,
        directory: Path,
        ca: CertificateAuthority,
        *,
        robot: str,
        guests: Sequence[Guest] = (),
        third_party_copy: bool = True,
    ) -> None:
        """Lay out the directory, as `RobotServer` does.

        `third_party_copy` is whether it copies with other servers, and gives macaroons for that.
        """
        folders = ["adm", f"disk/{self.export}", "disk/.well-known"]
        super().__init__(directory, ca, robot=robot, user="xrootd", folders=folders)
        self._third_party_copy = third_party_copy
        names = {self.robot_name: "robot", **{slash_name(one.robot): one.account for one in guests}}
        self.robot_names = tuple(names)
        (self.directory / "etc/grid-mapfile").write_text("".join(f'"{dn}" {user}\n' for dn, user in names.items()))
        (self.directory / "etc/authdb").write_text(self._authdb(guests))
        macaroon_key = self.directory / "etc/macaroon.key"
        macaroon_key.touch(0o600)
        macaroon_key.write_bytes(base64.encodebytes(secrets.token_bytes(64)))
        # Without -s, xrootd leaves a file with its environment in /tmp.
        argv = ["xrootd", "-c", f"{HERE}/etc/server.cfg", "-s", f"{HERE}/adm/xrootd.run"]
        # The certificates are for the xrdcp that it starts to copy from another server.
        environment = {"LD_PRELOAD": f"{HERE}/bin/libfulldisk.so", "X509_CERT_DIR": f"{HERE}/etc/certificates"}
        self._xrootd = self.process("xrootd", argv, package="xrootd-server", environment=environment)

    def _authdb(self, guests: Sequence[Guest]) -> str:
        """Who may do what, as XRootD reads it: the first path of a user that fits decides."""
        lines = [f"u robot /{self.export} a"]
        for guest in guests:
            rights = [f"/{self.export}/{path} a" for path in guest.writes]
            rights += [f"/{self.export}/{path} rl" for path in guest.reads]
            lines.append(" ".join([f"u {guest.account}", *rights]))
        return "\n".join([*lines, "u * /.well-known rl", ""])

    @property
    def root_url(self) -> str:
        """The base for root:// clients, without a trailing slash."""
        return f"root://localhost:{self.port('ROOT_PORT')}//{self.export}"

    @property
    def roots_url(self) -> str:
        """The base for roots:// clients, who speak TLS on the port of root://, without a trailing slash."""
        return self.root_url.replace("root", "roots", 1)

    @property
    def davs_url(self) -> str:
        """The base for WebDAV clients, without a trailing slash."""
        return f"davs://localhost:{self.port('DAVS_PORT')}/{self.export}"

    @property
    def disk_directory(self) -> Path:
        """Where the files below the base are on disk: `root_url + "/a"` is `disk_directory / "a"`."""
        return self.directory / "disk" / self.export

    def stop(self) -> None:
        """End the server: connections break, new ones are refused, the files stay."""
        self._xrootd.stop()

    def set_losing_writes(self, *, losing: bool) -> None:
        """Let every write beyond a stored file's first megabyte be lost from now on, without a word; or no longer."""
        flag = self.directory / "control/DISK_LOSES_WRITES"
        if losing:
            flag.touch()
        else:
            flag.unlink(missing_ok=True)

    def port_names(self) -> tuple[str, ...]:
        """One for each protocol."""
        return ("ROOT_PORT", "DAVS_PORT")

    def configure(self) -> None:
        """Write the configuration, with the ports."""
        _check_host_name()
        super().configure()
        write_config("xrootd.cfg", self.directory / "etc/server.cfg", self.values())
        if self._third_party_copy:
            self.append_config("third_party_copy.cfg")

    def append_config(self, template: str) -> None:
        """Add the template of that name to the server's configuration."""
        config, part = self.directory / "etc/server.cfg", self.directory / "etc" / template
        write_config(template, part, self.values())
        with config.open("a") as whole:
            whole.write(part.read_text())
        part.unlink()

    def values(self) -> dict[str, object]:
        """What stands for the names in the configuration's templates."""
        return {
            "EXPORT": self.export,
            "EXPORT_OPTIONS": self.export_options,
            "DELEGATION": "request" if self._third_party_copy else "ignore",
            **{name: self.port(name) for name in self.port_names()},
        }

    def start_processes(self) -> None:
        """Start the programs of this server, and wait until they are ready."""
        plugins = ("fulldisk", "macaroonpaths") if self._third_party_copy else ("fulldisk",)
        together(*(partial(compile_plugin, plugin, self.directory / "bin") for plugin in plugins))
        self._xrootd.start(initialised("xrootd"))


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
