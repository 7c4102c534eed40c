"""The batch systems that a sandbox can have: what they need of Debian, and how they are brought up."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

from mover.sandbox.arc import ComputeElement, check_jobs_can_run
from mover.sandbox.ca import CertificateAuthority
from mover.sandbox.reconstruction import LOCAL_BATCH
from mover.sandbox.service import RECO
from mover.sandbox.slurm import PARTITION, SlurmCluster


class BatchKind(StrEnum):
    """A batch system."""

    LOCAL = "local"
    SLURM = "slurm"
    ARC = "arc"

    @property
    def packages(self) -> tuple[str, ...]:
        """The Debian packages that it needs beyond what `make setup` installs."""
        return _PACKAGES[self]


_PACKAGES = {
    BatchKind.LOCAL: (),
    BatchKind.SLURM: ("munge", "slurm-client", "slurmctld", "slurmd"),
    BatchKind.ARC: ("nordugrid-arc-arex", "nordugrid-arc-plugins-xrootd"),
}


def check_jobs_of(kind: BatchKind, parent: Path) -> None:
    """Return if the batch system's jobs can run in a new folder of `parent`, and with this working copy.

    Raises:
        SandboxError: they run as another user, to whom one of them is closed.
    """
    if kind is BatchKind.ARC:
        check_jobs_can_run(parent)


@contextmanager
def batch_system(kind: BatchKind, directory: Path, ca: CertificateAuthority) -> Iterator[str]:
    """The batch system in the block, in `directory`, which must not exist; what `[reco.batch]` says of it (TOML).

    Raises:
        SandboxError: a package is not installed, or a server did not start.
    """
    if kind is BatchKind.LOCAL:
        yield LOCAL_BATCH
        return
    if kind is BatchKind.SLURM:
        cluster = SlurmCluster(directory)
        try:
            cluster.start()
            yield f'kind = "slurm"\npartition = "{PARTITION}"\nconfig = "{cluster.config}"'
        finally:
            cluster.close()
        return
    element = ComputeElement(directory, ca, robot=RECO.robot)
    try:
        element.start()
        yield f'kind = "arc"\nurl = "{element.url}"'
    finally:
        element.close()
