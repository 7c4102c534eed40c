"""The wrapper and the reference application together, on real data and the sandbox's: what they leave is proven."""

import gzip
import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uproot

from mover.reco.contract import OutputContract
from mover.reco.events import count_physics_events
from mover.reco.jobdescription import JobReport, command_line
from mover.reco.proof import Expectation, Proof, check_output
from mover.reco.releases import Releases
from mover.reco.software import SoftwareConfig
from mover.sandbox.daq import DaqWriter
from mover.sandbox.software import ReferenceSoftware
from tests.real_data import real_file
from tests.unit.mover.reco.jobs import JobDirectory, raw_bundle

RELEASE = "0.1.0"
RECO = ("execute_against_data.py", "--input-file", "{bundle}", "--batch-iteration", "{iteration}")
MC = ("execute_against_data.py", "--mc", "--run", "{run}", "--batch-iteration", "{iteration}")
CONTRACT = OutputContract.model_validate(
    {
        "members": ["{run:05d}_recon.root", "{run:05d}_sim.root", "download.log", "sim.log", "reco.log", "batch.log"],
        "minimum_bytes": 1000,
        "tree": [
            {"member": "{run:05d}_recon.root", "tree": "Spill", "entries_from": "physics-events"},
            {"member": "{run:05d}_sim.root", "tree": "Spill"},
        ],
        "log": [
            {"member": "reco.log", "must_match": ["spills reconstructed"], "must_not_match": ["Traceback|ERROR"]},
        ],
    }
)
MC_CONTRACT = OutputContract.model_validate(
    {"members": ["{run:05d}_sim.root", "sim.log"], "tree": [{"member": "*_sim.root", "tree": "Spill"}]}
)


class Worker:
    """Runs jobs with the reference application, and checks what they leave."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.software = ReferenceSoftware(path / "cvmfs")
        self.software.install(RELEASE)
        self.software.approve(RELEASE)
        self.jobs = 0

    def run(self, run: int, bundle: Any, *, mc: bool = False, **more: Any) -> tuple[JobDirectory, JobReport]:
        """One job of the run, with the latest approved release."""
        config = SoftwareConfig(path=self.software.path, platform=self.software.platform, approved_file="approved")
        release = Releases(config).latest()
        self.jobs += 1
        output = f"{run:05d}_{'mc' if mc else 'offline'}.tar"
        command = command_line(
            MC if mc else RECO, run=run, iteration=1, release=release.name, output=output, bundle=f"{run:05d}.tar"
        )
        job = JobDirectory.make(
            self.path / f"job-{self.jobs}",
            None if mc else bundle,
            run=run,
            release=release.name,
            setup=release.setup,
            command=command,
            output=output,
            **more,
        )
        return job, job.run()[1]

    def prove(self, job: JobDirectory, report: JobReport, contract: OutputContract, events: int | None) -> Proof:
        """As when the output has been stored."""
        assert report.output
        stored = (job.path / job.job.output).read_bytes()
        expected = Expectation(job.job.run, 1, events, report.output.size_bytes, report.output.adler32)
        return check_output([stored], contract, expected, job.path)


@pytest.fixture
def worker(tmp_path: Path) -> Worker:
    return Worker(tmp_path)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run 4742, of the sandbox's DAQ."""
    directory = tmp_path_factory.mktemp("daq")
    return raw_bundle(4742, DaqWriter(directory).write_run(4742, parts=2, part_bytes=50_000))


def _physics_events(bundle: Any, run: int) -> int:
    found = count_physics_events([bundle[0]], run, lambda name: name.startswith(f"{run:05d}.0"))
    assert not found.findings
    return found.physics


def test_real_raw_data_is_reconstructed_and_proven(worker: Worker) -> None:
    bundle = raw_bundle(6008, [real_file("06008.000")])
    job, report = worker.run(6008, bundle)
    assert (report.exit_code, report.release) == (0, RELEASE)
    assert (job.path / "06008_offline.tar").read_bytes().startswith(b"\x1f\x8b")
    proof = worker.prove(job, report, CONTRACT, _physics_events(bundle, 6008))
    assert proof.findings == ()
    assert {one.member: one.entries for one in proof.trees}["06008_recon.root"] == 6


