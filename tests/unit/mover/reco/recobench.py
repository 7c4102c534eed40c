"""A run that is safe in memory, and a reco agent whose turns the test takes: its jobs become what the test says."""

import gzip
import hashlib
import io
import json
import tarfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

from mover.batch.memory import MemoryBatch, exited
from mover.catalogue.database import Database
from mover.catalogue.jobs import JobRecord, jobs_of
from mover.catalogue.replicas import replicas_of
from mover.config import Config
from mover.model import BundleKind
from mover.ports import JobSpec, JobStatus, StorageEndpoint
from mover.reco.agent import RecoAgent
from mover.reco.releases import Releases
from mover.states import JobState, ReplicaState
from tests.unit.mover.bench import Bench
from tests.unit.mover.running import SettableClock

RELEASE = "0.4.1"
JOB = {
    "command": ["execute_against_data.py", "--input-file", "{bundle}"],
    "wall_seconds": 60,
    "output": {
        "members": ["{run:05d}_recon.dat", "*.log"],
        "log": [{"member": "reco.log", "must_match": ["done"], "must_not_match": ["Traceback"]}],
    },
}
POLICY = {"tapes": 1, "tape_sites": 1, "disks": 1}


def lfns(folder: str) -> dict[str, str]:
    return {
        "lfn": f"{folder}/{{release}}/{{run:05d}}_offline.tar",
        "lfn_again": f"{folder}/{{release}}/{{run:05d}}_offline_{{iteration}}.tar",
    }


def output_tar(run: int, members: Mapping[str, bytes] | None = None) -> bytes:
    """A good output, gzip in spite of its name; or one with these members."""
    good = {f"{run:05d}_recon.dat": b"x" * 1000, "reco.log": b"all is done\n"}
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for name, content in (good if members is None else members).items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    return gzip.compress(raw.getvalue(), mtime=0)


def write_output(
    job: JobSpec, content: bytes | None, *, exit_code: int = 0, reason: str = "", saved: bool = True
) -> JobStatus:
    """Leave in the job's directory what the wrapper does, and say that it has ended; or only say so."""
    name = job.outputs[0].name
    report: dict[str, object] = {
        "format": 1,
        "name": job.name,
        "exit_code": exit_code if exit_code in {0, 1, 2} else 3,
        "outcome": "command" if exit_code else "done",
        "reason": reason,
        "output": None,
        "begun": 1.0,
        "ended": 2.0,
        "node": "here",
        "release": RELEASE,
        "revision": None,
    }
    if content is not None:
        if saved:
            (job.directory / name).write_bytes(content)
        report["output"] = {
            "name": name,
            "size_bytes": len(content),
            "adler32": f"{zlib.adler32(content):08x}",
            "sha256": hashlib.sha256(content).hexdigest(),
        }
    (job.directory / "report.json").write_text(json.dumps(report))
    (job.directory / "batch.log").write_text("what the batch system kept\n")
    return exited(exit_code)


def good(job: JobSpec) -> JobStatus:
    """All is well."""
    return write_output(job, output_tar(int(job.name.split("-")[1])))


def toml(value: object) -> str:
    """The value as TOML has it within a line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(one)}" for key, one in value.items() if one is not None) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(toml(one) for one in value) + "]"
    return json.dumps(value)


class RecoBench(Bench):
    """The bench, with a run that is safe, and an agent at work on memory endpoints and a batch system in memory."""

    def __init__(self, base: Path, *, stages: bool = False) -> None:
        super().__init__(base)
        self.make_safe()
        software = base / "cvmfs" / "slc6" / RELEASE
        software.mkdir(parents=True)
        (software / "env.sh").write_text("true\n")
        (software.parent / "approved").write_text(f"{RELEASE}\n")
        self.software = software
        raw = self.config.model_dump(mode="json")
        raw |= {
            "reco": {
                "endpoint": "disk",
                "scratch": str(base / "scratch"),
                "batch": {"kind": "local"},
                "software": {
                    "path": f"{base}/cvmfs/{{platform}}/{{release}}",
                    "platform": "slc6",
                    "approved_file": "approved",
                },
                "poll_seconds": 1,
                "vanished_after_seconds": 60,
                "silent_after_seconds": 600,
                "failures_before_quarantine": 3,
            },
            "job": {"reco": JOB | lfns("RECO"), "mc": JOB | lfns("Simulation")},
            "policy": {"raw": raw["policy"]["raw"], "reco": POLICY, "mc": POLICY},
        }
        self.config = Config.model_validate(raw)
        self.clock = SettableClock()
        self.what_becomes: Callable[[JobSpec], JobStatus | None] = good
        self.batch = MemoryBatch(script=self._becomes, stages=stages)
        self.changed_config: Config | None = None
        self.agent = self.start_agent()

    def _becomes(self, job: JobSpec) -> JobStatus | None:
        return self.what_becomes(job)

    def start_agent(self) -> RecoAgent:
        """Another agent, as after a restart."""
        assert self.config.reco is not None
        releases = Releases(self.config.reco.software)
        return RecoAgent(
            self.config, self.open_endpoints, self.batch, releases, self.clock, read_config=self.config_now
        )

    def config_now(self) -> Config:
        """What the configuration file says by now."""
        return self.changed_config or self.config

    def turn(self) -> None:
        """Let the agent look around once, and every worker and lane do what there is to do."""
        self.agent.look_around(self.catalogue)
        for worker in self.agent.workers:
            while worker.work_once(self.catalogue, self.endpoints):
                pass

    def turns(self, count: int = 4, *, seconds: float = 60.0) -> None:
        """Several of them, with time passing between."""
        for _ in range(count):
            self.turn()
            self.clock.advance(seconds)

    def jobs(self) -> dict[BundleKind, JobRecord]:
        """The run's latest jobs."""
        return {job.key.kind: job for job in jobs_of(self.catalogue, 4742)}

    def job_state(self, kind: BundleKind = BundleKind.RECO) -> JobState:
        """Of the latest job of that kind."""
        return self.jobs()[kind].state

    def where(self, lfn_part: str) -> dict[str, ReplicaState]:
        """The states of the replicas of the bundles whose LFN has that in it, by endpoint."""
        rows = self.catalogue.query("SELECT id FROM bundle WHERE instr(lfn, ?)", lfn_part)
        ids = {row["id"] for row in rows}
        return {one.endpoint: one.state for one in replicas_of(self.catalogue, 4742) if one.bundle_id in ids}

    def stored(self, endpoint: str, path: str) -> bytes | None:
        """What is stored there."""
        place: StorageEndpoint = self.endpoints[endpoint]
        return None if place.stat(path) is None else b"".join(place.read(path))

    def write_config(self, path: Path) -> Path:
        """The configuration as a file, for commands."""
        tables = self.config.model_dump(mode="json")
        path.write_text("".join(f"{key} = {toml(value)}\n" for key, value in tables.items() if value is not None))
        return path

    def database(self) -> Database:
        """The catalogue."""
        return self.catalogue
