"""A closed run, a catalogue, and one tape and one disk in memory: what the tests of the steps work on."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mover.bundle.stream import BundleReader
from mover.catalogue.database import Database
from mover.catalogue.replicas import (
    claim_next,
    get_replica,
    release_claim,
    replicas_of,
)
from mover.catalogue.runs import bundle_of, record_run_event
from mover.config import Config
from mover.ports import StorageEndpoint
from mover.sandbox.daq import DaqWriter
from mover.states import ReplicaState, RunEvent
from mover.steps.archive import archive
from mover.steps.close import Closed, close_run
from mover.steps.transfer import transfer
from mover.steps.verify import verify
from mover.steps.work import Work
from mover.storage.memory import MemoryEndpoint

RUN = 4742
LFN = "MICE/04742.tar"
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class FixedClock:
    """A clock that stands still."""

    def __init__(self, at: datetime = NOW) -> None:
        self._at = at

    def now(self) -> datetime:
        """Always the same moment."""
        return self._at


class Bench:
    """A closed run, a catalogue, and one tape and one disk in memory.

    A test that changes the catalogue behind the mover's back says that it is `spoiled`.
    """

    spoiled = False

    def __init__(self, base: Path) -> None:
        runs = base / "daq"
        runs.mkdir()
        self.daq = DaqWriter(runs)
        self.files = self.daq.write_run(RUN, parts=2, part_bytes=30_000)
        self.daq.end_run(RUN)
        endpoints = [
            {"name": "tape", "site": "RAL", "kind": "tape", "url": "root://a/b", "source": "local"},
            {"name": "disk", "site": "IC", "kind": "disk", "url": "davs://c/d", "source": "local"},
        ]
        self.config = Config.model_validate(
            {
                "experiment": "MICE",
                "catalogue": base / "catalogue.sqlite",
                "runs": {"directory": runs},
                "bundle": {"lfn": "MICE/{run:05d}.tar"},
                "endpoint": endpoints,
                "policy": {"raw": {"tapes": 1, "tape_sites": 1, "disks": 1}},
            }
        )
        self.catalogue = Database(self.config.catalogue, create=True)
        self.endpoints = {"tape": MemoryEndpoint(name="tape", tape=True), "disk": MemoryEndpoint(name="disk")}

    def open_endpoints(self) -> Mapping[str, StorageEndpoint]:
        """The endpoints as a lane gets them; they are the same for all, and stay open."""
        return self.endpoints

    def close_run(self, *, force: bool = False) -> Closed:
        """What `mover run close` does."""
        return close_run(self.catalogue, self.config, RUN, now=NOW, force=force)

    def work(self, endpoint: str) -> Work:
        """A claim on the run's replica at `endpoint`, as a lane would have it."""
        # Late enough for what was put off to a little later.
        now = NOW + timedelta(hours=1)
        claim = claim_next(self.catalogue, endpoint, list(ReplicaState), owner="a/b/c/1/d", lease=timedelta(1), now=now)
        assert claim is not None
        bundle = bundle_of(self.catalogue, RUN)
        assert bundle is not None
        return Work(
            database=self.catalogue,
            claim=claim,
            replica=get_replica(self.catalogue, claim.replica_id),
            bundle=bundle,
            config=self.config,
            endpoints=self.endpoints,
            clock=FixedClock(),
            alive=lambda _: None,
            pace=lambda _: None,
        )

    def step(self, act: Callable[[Work], None], endpoint: str) -> ReplicaState:
        """Do one step under a claim of its own; the state after it."""
        work = self.work(endpoint)
        try:
            act(work)
        finally:
            release_claim(self.catalogue, work.claim)
        return self.state(endpoint)

    def state(self, endpoint: str) -> ReplicaState:
        """The state of the run's replica there."""
        return next(one.state for one in replicas_of(self.catalogue, RUN) if one.endpoint == endpoint)

    def make_safe(self) -> None:
        """The whole way."""
        self.close_run()
        for endpoint in ("tape", "disk"):
            self.step(transfer, endpoint)
            self.step(verify, endpoint)
        self.step(archive, "tape")
        record_run_event(self.catalogue, RUN, RunEvent.POLICY_HOLDS, now=NOW)


def bundle_bytes(bench: Bench) -> bytes:
    bundle = bundle_of(bench.catalogue, RUN)
    assert bundle is not None
    assert bundle.plan is not None
    return b"".join(BundleReader(bundle.plan, bench.config.runs.directory).chunks())