def test_the_entries_are_the_physics_events(worker: Worker) -> None:
    bundle = raw_bundle(6008, [real_file("06008.000")])
    job, _ = worker.run(6008, bundle)
    with tarfile.open(job.path / "06008_offline.tar", "r:gz") as archive:
        content = archive.extractfile("06008_recon.root")
        assert content
        with uproot.open(io.BytesIO(content.read())) as file:
            tree = file["Spill"].arrays(library="np")
    assert set(tree["run_number"]) == {6008}
    assert len(set(tree["payload_adler32"])) == 6
    assert all(size > 10_000 for size in tree["size_bytes"])
    assert all(stamp > 1_400_000_000 for stamp in tree["timestamp"])


def test_runs_of_the_sandbox_are_reconstructed_and_simulated(worker: Worker, small: Any) -> None:
    job, report = worker.run(4742, small)
    events = _physics_events(small, 4742)
    assert worker.prove(job, report, CONTRACT, events).findings == ()
    assert f"at least {events + 1}" in worker.prove(job, report, CONTRACT, events + 1).findings[0]
    job, report = worker.run(4742, small, mc=True)
    assert worker.prove(job, report, MC_CONTRACT, None).findings == ()


@pytest.mark.parametrize(
    ("fault", "code", "outcome"),
    [
        ("exit-1", 1, "command"),
        ("exit-2", 2, "command"),
        ("exit-3", 3, "command"),
        ("signal", 3, "command"),
        ("hang", 1, "timeout"),
        ("no-output", 3, "no-output"),
    ],
)
def test_jobs_that_fail(fault: str, code: int, outcome: str, worker: Worker, small: Any) -> None:
    worker.software.set_faults(RELEASE, {"4742/reco": fault, "4743": "exit-3"})
    _, report = worker.run(4742, small, wall_seconds=5 if outcome == "timeout" else 300)
    assert (report.exit_code, report.outcome) == (code, outcome)


@pytest.mark.parametrize(
    ("fault", "finding"),
    [
        ("no-recon", "has no 04742_recon.root"),
        ("empty-tree", "04742_recon.root: its tree 'Spill' has 0 entries; at least"),
        ("truncated-root", "04742_recon.root is cut short: it has "),
    ],
)
def test_jobs_that_end_with_0_and_have_failed(fault: str, finding: str, worker: Worker, small: Any) -> None:
    worker.software.set_faults(RELEASE, {"4742": fault})
    job, report = worker.run(4742, small)
    assert report.exit_code == 0
    (found,) = worker.prove(job, report, CONTRACT, _physics_events(small, 4742)).findings
    assert found.startswith(finding)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda data: data[:-4], "04742.000 ends within an event, at byte"),
        (lambda data: data.replace(b"\xfe\x5a\x1e\xda", b"\0\0\0\0"), "has no event of run 4742 at byte 0"),
    ],
)
def test_raw_data_that_is_none_is_for_the_expert(
    spoil: Callable[[bytes], bytes], words: str, worker: Worker, tmp_path: Path
) -> None:
    (file,) = DaqWriter(tmp_path).write_run(4742, parts=1, part_bytes=50_000)
    file.write_bytes(spoil(file.read_bytes()))
    job, report = worker.run(4742, raw_bundle(4742, [file]))
    assert (report.exit_code, report.outcome) == (2, "command")
    assert words in job.log()


def test_the_same_run_gives_the_same_entries(worker: Worker, small: Any) -> None:
    found = []
    for fault in ("", "slow:0.1"):
        worker.software.set_faults(RELEASE, {"4742/mc": fault})
        job, _report = worker.run(4742, small, mc=True)
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress((job.path / "04742_mc.tar").read_bytes()))) as archive:
            content = archive.extractfile("04742_sim.root")
            assert content
            with uproot.open(io.BytesIO(content.read())) as file:
                found.append({name: list(values) for name, values in file["Spill"].arrays(library="np").items()})
    assert found[0] == found[1]
