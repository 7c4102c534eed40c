"""Real batch systems that reconstruct runs in tests: each with five slots, and with its own words for what it saw."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from mover.sandbox.arc import ComputeElement
from mover.sandbox.service import RECO
from mover.sandbox.site import Site
from mover.sandbox.slurm import SlurmCluster
from tests.conftest import need_slurm
from tests.integration.mover.recobox import RecoBox
from tests.other_user import need_readable_checkout

_SLOTS = 5


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch system that runs: what `[reco.batch]` says of it, and how the worker of a run's job is lost there."""

    settings: str
    lose_worker: Callable[[RecoBox, int], None]
    killed_words: str = r"killed by SIGKILL"
    lost_words: str = r"vanished|NODE_FAIL"
    public: Path | None = None
    """Where its jobs, which are another user's, find the software."""
    sessions: Path | None = None
    """Where its jobs run, if not in the scratch area: in a folder of the batch system's own id of each."""

    @property
    def stages(self) -> bool:
        """Whether it fetches and stores files itself."""
        return self.sessions is not None


@contextmanager
def local_batch(_site: Site, _directory: Path) -> Iterator[Batch]:
    """Processes of the agent's own."""
    yield Batch(f'kind = "local"\nslots = {_SLOTS}', lambda box, run: box.kill(run, "supervisor"))


@contextmanager
def slurm_batch(_site: Site, directory: Path) -> Iterator[Batch]:
    """A cluster of one node."""
    need_slurm()
    cluster = SlurmCluster(directory / "cluster", cpus=_SLOTS)

    def lose_worker(_box: RecoBox, _run: int) -> None:
        cluster.lose_node()
        cluster.start_node()

    try:
        cluster.start()
        yield Batch(f'kind = "slurm"\npartition = "fast"\nconfig = "{cluster.config}"', lose_worker)
    finally:
        cluster.close()


@contextmanager
def arc_batch(site: Site, _directory: Path) -> Iterator[Batch]:
    """A compute element, which fetches and stores files itself."""
    if not Path("/usr/share/arc/arc-arex-start").exists():
        pytest.skip("apt install nordugrid-arc-arex nordugrid-arc-plugins-xrootd")
    need_readable_checkout()

    def lose_worker(box: RecoBox, run: int) -> None:
        # All that there was of the job at once, and what would have told of its end.
        for pid, _ in box.processes_of(box.jobs(run)[0]):
            os.kill(pid, signal.SIGKILL)

    with TemporaryDirectory(prefix="arc-") as folder:
        public = Path(folder)
        public.chmod(0o711)
        element = ComputeElement(public / "ce", site.ca, robot=RECO.robot, slots=_SLOTS)
        try:
            element.start()
            yield Batch(
                f'kind = "arc"\nurl = "{element.url}"',
                lose_worker,
                killed_words=r"killed by signal 9",
                lost_words=r"failed: LRMS error: \(-1\) Job died unexpectedly",
                public=public,
                sessions=element.disk_directory,
            )
        finally:
            element.close()
