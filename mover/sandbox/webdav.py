"""A real WebDAV server on loopback that computes no checksums: Debian's Apache with mod_dav."""

import re
from pathlib import Path

from mover.sandbox.ca import CertificateAuthority
from mover.sandbox.plugin import compile_plugin
from mover.sandbox.process import write_config
from mover.sandbox.server import HERE, RobotServer


class WebDavServer(RobotServer):
    """A disk-only storage element with WebDAV over TLS, for one robot; everybody else is denied.

    It listens on 127.0.0.1 only. It knows nothing of checksums (no Digest header), and does what RFC 4918 says: it
    makes no parents (409), and a file that is being written is not there until it is complete.
    """

    def __init__(self, directory: Path, ca: CertificateAuthority, *, robot: str) -> None:
        """Lay out the directory, as `RobotServer` does."""
        super().__init__(directory, ca, robot=robot, user="www-data", folders=["disk/disk"])
        self._robot = robot
        preload = f"{HERE}/bin/libfulldisk_write.so:{HERE}/bin/libproxycerts.so"
        # In the foreground it stays in its working directory.
        argv = ["apache2", "-DFOREGROUND", "-f", f"{HERE}/etc/webdav.conf"]
        self._apache = self.process("apache", argv, package="apache2-bin", environment={"LD_PRELOAD": preload})

    @property
    def davs_url(self) -> str:
        """The base for WebDAV clients, without a trailing slash."""
        return f"davs://localhost:{self.port('DAVS_PORT')}/disk"

    @property
    def disk_directory(self) -> Path:
        """Where the files below the base are on disk: `davs_url + "/a"` is `disk_directory / "a"`."""
        return self.directory / "disk/disk"

    def stop(self) -> None:
        """End the server: connections break, new ones are refused, the files stay."""
        self._apache.stop()

    def port_names(self) -> tuple[str, ...]:
        """One."""
        return ("DAVS_PORT",)

    def configure(self) -> None:
        """Write the configuration, with the port."""
        super().configure()
        values = {"DAVS_PORT": self.port("DAVS_PORT"), "ROBOT": re.escape(self._robot)}
        self._apache.log.touch()  # so that it belongs to the server's user, which opens it too
        write_config("webdav.conf", self.directory / "etc/webdav.conf", values)

    def start_processes(self) -> None:
        """Start the server."""
        compile_plugin("fulldisk_write", self.directory / "bin", package="libc6-dev")
        compile_plugin("proxycerts", self.directory / "bin", package="libssl-dev")
        self._apache.start(lambda log: "resuming normal operations" in log)
