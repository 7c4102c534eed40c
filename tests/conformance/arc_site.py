"""A compute element under test."""

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from mover.batch.arc import ArcBatch
from mover.ports import DelegatingSource
from mover.sandbox.arc import ComputeElement
from mover.sandbox.ca import CertificateAuthority
from tests.conformance.credentials import RobotCredentials
from tests.conformance.subjects import eventually


class ArcSite:
    """The CE of one test process, and its robot."""

    def __init__(self, directory: Path, ca: CertificateAuthority, *, slots: int) -> None:
        if not Path("/usr/share/arc/arc-arex-start").exists():
            pytest.skip("apt install nordugrid-arc-arex")
        self.ca = ca
        self.robot = RobotCredentials(ca, "Robot")
        self.ce = ComputeElement(directory / "ce", ca, robot="Robot", slots=slots)
        self.ce.start()

    def open(
        self,
        *,
        credentials: DelegatingSource | None = None,
        ca_directory: Path | None = None,
        url: str | None = None,
        queue: str | None = None,
    ) -> ArcBatch:
        """An adapter for the CE; the robot's unless something else is given."""
        return ArcBatch(
            self.ce.url if url is None else url,
            credentials or self.robot,
            ca_directory or self.ca.directory,
            queue=queue,
            staging_seconds=600,
            answer_seconds=30,
        )

    def processes(self, job_id: str) -> list[int]:
        """What runs in a job's directory: the command, and what looks after it."""
        found = []
        for link in Path("/proc").glob("[0-9]*/cwd"):
            with contextlib.suppress(OSError):
                if link.readlink() == self.ce.disk_directory / job_id:
                    found.append(int(link.parent.name))
        return found

    def end_jobs(self) -> None:
        """Cancel all jobs, and wait for their end."""
        batch = self.open()
        processing = self.ce.control_directory
        ids = [path.name.split(".")[1] for path in processing.glob("*/job.*.status") if path.parent.name != "finished"]
        for job_id in ids:
            batch.cancel(job_id)
        assert eventually(lambda: all(status.ended for status in batch.look(ids).values()), seconds=120)


@contextmanager
def arc_site(ca: CertificateAuthority, *, slots: int) -> Iterator[ArcSite]:
    """A site in a directory that others can reach, as the CE's user must."""
    with TemporaryDirectory(prefix="arc-") as directory:
        Path(directory).chmod(0o711)
        site = ArcSite(Path(directory), ca, slots=slots)
        try:
            yield site
        finally:
            site.ce.close()
