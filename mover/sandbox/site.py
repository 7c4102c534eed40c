"""A whole site: CA, two dongles, agent, two tape endpoints at different sites, and a disk endpoint."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePath
from types import TracebackType

from mover.sandbox.agent import Agent
from mover.sandbox.ca import CertificateAuthority
from mover.sandbox.daq import DaqWriter
from mover.sandbox.dongle import Dongle
from mover.sandbox.process import together
from mover.sandbox.reconstruction import Reconstruction
from mover.sandbox.service import MOVER, RECO
from mover.sandbox.tape import TapeServer
from mover.sandbox.xrootd import DiskServer, Guest

#: Where the reco robot writes, and what it reads, below a room's base.
_RECO_WRITES, _RECO_READS = ("RECO", "Simulation"), ("MICE",)
_RECO_IDENTITY = "reco"


class Site:
    """A context manager: everything runs inside the block, in `base` (which must be empty), on loopback only.

    Raises:
        SandboxError: a server is not installed or did not start.
    """

    def __init__(self, base: Path, *, sockets: Path | None = None, areas: Sequence[str] = ("",)) -> None:
        """Lay out nothing yet. `sockets` is where the agent's socket goes, if `base` has too long a path for one.

        The mover's robot may do anything at the endpoints. The reco robot may read raw data and write only its outputs,
        in control rooms whose bundles go below one of `areas`.
        """
        self.base = base
        self._sockets = sockets or base
        reads, writes = (
            tuple(str(PurePath(area, path)) for area in areas for path in paths)
            for paths in (_RECO_READS, _RECO_WRITES)
        )
        self._reco = Guest(RECO.robot, "reco", reads, writes)
        self._stack = ExitStack()

    def __enter__(self) -> "Site":
        with ExitStack() as stack:
            # Servers run as another user than root: they must reach their own directories below.
            self.base.chmod(0o711)
            self.ca = CertificateAuthority(self.base / "ca")
            self.tape_ral = self._tape("tape-ral", "RAL")
            stack.callback(self.tape_ral.close)
            self.tape_imperial = self._tape("tape-imperial", "IC")
            stack.callback(self.tape_imperial.close)
            self.disk_brunel = DiskServer(self.base / "disk-brunel", self.ca, robot=MOVER.robot, guests=[self._reco])
            stack.callback(self.disk_brunel.close)
            servers = (self.tape_ral, self.tape_imperial, self.disk_brunel)
            together(*(server.start for server in servers), lambda: self._start_agent(stack))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _tape(self, directory: str, name: str) -> TapeServer:
        return TapeServer(self.base / directory, self.ca, robot=MOVER.robot, guests=[self._reco], site_name=name)

    def _start_agent(self, stack: ExitStack) -> None:
        """Make both dongles, and start one agent for them."""
        together(self._plug_mover_dongle, self._plug_reco_dongle)
        self.reco_dongle.plug_beside(self.dongle)
        self.agent = Agent(
            self.dongle,
            parent=self._sockets,
            allow=MOVER.allow,
            others={_RECO_IDENTITY: self.reco_dongle},
            profiles=f'[[profile]]\nname = "{RECO.profile}"\nidentity = "{_RECO_IDENTITY}"\n{RECO.allow}\n',
        )
        stack.callback(self.agent.stop)

    def _plug_mover_dongle(self) -> None:
        self.dongle = Dongle(self.base / "dongle", self.ca, MOVER.robot)

    def _plug_reco_dongle(self) -> None:
        self.reco_dongle = Dongle(self.base / "reco-dongle", self.ca, RECO.robot)

    def control_room(
        self, directory: Path, *, below: str = "", reconstruction: Reconstruction | None = None
    ) -> "ControlRoom":
        """A control-room box at this site, in `directory`; its bundles go below `below` at every endpoint.

        Without `reconstruction`, nothing is reconstructed.
        """
        directory.mkdir()
        room = ControlRoom(directory)
        room.run_directory.mkdir()
        by_root = reconstruction is not None and reconstruction.stores_itself
        endpoints = (
            ("ral-tape", "RAL", "tape", self.tape_ral.root_url),
            ("imperial-tape", "Imperial", "tape", self.tape_imperial.davs_url),
            ("brunel-disk", "Brunel", "disk", self.disk_brunel.root_url if by_root else self.disk_brunel.davs_url),
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
        if reconstruction is not None:
            text += reconstruction.config(
                scratch=room.scratch, socket=self.agent.socket, ca_directory=self.ca.directory
            )
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
    def scratch(self) -> Path:
        """The scratch area of the reco agent."""
        return self.directory / "reco"

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
