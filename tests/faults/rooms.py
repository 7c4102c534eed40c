"""Control rooms for the tests of faults: where a run is written, and what the endpoints hold of it."""

import hashlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from mover.sandbox.site import ControlRoom
from tests.integration.mover.box import Box

ROOT = Path(__file__).parents[2]
RUN = 4742
LFN = "MICE/Step1/04700/04742.tar"
_SECONDS = 200.0

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
tapes = 1
tape_sites = 1
disks = 1

[[endpoint]]
name = "tape"
site = "RAL"
kind = "tape"
url = "root://localhost:9//tape"
archive_poll_seconds = 0.05

[[endpoint]]
name = "disk"
site = "Brunel"
kind = "disk"
url = "file://{disk}"
archive_poll_seconds = 0.05
"""


@dataclass(frozen=True, slots=True)
class Room:
    """A control room, and a way to see what its endpoints really have: endpoint → path → file."""

    files: ControlRoom
    stored: Callable[[], dict[str, dict[str, Path]]]
    options: tuple[str, ...] = ()
    digests: dict[str, str] = field(default_factory=dict)

    def write_run(self, run: int = RUN, *, parts: int = 2, part_bytes: int = 3 << 20) -> None:
        """Write a run and end it, and keep the digests of its parts."""
        for part in self.files.daq.write_run(run, parts=parts, part_bytes=part_bytes):
            self.digests[part.name] = sha256(part)
        self.files.daq.end_run(run)

    def mortal_engine(
        self, journal: Path, *runs: int, die: str | None = None, release: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run `mortal_engine` to its end, natural or not."""
        command = [sys.executable, "-P", "-m", "tests.faults.mortal_engine"]
        command += [str(self.files.config_path), str(journal), *(str(run) for run in runs or [RUN]), *self.options]
        command += ["--release"] if release else []
        command += ["--die", die] if die else []
        return subprocess.run(
            command, cwd=ROOT, env={"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{ROOT}:{ROOT / 'token'}"},
            capture_output=True, text=True, timeout=_SECONDS, check=False,
        )  # fmt: skip


def room_at(box: Box) -> Room:
    """A control room of the site with the real servers."""
    return Room(box.room, box.stored)


def file_room(directory: Path) -> Room:
    """A control room with a directory for a disk endpoint and another, with a double, for a tape."""
    directory.mkdir()
    room = ControlRoom(directory)
    places = {"tape": directory / "tape", "disk": directory / "disk"}
    for folder in (room.run_directory, *places.values()):
        folder.mkdir()
    text = _FILE_CONFIG.format(catalogue=room.catalogue_path, runs=room.run_directory, disk=places["disk"])
    room.config_path.write_text(text, encoding="utf-8")

    def stored() -> dict[str, dict[str, Path]]:
        return {name: {str(one.relative_to(top)): one for one in files_in(top)} for name, top in places.items()}

    return Room(room, stored, ("--tape-double", f"tape={places['tape']}"))


def files_in(directory: Path) -> list[Path]:
    """Every plain file at any depth."""
    return [path for path in sorted(directory.rglob("*")) if path.is_file()]


def sha256(path: Path) -> str:
    """The digest of a file, by the standard library."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
