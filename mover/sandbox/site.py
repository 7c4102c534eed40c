"""A whole site: CA, dongle, agent, two tape endpoints at different sites, and a disk endpoint."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from mover.sandbox.agent import Agent
from mover.sandbox.ca import CertificateAuthority
from mover.sandbox.daq import DaqWriter
from mover.sandbox.dongle import Dongle
from mover.sandbox.process import together
from mover.sandbox.tape import TapeServer
from mover.sandbox.xrootd import DiskServer

ROBOT = "Robot - sandbox mover"


class Site:
    """A context manager: everything runs inside the block, in `base` (which must be empty), on loopback only.

    Raises:
        SandboxError: a server is not installed or did not start.
    """

    def __init__(self, base: Path, *, sockets: Path | None = None) -> None:
        """Lay out nothing yet. `sockets` is where the agent's socket goes, if `base` has too long a path for one."""
        self.base = base
        self._sockets = sockets or base
        self._stack = ExitStack()

    def __enter__(self) -> "Site":
        with ExitStack() as stack:
            # Servers run as another user than root: they must reach their own directories below.
            self.base.chmod(0o711)
            self.ca = CertificateAuthority(self.base / "ca")
            self.tape_ral = TapeServer(self.base / "tape-ral", self.ca, robot=ROBOT, site_name="RAL")
            stack.callback(self.tape_ral.close)
            self.tape_imperial = TapeServer(self.base / "tape-imperial", self.ca, robot=ROBOT, site_name="IC")
            stack.callback(self.tape_imperial.close)
            self.disk_brunel = DiskServer(self.base / "disk-brunel", self.ca, robot=ROBOT)
            stack.callback(self.disk_brunel.close)
            together(
                self.tape_ral.start, self.tape_imperial.start, self.disk_brunel.start, lambda: self._plug_dongle(stack)
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _plug_dongle(self, stack: ExitStack) -> None:
        self.dongle = Dongle(self.base / "dongle", self.ca, ROBOT)
        self.agent = Agent(self.dongle, parent=self._sockets)
        stack.callback(self.agent.stop)

    def control_room(self, directory: Path, *, below: str = "") -> "ControlRoom":
        """A control-room box at this site, in `directory`; its bundles go below `below` at every endpoint."""
        directory.mkdir()
        room = ControlRoom(directory)
        room.run_directory.mkdir()
        endpoints = (
            ("ral-tape", "RAL", "tape", self.tape_ral.root_url),
            ("imperial-tape", "Imperial", "tape", self.tape_imperial.davs_url),
            ("brunel-disk", "Brunel", "disk", self.disk_brunel.davs_url),
        )
        text = _CONFIG.format(
            catalogue=room.catalogue_path,
            run_directory=room.run_directory,
            socket=self.agent.socket,
            profile=self.agent.profile,
            ca_directory=self.ca.directory,
        )
        for name, place, kind, url in endpoints:
            text += _ENDPOINT.format(name=name, site=place, kind=kind, url=f"{url}/{below}" if below else url)
        room.config_path.write_text(text, encoding="utf-8")
        return room


@dataclass(frozen=True, slots=True)
class ControlRoom:
    """The mover's files on one box: configuration, catalogue, and the directory that the DAQ writes to."""

    directory: Path

    @property
    def config_path(self) -> Path:
        """For `mover --config`."""
        return self.directory / "mover.toml"

    @property
    def catalogue_path(self) -> Path:
        """The catalogue, once the mover has run."""
        return self.directory / "catalogue.sqlite"

    @property
    def run_directory(self) -> Path:
        """Where runs are written."""
        return self.directory / "daq"

    @property
    def daq(self) -> DaqWriter:
        """Writes runs there."""
        return DaqWriter(self.run_directory)


_CONFIG = """\
experiment = "MICE"
catalogue = "{catalogue}"

[runs]
directory = "{run_directory}"
poll_seconds = 0.2

[bundle]
lfn = "MICE/{{step}}/{{century:05d}}/{{run:05d}}.tar"

[[bundle.step]]
name = "Step1"
first_run = 0

[[bundle.step]]
name = "Step4"
first_run = 5889

[credential]
agent = "{socket}"
profile = "{profile}"
ca_directory = "{ca_directory}"

[engine]
first_retry_seconds = 0.5
longest_retry_seconds = 5
first_probe_seconds = 1
longest_probe_seconds = 5
"""

_ENDPOINT = """
[[endpoint]]
name = "{name}"
site = "{site}"
kind = "{kind}"
url = "{url}"
archive_poll_seconds = 0.5
"""
