"""One agent to a catalogue and to a scratch area; and one that is at a long piece of work hears what goes on."""

import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from mover.errors import CatalogueError, MoverError, OutputError
from mover.model import BundleKind
from mover.reco import look
from mover.reco.alone import alone
from mover.states import JobState
from mover.storage.memory import MemoryEndpoint
from tests.unit.mover.reco.recobench import RecoBench

_HOLD = """
import sys
from pathlib import Path
from mover.reco.alone import alone
with alone(Path(sys.argv[1]), Path(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def reco(tmp_path: Path) -> RecoBench:
    """A run that is safe, and an agent."""
    return RecoBench(tmp_path)


@pytest.mark.parametrize(
    ("catalogue", "scratch", "words"),
    [
        ("catalogue.sqlite", "other", "another reco agent works the catalogue"),
        ("other.sqlite", "scratch", "another reco agent works in the scratch area"),
    ],
)
def test_a_second_agent_is_refused_before_it_does_anything(
    reco: RecoBench, tmp_path: Path, catalogue: str, scratch: str, words: str
) -> None:
    (tmp_path / "other").mkdir()
    # Should it not be refused, it ends by itself.
    reco.agent.stop()
    with alone(tmp_path / catalogue, tmp_path / scratch), pytest.raises(MoverError, match=words):
        reco.agent.run()
    assert reco.jobs() == {}
    # Both locks are free again, and nothing is in the way of others elsewhere.
    with (
        alone(tmp_path / "catalogue.sqlite", tmp_path / "scratch"),
        alone(tmp_path / "other.sqlite", tmp_path / "other"),
    ):
        pass


def test_an_agent_that_was_killed_is_in_nobodys_way(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _HOLD, str(tmp_path / "catalogue.sqlite"), str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(CatalogueError), alone(tmp_path / "catalogue.sqlite", tmp_path):
            pass
        holder.kill()
    with alone(tmp_path / "catalogue.sqlite", tmp_path):
        pass


def test_a_lock_that_cannot_be_had_is_said(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot lock .*nowhere"), alone(tmp_path / "c", tmp_path / "nowhere"):
        pass


def test_a_long_digest_can_be_stopped(reco: RecoBench) -> None:
    reco.agent.look_around(reco.catalogue)
    worker = reco.agent.workers[0]
    while worker.work_once(reco.catalogue, reco.endpoints):
        pass
    reco.agent.look_around(reco.catalogue)
    assert reco.jobs()[BundleKind.RECO].ended
    reco.agent.stop()
    assert worker.work_once(reco.catalogue, reco.endpoints)
    assert reco.job_state() is JobState.SUBMITTED


class LastWordDouble(MemoryEndpoint):
    """A disk that stops the agent once the last byte of an output was read."""

    def __init__(self, reco: RecoBench) -> None:
        super().__init__(name="disk")
        self._reco = reco
        self.read_to_the_end = False

    def read(self, path: str, *, offset: int = 0, size_bytes: int | None = None) -> Generator[bytes, None, None]:
        """The bytes."""
        yield from super().read(path, offset=offset, size_bytes=size_bytes)
        if path.startswith("RECO"):
            self.read_to_the_end = True
            self._reco.agent.stop()


def test_a_long_look_at_an_output_can_be_stopped(reco: RecoBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look, "_ALIVE_SECONDS", 0.01)
    disk = LastWordDouble(reco)
    disk._files = reco.endpoints["disk"]._files
    reco.endpoints["disk"] = disk
    worker, lanes = reco.agent.workers[0], [one for one in reco.agent.workers if one.name == "disk"]
    for _ in range(20):
        reco.agent.look_around(reco.catalogue)
        for one in (*lanes, worker):
            if not disk.read_to_the_end:
                one.work_once(reco.catalogue, reco.endpoints)
    assert disk.read_to_the_end
    assert reco.job_state() is JobState.COLLECTED
    # The next agent goes on.
    reco.endpoints["disk"] = MemoryEndpoint(name="disk")
    reco.endpoints["disk"]._files = disk._files
    reco.agent = reco.start_agent()
    reco.turns(2)
    assert reco.job_state() is JobState.PROVEN
