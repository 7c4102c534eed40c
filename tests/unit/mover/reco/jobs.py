"""Jobs that the wrapper runs, each in a directory as a batch system would make it."""

import hashlib
import json
import os
import shutil
import subprocess
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mover.model import BundleDigest, MemberDigest
from mover.reco.jobdescription import (
    DESCRIPTION_NAME,
    HEARTBEAT_NAME,
    LOG_NAME,
    REPORT_NAME,
    WRAPPER,
    WRAPPER_NAME,
    JobDescription,
    JobReport,
    StagedBundle,
    read_report,
)
from tests.unit.mover.reco.outputs import tar

SECONDS = 120.0


def raw_bundle(run: int, files: Iterable[Path]) -> tuple[bytes, BundleDigest, str]:
    """A tar of a run's parts with its md5 listing; what is known of it, and the listing's name."""
    contents = [(file.name, file.read_bytes()) for file in files]
    listing = "".join(f"{hashlib.md5(data).hexdigest()}  {name}\n" for name, data in contents)  # noqa: S324
    stored = tar(*contents, (f"{run:05d}.md5", listing.encode()))
    members = [
        MemberDigest(name, len(data), (("sha256", hashlib.sha256(data).hexdigest()),)) for name, data in contents
    ]
    return stored, BundleDigest(len(stored), f"{zlib.adler32(stored):08x}", tuple(members)), f"{run:05d}.md5"


@dataclass(frozen=True, slots=True)
class JobDirectory:
    """Where one job runs."""

    path: Path
    job: JobDescription

    @classmethod
    def make(cls, path: Path, bundle: tuple[bytes, BundleDigest, str] | None, **more: Any) -> "JobDirectory":
        """Everything that the job needs, but for what `more` says otherwise."""
        path.mkdir()
        fields: dict[str, Any] = {
            "name": "run-4742-reco-1",
            "run": 4742,
            "iteration": 1,
            "release": "0.1.0",
            "setup": "/dev/null",
            "command": ("true",),
            "output": "04742_offline.tar",
            "wall_seconds": 300,
            "heartbeat_seconds": 0.2,
            "grace_seconds": 1,
            "bundle": None,
        } | more
        if bundle is not None:
            stored, digest, listing = bundle
            name = f"{fields['run']:05d}.tar"
            (path / name).write_bytes(stored)
            fields["bundle"] = StagedBundle.of(name, digest, listing)
        job = JobDescription.model_validate(fields)
        (path / DESCRIPTION_NAME).write_bytes(job.render())
        shutil.copy(WRAPPER, path / WRAPPER_NAME)
        (path / WRAPPER_NAME).chmod(0o755)
        return cls(path, job)

    def start(self) -> "subprocess.Popen[bytes]":
        """Begin to run it, with an environment that has secrets in it."""
        environment = {**os.environ, "X509_USER_PROXY": "/secret/proxy", "SLURM_JOB_ID": "1"}
        with (self.path / "batch.log").open("ab") as log:
            return subprocess.Popen(
                [f"./{WRAPPER_NAME}", DESCRIPTION_NAME], cwd=self.path, env=environment, stdout=log, stderr=log
            )

    def run(self) -> tuple[int, JobReport]:
        """Run it to its end; its exit code and report."""
        code = self.start().wait(SECONDS)
        report = self.report()
        assert report.exit_code == code
        return code, report

    def report(self) -> JobReport:
        """What it left."""
        return read_report((self.path / REPORT_NAME).read_bytes(), name=self.job.name, output=self.job.output)

    def log(self) -> str:
        """What the command said."""
        return (self.path / LOG_NAME).read_text("utf-8", "replace")

    def heartbeat(self) -> dict[str, Any]:
        """The last one; empty if there is none yet."""
        try:
            found: dict[str, Any] = json.loads((self.path / HEARTBEAT_NAME).read_bytes())
        except FileNotFoundError:
            return {}
        return found
