"""What a control room needs to have its runs reconstructed: releases, a batch system, and the reco agent's settings."""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from mover.sandbox.process import ServerProcess, fill_config
from mover.sandbox.service import RECO
from mover.sandbox.software import ReferenceSoftware

LOCAL_BATCH = 'kind = "local"\nslots = 2'


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """Reconstruction by the reference application, and by the batch system that `batch` says (`[reco.batch]`, TOML).

    `settings` are more lines for `[reco]`.
    """

    software: ReferenceSoftware
    batch: str = LOCAL_BATCH
    kinds: tuple[str, ...] = ("reco", "mc")
    wall_seconds: int = 600
    settings: str = ""

    @property
    def stores_itself(self) -> bool:
        """Whether the batch system stores outputs: ARC, which cannot upload to XRootD by WebDAV, but by root://."""
        return 'kind = "arc"' in self.batch

    def config(self, *, scratch: Path, socket: Path, ca_directory: Path) -> str:
        """The mover's configuration of it, for the reco robot at the agent of that `socket`."""
        values = {
            "BATCH": self.batch,
            "CA_DIRECTORY": ca_directory,
            "KINDS": json.dumps(self.kinds),
            "PLATFORM": self.software.platform,
            "PROFILE": RECO.profile,
            "SCRATCH": scratch,
            "SETTINGS": self.settings,
            "SOCKET": socket,
            "SOFTWARE": self.software.path,
            "WALL_SECONDS": self.wall_seconds,
        }
        return fill_config("reco.toml", values)


def reco_agent(config: Path) -> ServerProcess:
    """`mover reco agent` as the service that it is, with what it and its local jobs start; in the folder of `config`.

    It is ready when its log says that it has started.
    """
    (config.parent / "log").mkdir(exist_ok=True)
    argv = [sys.executable, "-P", "-m", "mover", "--config", str(config), "reco", "agent"]
    return ServerProcess(
        "reco-agent",
        RECO.command(argv),
        directory=config.parent,
        package="util-linux",
        environment=os.environ,
        grace_seconds=20.0,
    )


def has_started(log: str) -> bool:
    """Whether the reco agent's log says that it works."""
    return "reco agent started" in log
