"""A real GridFTP server on loopback: gsiftp:// for one robot, from the Grid Community Toolkit."""

import os
import pwd
import shutil
from pathlib import Path

from mover.errors import SandboxError
from mover.sandbox.ca import CertificateAuthority
from mover.sandbox.plugin import compile_plugin
from mover.sandbox.ports import PortLease
from mover.sandbox.process import ServerProcess, give_to, server_user

_ATTEMPTS = 3
# As root it runs as this user. A server without privileges can only map robots to its own user.
_USER = "nobody"
# The directories above may be closed to that user, and its working directory is open to it all the same.
_HERE = "/proc/self/cwd"


class GridFtpServer:
    """A disk-only storage element with GridFTP, for one robot; everybody else is denied.

    Everything lies in `directory`. The port stays the server's from construction to `close`, so that it comes back on
    the same one when it is started again. It listens on 127.0.0.1 only, for data as well. As GridFTP servers do, it
    overwrites existing files and targets of a rename without a word.
    """

    def __init__(self, directory: Path, ca: CertificateAuthority, *, robot: str) -> None:
        """Lay out the directory (which must not exist) for the robot of that common name (`ca.distinguished_name`).

        Raises:
            SandboxError: no port is free.
        """
        self.directory = directory.resolve()
        self.robot_name = f"/C=UK/O=Sandbox/CN={robot}"
        self._ca_directory = ca.directory
        self._user = server_user(_USER)
        self._port = PortLease()
        self._has_run = False
        for name in ("bin", "control", "disk", "etc", "log"):
            (self.directory / name).mkdir(parents=True)
        ca.issue_host(self.directory / "etc")
        account = self._user or pwd.getpwuid(os.geteuid()).pw_name
        (self.directory / "etc/grid-mapfile").write_text(f'"{self.robot_name}" {account}\n')
        self._process = self._server_process()

    @property
    def gsiftp_url(self) -> str:
        """The base for GridFTP clients, without a trailing slash. Nothing else can be reached."""
        return f"gsiftp://localhost:{self._port.number}{_HERE}/disk"

    @property
    def port(self) -> int:
        """The control connection's port."""
        return self._port.number

    @property
    def disk_directory(self) -> Path:
        """Where the files below the base are on disk: `gsiftp_url + "/a"` is `disk_directory / "a"`."""
        return self.directory / "disk"

    def start(self) -> None:
        """Start the server and wait until it is ready. After the first time, the URL stays the same.

        Raises:
            SandboxError: it is not installed, or did not start.
        """
        compile_plugin("fulldisk_gridftp", self.directory / "bin", package="libc6-dev")
        # As it is now: it may have a new CRL.
        shutil.copytree(self._ca_directory, self.directory / "etc/certificates", dirs_exist_ok=True)
        give_to(self._user, self.directory)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self._process.start(lambda log: "Server started in daemon mode" in log)
            except SandboxError:
                if self._has_run or not self._port.in_use or attempt == _ATTEMPTS:
                    raise
                self._port.close()
                self._port = PortLease()
                self._process = self._server_process()
            else:
                self._has_run = True
                return

    def stop(self) -> None:
        """End the server and its sessions: connections break, new ones are refused, the files stay."""
        self._process.stop()

    def close(self) -> None:
        """Stop for good, and let others have the port."""
        self.stop()
        self._port.close()

    def set_disk_full(self, *, full: bool) -> None:
        """Let every write to a stored file fail from now on, as on a full disk; or no longer."""
        flag = self.directory / "control/DISK_FULL"
        if full:
            flag.touch()
        else:
            flag.unlink(missing_ok=True)

    def _server_process(self) -> ServerProcess:
        options = {
            "-c": "/dev/null",  # instead of /etc/gridftp.conf
            "-p": str(self._port.number),
            "-control-interface": "127.0.0.1",
            "-data-interface": "127.0.0.1",
            "-home-dir": f"{_HERE}/disk",
            "-restrict-paths": f"RW{_HERE}/disk",
            "-log-level": "ERROR,WARN,INFO",
            "-log-module": "stdio:buffer=0",
        }
        # Without following symlinks it would resolve its paths, which closed directories above do not allow.
        flags = ["-daemon", "-no-chdir", "-allow-disabled-login", "-rp-follow-symlinks"]
        return ServerProcess(
            "gridftp",
            ["globus-gridftp-server", *flags, *(word for option in options.items() for word in option)],
            directory=self.directory,
            package="globus-gridftp-server-progs",
            environment={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "LANG": "C.UTF-8",
                "HOME": _HERE,
                "TMPDIR": f"{_HERE}/control",
                "X509_CERT_DIR": f"{_HERE}/etc/certificates",
                "X509_USER_CERT": f"{_HERE}/etc/hostcert.pem",
                "X509_USER_KEY": f"{_HERE}/etc/hostkey.pem",
                "GRIDMAP": f"{_HERE}/etc/grid-mapfile",
                "LD_PRELOAD": f"{_HERE}/bin/libfulldisk_gridftp.so",
            },
            user=self._user,
            # Nothing is to be finished at the end.
            grace_seconds=0.5,
        )
