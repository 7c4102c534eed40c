"""Releases of a reference application, laid out as an experiment's software is on CVMFS. It is not MAUS."""

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

_PROGRAM = Path(__file__).parent / "files" / "reference_reconstruction.py"
_SETUP = """\
# The Python that the mover itself runs with has uproot.
export PATH="{release}:{python}:$PATH"
"""


@dataclass(frozen=True, slots=True)
class ReferenceSoftware:
    """`<root>/<platform>/<release>` with `env.sh` and `execute_against_data.py`, and a file `approved` beside them.

    What the program does, and which faults it can be told to have, stands in its own docstring.
    """

    root: Path
    platform: str = "reference"

    @property
    def path(self) -> str:
        """For `path` of `[reco.software]`."""
        return f"{self.root}/{{platform}}/{{release}}"

    @property
    def directory(self) -> Path:
        """What the releases are in."""
        return self.root / self.platform

    def install(self, release: str) -> Path:
        """Make a release; its directory."""
        directory = self.directory / release
        directory.mkdir(parents=True)
        program = directory / "execute_against_data.py"
        shutil.copyfile(_PROGRAM, program)
        program.chmod(0o755)
        setup = _SETUP.format(release=directory, python=Path(sys.executable).parent)
        (directory / "env.sh").write_text(setup, encoding="utf-8")
        return directory

    def approve(self, release: str) -> None:
        """Name the release in the file `approved`, as the only one."""
        self._replace(self.directory / "approved", f"{release}\n")

    def set_faults(self, release: str, faults: dict[str, str]) -> None:
        """What goes wrong from now on, by run or by run and kind."""
        self._replace(self.directory / release / "faults.json", json.dumps(faults))

    def _replace(self, path: Path, content: str) -> None:
        """Jobs read it at any time."""
        partial = path.with_name(f"{path.name}.part")
        partial.write_text(content, encoding="utf-8")
        partial.rename(path)
