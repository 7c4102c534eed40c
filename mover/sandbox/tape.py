"""A real tape storage element on loopback: XRootD, its File Residency Manager, and the WLCG Tape REST API.

A directory is the tape. Files migrate to it by themselves seconds after they are closed, and what root:// and davs://
clients are told about them is the truth of that moment.
"""

import json
import os
from collections.abc import Sequence
from enum import StrEnum
from importlib import resources
from pathlib import Path

from mover.errors import SandboxError
from mover.sandbox.ca import CertificateAuthority
from mover.sandbox.plugin import compile_plugin
from mover.sandbox.process import ServerProcess, give_to, together
from mover.sandbox.xrootd import Guest, StorageServer, initialised

_PROGRAMS = ("tape_prepare.py", "tape_read.sh", "tape_remote.py", "tape_rest.py", "tape_write.sh")


class Drive(StrEnum):
    """What the tape drive does with the files that it is given."""

    READY = "READY"
    BUSY = "BUSY"
    """Lets them wait, for ten minutes at most."""
    BROKEN = "BROKEN"
    """Fails them; FRM tries again every few seconds."""


class TapeServer(StorageServer):
    """A tape storage element, with controls for what can happen to a tape."""

    export = "tape"
    # nodread: XRootD 5.5.3 answers garbage (memory that it has freed) when it reads a directory from tape, so evicted
    # files are not listed. check: a name that is on tape only is taken, too.
    export_options = " stage migratable nodread check"

    def __init__(
        self,
        directory: Path,
        ca: CertificateAuthority,
        *,
        robot: str,
        guests: Sequence[Guest] = (),
        site_name: str = "SANDBOX",
    ) -> None:
        """Lay out the directory, as `StorageServer` does; `site_name` is what the Tape REST API calls the site."""
        super().__init__(directory, ca, robot=robot, guests=guests)
        self._site_name = site_name
        for name in ("adm/failed", "adm/requests", "bin/mover/sandbox/files", f"mss/{self.export}", "lost"):
            (self.directory / name).mkdir(parents=True)
        for name in _PROGRAMS:
            self._install(name, self.directory / "bin" / name)
        self._install("tape_state.py", self.directory / "bin/mover/sandbox/files/tape_state.py")
        self._frm = self.process(
            "frm_xfrd", ["frm_xfrd", "-c", "/proc/self/cwd/etc/server.cfg"], package="xrootd-server"
        )
        self._rest = self._rest_process()

    @property
    def tape_directory(self) -> Path:
        """Where the files below the base are on tape: `root_url + "/a"` is `tape_directory / "a"`."""
        return self.directory / "mss" / self.export

    def set_drive(self, state: Drive) -> None:
        """Let the drive be so from now on; a copy that waits for a busy drive goes on when it is ready again."""
        for flag in (Drive.BUSY, Drive.BROKEN):
            path = self.directory / "control" / f"DRIVE_{flag}"
            if flag == state:
                path.touch()
            else:
                path.unlink(missing_ok=True)

    def evict(self, path: str) -> None:
        """Drop the file from the disk buffer, as a site does when it needs the space.

        Raises:
            SandboxError: the file is not on both, so dropping it would not be an eviction.
        """
        buffered = self.disk_directory / path
        if not (buffered.is_file() and (self.tape_directory / path).is_file()):
            raise SandboxError(f"cannot evict {path}: it is not on disk and tape", hint="wait until it is archived")
        buffered.unlink()

    def lose(self, path: str) -> None:
        """Let the file's tape be unreadable from now on. What is on disk only then stays so; what is not, is lost.

        Raises:
            SandboxError: the file is not on tape.
        """
        copy, left = self.tape_directory / path, self.directory / "lost" / self.export / path
        if not copy.is_file():
            raise SandboxError(f"cannot lose {path}: it is not on tape", hint="wait until it is archived")
        status = copy.stat()
        left.parent.mkdir(parents=True, exist_ok=True)
        left.touch()
        os.truncate(left, status.st_size)
        os.utime(left, ns=(status.st_atime_ns, status.st_mtime_ns))
        give_to(self._user, self.directory / "lost")
        copy.unlink()

    def stop(self) -> None:
        """End the site's three servers; what is on disk and tape stays."""
        together(super().stop, self._frm.stop, self._rest.stop)

    def port_names(self) -> tuple[str, ...]:
        """One more port than without tape, for the Tape REST API."""
        return (*super().port_names(), "REST_PORT")

    def configure(self) -> None:
        """Write what depends on the ports: FRM's part of the configuration, and the way to the Tape REST API."""
        super().configure()
        self.append_config("tape.cfg")
        endpoint = {"uri": f"https://localhost:{self.port('REST_PORT')}/api/v1", "version": "v1", "metadata": {}}
        discovery = {
            "sitename": self._site_name,
            "description": "tape of the mover's sandbox",
            "endpoints": [endpoint],
        }
        (self.directory / "disk/.well-known/wlcg-tape-rest-api").write_text(json.dumps(discovery))
        self._rest = self._rest_process()

    def start_processes(self) -> None:
        """Start XRootD, FRM and the Tape REST API together."""
        compile_plugin("tapestat", self.directory / "bin")
        together(
            super().start_processes,
            lambda: self._frm.start(initialised("frm_xfrd")),
            lambda: self._rest.start(lambda log: "is ready" in log),
        )

    def _rest_process(self) -> ServerProcess:
        program = ["/usr/bin/python3", "-ESs", "/proc/self/cwd/bin/tape_rest.py"]
        arguments = [str(self.port("REST_PORT")), *self.robot_names]
        return self.process("tape_rest", [*program, *arguments], package="python3-minimal")

    def _install(self, name: str, target: Path) -> None:
        target.write_bytes(resources.files(__package__).joinpath("files", name).read_bytes())
        target.chmod(0o755)
