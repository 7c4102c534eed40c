"""Control rooms for the tests of faults: where a run is written, and what the endpoints hold of it."""

import hashlib
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from mover.sandbox.site import ControlRoom
from mover.states import RunState
from tests.integration.mover.box import Station, wait_for

ROOT = Path(__file__).parents[2]
RUN = 4742
LFN = "MICE/Step1/04700/04742.tar"
_SECONDS = 200.0
_SAFE_SECONDS = 400.0

_FILE_CONFIG = """\
experiment = "MICE"
catalogue = "{catalogue}"

[runs]
directory = "{runs}"
poll_seconds = 0.05

[bundle]
lfn = "MICE/{{step}}/{{century:05d}}/{{run:05d}}.tar"

[[bundle.step]]
name = "Step1"
first_run = 0

[engine]
first_retry_seconds = 0.05
longest_retry_seconds = 1
first_probe_seconds = 0.5

[policy.raw]
tapes = {tapes}
tape_sites = {tapes}
disks = {disks}
"""

_ENDPOINT = """
[[endpoint]]
name = "{name}"
site = "{name}"
kind = "{kind}"
url = "{url}"
archive_poll_seconds = 0.05
"""


@dataclass(frozen=True, slots=True)
class DiskStation(Station):
    """A control room whose endpoints are directories: name → directory."""

    places: dict[str, Path]

    def stored(self) -> dict[str, dict[str, Path]]:
        """What is in them."""
        return {name: {str(one.relative_to(top)): one for one in files_in(top)} for name, top in self.places.items()}


@dataclass(frozen=True, slots=True)
class Room:
    """A station under test, and what its DAQ has written: the sha256 of each part, by name."""

    station: Station
    options: tuple[str, ...] = ()
    digests: dict[str, str] = field(default_factory=dict)

    @property
    def run_directory(self) -> Path:
        """Where the DAQ writes."""
        return self.station.room.run_directory

    def write_run(self, run: int = RUN, *, parts: int = 2, part_bytes: int = 3 << 20, end: bool = True) -> None:
        """Write a run and end it, and keep the digests of its parts."""
        for part in self.station.room.daq.write_run(run, parts=parts, part_bytes=part_bytes):
            self.digests[part.name] = sha256(part)
        if end:
            self.station.room.daq.end_run(run)

    def wait_until_safe(self, *runs: int) -> None:
        """Wait for the engine to make them safe."""
        wanted = runs or (RUN,)
        wait_for(
            lambda: all(self.station.state(run) is RunState.SAFE for run in wanted),
            lambda: f"{[self.station.state(run) for run in wanted]}; {self.station.log}",
            seconds=_SAFE_SECONDS,
        )

    def wait_for_log(self, text: str) -> None:
        """Wait until the engine has logged a match of the pattern `text`."""
        wait_for(lambda: re.search(text, self.station.log) is not None, lambda: f"no {text!r} in {self.station.log}")

    def configure(self, old: str, new: str) -> None:
        """Replace something in the configuration, which must be there."""
        path = self.station.room.config_path
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")

    def mortal_engine(
        self, journal: Path, *runs: int, die: str | None = None, release: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run `mortal_engine` to its end, natural or not."""
        command = [sys.executable, "-P", "-m", "tests.faults.mortal_engine"]
        config = self.station.room.config_path
        command += [str(config), str(journal), *(str(run) for run in runs or [RUN]), *self.options]
        command += ["--release"] if release else []
        command += ["--die", die] if die else []
        return subprocess.run(
            command, cwd=ROOT, env={"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{ROOT}:{ROOT / 'token'}"},
            capture_output=True, text=True, timeout=_SECONDS, check=False,
        )  # fmt: skip


def disk_room(directory: Path) -> Room:
    """A control room with two directories for disk endpoints."""
    return _room(directory, {"left": "disk", "right": "disk"})


def room_with_tape_double(directory: Path) -> Room:
    """A control room with a directory for a disk endpoint and another, with a double, for a tape."""
    room = _room(directory, {"tape": "tape", "disk": "disk"})
    return Room(room.station, ("--tape-double", f"tape={directory / 'tape'}"))


def _room(directory: Path, kinds: dict[str, str]) -> Room:
    directory.mkdir()
    files = ControlRoom(directory)
    files.run_directory.mkdir()
    tapes = list(kinds.values()).count("tape")
    text = _FILE_CONFIG.format(
        catalogue=files.catalogue_path, runs=files.run_directory, tapes=tapes, disks=len(kinds) - tapes
    )
    places = {name: directory / name for name in kinds}
    for name, kind in kinds.items():
        places[name].mkdir()
        # There is no tape at a file:// URL, and nobody listens at this one.
        url = "root://localhost:9//tape" if kind == "tape" else f"file://{places[name]}"
        text += _ENDPOINT.format(name=name, kind=kind, url=url)
    files.config_path.write_text(text, encoding="utf-8")
    return Room(DiskStation(files, places))


def files_in(directory: Path) -> list[Path]:
    """Every plain file at any depth."""
    return [path for path in sorted(directory.rglob("*")) if path.is_file()]


def sha256(path: Path) -> str:
    """The digest of a file, by the standard library."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
