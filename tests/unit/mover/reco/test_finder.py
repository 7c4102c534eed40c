"""Raw bundles that others store where we look: found, checked, adopted and reconstructed, with a bounded effort."""

from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mover.catalogue.agreement import disagreements
from mover.catalogue.jobs import jobs_of
from mover.catalogue.runs import find_run
from mover.errors import EndpointUnavailableError
from mover.model import StoredFile
from mover.reco.agent import RecoAgent
from mover.reco.finder import Finder
from mover.states import JobState, RunState
from mover.storage.memory import MemoryEndpoint
from tests.unit.mover.auditing import foreign_bundle
from tests.unit.mover.reco.campaignbench import CampaignBench

RUN = 5001


class CountingEndpointDouble(MemoryEndpoint):
    """An endpoint that counts the listings and the readings that it is asked for."""

    def __init__(self) -> None:
        super().__init__(name="disk")
        self.listings = 0
        self.readings = 0

    def list(self, directory: str) -> list[StoredFile]:
        """The files, counted."""
        self.listings += 1
        return super().list(directory)

    def directories(self, directory: str) -> tuple[str, ...]:
        """The directories, counted."""
        self.listings += 1
        return super().directories(directory)

    def read(self, path: str, *, offset: int = 0, size_bytes: int | None = None) -> Generator[bytes, None, None]:
        """The bytes, counted."""
        self.readings += 1
        return super().read(path, offset=offset, size_bytes=size_bytes)


class FinderBench(CampaignBench):
    """One run that is safe, and an agent that looks for others every hour; its clock is an hour ahead of the files."""

    def __init__(self, base: Path, *, every: float | None = 3600.0) -> None:
        super().__init__(base, more=0, find_new_seconds=every)
        self.disk = CountingEndpointDouble()
        self.disk._files = self.endpoints["disk"]._files
        self.endpoints["disk"] = self.disk
        self.clock.time = datetime.now(UTC) + timedelta(hours=1)

    def put(self, run: int, *, broken: bool = False) -> None:
        """Somebody stores a bundle."""
        data = foreign_bundle({f"{run:05d}.000": b"raw data" * 100}, run)
        data = data.replace(b"raw", b"RAW") if broken else data
        self.disk.upload(f"MICE/{run:05d}.tar", [data], len(data))

    def known(self, run: int) -> RunState | None:
        """What the catalogue knows of it."""
        found = find_run(self.catalogue, run)
        return found.state if found else None


def test_a_bundle_that_others_store_is_adopted_and_reconstructed(tmp_path: Path) -> None:
    reco = FinderBench(tmp_path)
    reco.put(RUN)
    reco.put(4743)  # before first_run
    reco.turns(5)
    assert reco.known(RUN) is RunState.RELEASED
    assert [job.state for job in jobs_of(reco.catalogue, RUN)] == [JobState.PROVEN] * 2
    assert reco.known(4743) is None
    assert not list(disagreements(reco.catalogue))


def test_nobody_looks_unless_told_to(tmp_path: Path) -> None:
    reco = FinderBench(tmp_path, every=None)
    reco.put(RUN)
    reco.turns(3, seconds=7200)
    assert reco.known(RUN) is None
    assert not [worker for worker in reco.agent.workers if isinstance(worker, Finder)]


def test_what_may_still_be_written_is_left_alone_and_the_next_walk_is_in_its_time(tmp_path: Path) -> None:
    reco = FinderBench(tmp_path)
    reco.clock.time = datetime.now(UTC)
    reco.put(RUN)
    reco.turns(5, seconds=600)
    assert reco.disk.readings == 0
    assert reco.disk.listings == 1
    reco.turns(2, seconds=600)
    assert reco.disk.listings == 2
    assert reco.known(RUN) is RunState.RELEASED


def test_what_is_wrong_is_said_and_not_read_again_before_it_changes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reco = FinderBench(tmp_path)
    reco.put(RUN, broken=True)
    reco.put(RUN + 1)
    reco.turns(6, seconds=3600)
    assert reco.known(RUN) is None
    assert reco.known(RUN + 1) is RunState.RELEASED
    assert caplog.text.count(f"run {RUN} is not adopted") == 1
    reco.disk.remove(f"MICE/{RUN:05d}.tar")
    reco.put(RUN)
    reco.turns(2, seconds=3600)
    assert reco.known(RUN) is RunState.RELEASED


def test_runs_whose_files_are_here_are_left_to_the_engine(tmp_path: Path) -> None:
    reco = FinderBench(tmp_path)
    reco.daq.write_run(RUN, parts=1, part_bytes=1000)
    reco.put(RUN)
    reco.turns(2)
    assert reco.known(RUN) is None


def test_a_look_makes_a_bounded_number_of_requests_and_the_next_one_goes_on(tmp_path: Path) -> None:
    reco = FinderBench(tmp_path)
    bundle = reco.config.bundle.model_copy(update={"lfn": "MICE/{century:05d}/{run:05d}.tar"})
    reco.config = reco.config.model_copy(update={"bundle": bundle})
    reco.agent = reco.start_agent()
    for century in range(5000, 8000, 100):
        data = foreign_bundle({f"{century:05d}.000": b"x"}, century)
        reco.disk.upload(f"MICE/{century:05d}/{century:05d}.tar.old", [data], len(data))
    data = foreign_bundle({"07901.000": b"x"}, 7901)
    reco.disk.upload("MICE/07900/07901.tar", [data], len(data))
    (finder,) = finders(reco.agent)
    assert not finder.work_once(reco.catalogue, reco.endpoints)
    assert reco.disk.listings == 20
    assert finder.work_once(reco.catalogue, reco.endpoints)
    assert reco.disk.listings == 31
    assert reco.known(7901) is RunState.RELEASED


def test_an_endpoint_that_does_not_answer_is_said_once_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reco = FinderBench(tmp_path)
    reco.put(RUN)
    (finder,) = finders(reco.agent)
    for _ in range(2):
        reco.disk.fail_next(EndpointUnavailableError("disk is down", hint="wait"), "list")
        assert not finder.work_once(reco.catalogue, reco.endpoints)
        reco.clock.advance(601)
    assert caplog.text.count("finder: disk is down (wait)") == 1
    assert finder.work_once(reco.catalogue, reco.endpoints)
    assert reco.known(RUN) is RunState.RELEASED


def finders(agent: RecoAgent) -> list[Finder]:
    """The agent's."""
    return [worker for worker in agent.workers if isinstance(worker, Finder)]
