"""A whole site: CA, dongle, agent, two tape endpoints at different sites, a disk endpoint, a DAQ, a configuration."""

from contextlib import ExitStack
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

    def __init__(self, base: Path) -> None:
        self.base = base
        self.config_path = base / "mover.toml"
        self.catalogue_path = base / "catalogue.sqlite"
        self.run_directory = base / "daq"
        self.daq = DaqWriter(self.run_directory)
        self._stack = ExitStack()

    def __enter__(self) -> "Site":
        with ExitStack() as stack:
            # Servers run as another user than root: they must reach their own directories below.
            self.base.chmod(0o711)
            self.run_directory.mkdir()
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
            self.config_path.write_text(self._config(), encoding="utf-8")
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _plug_dongle(self, stack: ExitStack) -> None:
        self.dongle = Dongle(self.base / "dongle", self.ca, ROBOT)
        self.agent = Agent(self.dongle)
        stack.callback(self.agent.stop)

    def _config(self) -> str:
        return f"""\
experiment = "MICE"
catalogue = "{self.catalogue_path}"

[runs]
directory = "{self.run_directory}"
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
agent = "{self.agent.socket}"
profile = "{self.agent.profile}"
ca_directory = "{self.ca.directory}"

[[endpoint]]
name = "ral-tape"
site = "RAL"
kind = "tape"
url = "{self.tape_ral.root_url}"
archive_poll_seconds = 0.5

[[endpoint]]
name = "imperial-tape"
site = "Imperial"
kind = "tape"
url = "{self.tape_imperial.davs_url}"
archive_poll_seconds = 0.5

[[endpoint]]
name = "brunel-disk"
site = "Brunel"
kind = "disk"
url = "{self.disk_brunel.davs_url}"

[engine]
first_retry_seconds = 0.5
longest_retry_seconds = 5
"""
