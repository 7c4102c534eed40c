"""A real GridFTP server on loopback: gsiftp:// for one robot, from the Grid Community Toolkit."""

import os
import pwd
from pathlib import Path

from mover.sandbox.ca import CertificateAuthority
from mover.sandbox.plugin import compile_plugin
from mover.sandbox.process import ServerProcess
from mover.sandbox.server import HERE, RobotServer

# As root it runs as this user. A server without privileges can only map robots to its own user.
_USER = "nobody"


class GridFtpServer(RobotServer):
    """A disk-only storage element with GridFTP, for one robot; everybody else is denied.

    It listens on 127.0.0.1 only, for data as well. As GridFTP servers do, it overwrites existing files and targets of
    a rename without a word.
    """

    def __init__(self, directory: Path, ca: CertificateAuthority, *, robot: str) -> None:
        """Lay out the directory, as `RobotServer` does."""
        super().__init__(directory, ca, robot=robot, user=_USER, folders=["disk"])
        account = self._user or pwd.getpwuid(os.geteuid()).pw_name
        (self.directory / "etc/grid-mapfile").write_text(f'"{self.robot_name}" {account}\n')
        self._gridftp = self._server_process()

    @property
    def gsiftp_url(self) -> str:
        """The base for GridFTP clients, without a trailing slash. Nothing else can be reached."""
        return f"gsiftp://localhost:{self.port('GSIFTP_PORT')}{HERE}/disk"

    @property
    def disk_directory(self) -> Path:
        """Where the files below the base are on disk: `gsiftp_url + "/a"` is `disk_directory / "a"`."""
        return self.directory / "disk"

    def stop(self) -> None:
        """End the server and its sessions: connections break, new ones are refused, the files stay."""
        self._gridftp.stop()

    def set_frozen(self, *, frozen: bool) -> None:
        """Let the server and its sessions hang, with their connections open; or go on."""
        self._gridftp.set_frozen(frozen=frozen)

    def port_names(self) -> tuple[str, ...]:
        """One, for the control connection."""
        return ("GSIFTP_PORT",)

    def configure(self) -> None:
        """The port is in the command line."""
        super().configure()
        self._gridftp = self._server_process()

    def start_processes(self) -> None:
        """Start the server."""
        compile_plugin("fulldisk_write", self.directory / "bin", package="libc6-dev")
        self._gridftp.start(lambda log: "Server started in daemon mode" in log)

    def _server_process(self) -> ServerProcess:
        options = {
            "-c": "/dev/null",  # instead of /etc/gridftp.conf
            "-p": str(self.port("GSIFTP_PORT")),
            "-control-interface": "127.0.0.1",
            "-data-interface": "127.0.0.1",
            "-home-dir": f"{HERE}/disk",
            "-restrict-paths": f"RW{HERE}/disk",
            "-log-level": "ERROR,WARN,INFO",
            "-log-module": "stdio:buffer=0",
        }
        # Without following symlinks it would resolve its paths, which closed directories above do not allow.
        flags = ["-daemon", "-no-chdir", "-allow-disabled-login", "-rp-follow-symlinks"]
        return self.process(
            "gridftp",
            ["globus-gridftp-server", *flags, *(word for option in options.items() for word in option)],
            package="globus-gridftp-server-progs",
            environment={
                "X509_CERT_DIR": f"{HERE}/etc/certificates",
                "X509_USER_CERT": f"{HERE}/etc/hostcert.pem",
                "X509_USER_KEY": f"{HERE}/etc/hostkey.pem",
                "GRIDMAP": f"{HERE}/etc/grid-mapfile",
                "LD_PRELOAD": f"{HERE}/bin/libfulldisk_write.so",
            },
        )
