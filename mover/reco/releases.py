"""Which releases of the experiment's software there are on CVMFS, and whether jobs can be set up with them.

CVMFS may hang, and every look at it is made by a process that is given up after a time.
https://cvmfs.readthedocs.io/en/stable/cpt-details.html, 'Extended attributes'.
"""

import json
import re
import subprocess
import sys
from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from mover.errors import ReleaseNotFoundError, UnsafeNameError
from mover.model import check_name
from mover.reco.software import SoftwareConfig

_PROGRAM = "mover.reco.releases_process"
_KILLED_SECONDS = 5.0
_DIGITS = re.compile(r"([0-9]+)")


@dataclass(frozen=True, slots=True)
class CvmfsMount:
    """The CVMFS repository that a release is on, and its catalogue's revision, if the client tells."""

    point: str
    revision: int | None
    root_hash: str | None


@dataclass(frozen=True, slots=True)
class ReleaseRecord:
    """A release that jobs can be set up with. `remark` is what a person should know of it; `cvmfs` is None if it is
    on another file system."""

    name: str
    path: str
    setup: str
    cvmfs: CvmfsMount | None
    remark: str | None


def by_version(name: str) -> tuple[tuple[int, int, str], ...]:
    """A key to sort releases by: numbers count as numbers, so that 0.10.0 comes after 0.9.9."""
    pieces = (piece for piece in _DIGITS.split(name[:200]) if piece)
    return tuple((1, int(one), "") if "0" <= one[0] <= "9" else (0, 0, one) for one in pieces)


class Releases:
    """The releases in one directory. Nothing is remembered: each call looks."""

    def __init__(self, config: SoftwareConfig, *, mounts: Path = Path("/proc/self/mounts")) -> None:
        """Look at nothing yet."""
        self._config = config
        self._mounts = mounts

    def names(self) -> tuple[str, ...]:
        """All releases that are there, the oldest version first.

        Raises:
            ReleaseNotFoundError: nothing can be seen there.
        """
        return self._names(self._survey(None))

    def latest(self, *, also_approved: Collection[str] = ()) -> ReleaseRecord:
        """The approved release of the highest version, checked. `also_approved` are those approved by hand.

        Raises:
            ReleaseNotFoundError: none is approved, or the latest is not there or cannot be set up. An older one is
                never taken in its place.
        """
        found = self._survey(None)
        approved = {*self._approved(found), *also_approved}
        if not approved:
            raise ReleaseNotFoundError(
                f"no release in {self._config.directory} is approved",
                hint="approve one with `mover reco approve RELEASE`, or see [reco.software] in the configuration",
            )
        return self.check(max(approved, key=by_version), also_approved=also_approved)

    def check(self, release: str, *, also_approved: Collection[str] = ()) -> ReleaseRecord:
        """Whether jobs may use this release, and can be set up with it.

        Raises:
            ReleaseNotFoundError: it is not there, not approved, or has no set-up script that can be read.
        """
        self._check_name(release, "a release cannot be called that")
        found = self._survey(release)
        directory = self._config.directory / release
        approved = {*self._approved(found), *also_approved}
        if "errno" in found["release"] or not found["release"]["is"]:
            there = ", ".join(self._names(found)[-5:]) or "nothing"
            why = found["release"].get("words", "it is no directory").lower()
            raise ReleaseNotFoundError(
                f"there is no release {release} in {self._config.directory}: {why}",
                hint=f"the latest there are: {there}; install it, or approve one that is there",
            )
        if release not in approved:
            raise ReleaseNotFoundError(
                f"release {release} is not approved",
                hint=f"approve it with `mover reco approve {release}`, or use one of those that are: "
                + (", ".join(sorted(approved, key=by_version)[-5:]) or "none"),
            )
        setup = directory / self._config.setup
        if "errno" in found["setup"] or not found["setup"]["is"]:
            why = found["setup"].get("words", "it is empty, or no plain file").lower()
            raise ReleaseNotFoundError(
                f"release {release} cannot be set up: {setup}: {why}",
                hint="install the release anew, or see `setup` of [reco.software] in the configuration",
            )
        mount = self._mount(found)
        remark = None if mount else f"{directory} is not on a CVMFS mount: nothing keeps the release as it is"
        return ReleaseRecord(release, str(directory), str(setup), mount, remark)

    def _names(self, found: dict[str, Any]) -> tuple[str, ...]:
        return tuple(sorted((one for one in found["names"]["is"] if _is_name(one)), key=by_version))

    def _approved(self, found: dict[str, Any]) -> set[str]:
        """What the configured way says, there or not."""
        if self._config.approved_pattern is not None:
            return {one for one in self._names(found) if fnmatchcase(one, self._config.approved_pattern)}
        name = self._config.approved_file or self._config.approved_symlink
        if name is None:
            return set()
        pointer, path = found["pointer"], self._config.directory / name
        if "errno" in pointer:
            raise ReleaseNotFoundError(
                f"cannot tell which release is approved: {path}: {pointer['words'].lower()}",
                hint="see whether CVMFS is mounted and whole, and [reco.software] in the configuration",
            )
        if self._config.approved_symlink:
            lines = [pointer["is"].rstrip("/").removeprefix(f"{self._config.directory}/").removeprefix("./")]
        else:
            lines = [line.partition("#")[0].strip() for line in pointer["is"].splitlines()]
        return {self._check_name(line, f"{path} names as approved") for line in lines if line}

    def _check_name(self, name: str, what: str) -> str:
        if not _is_name(name):
            raise ReleaseNotFoundError(
                f"{what}: {name[:200]!r}",
                hint="name a directory beside the other releases, with letters, digits and . _ + - only",
            )
        return name

    def _mount(self, found: dict[str, Any]) -> CvmfsMount | None:
        if not found["mount"]:
            return None
        revision, root_hash = found["attributes"]["revision"], found["attributes"]["root_hash"]
        number = int(revision) if revision and re.fullmatch(r"[0-9]{1,18}", revision, re.ASCII) else None
        return CvmfsMount(found["mount"], number, root_hash)

    def _survey(self, release: str | None) -> dict[str, Any]:
        config = self._config
        request = {
            "directory": str(config.directory),
            "file": config.approved_file,
            "symlink": config.approved_symlink,
            "setup": config.setup,
            "release": release,
            "mounts": str(self._mounts),
        }
        found = self._ask(json.dumps(request).encode())
        if "errno" in found["names"]:
            raise ReleaseNotFoundError(
                f"there are no releases in {config.directory}: {found['names']['words'].lower()}",
                hint="mount CVMFS (cvmfs_config probe), or mend `path` and `platform` of [reco.software]",
            )
        return found

    def _ask(self, request: bytes) -> dict[str, Any]:
        directory, seconds = self._config.directory, self._config.timeout_seconds
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-B", "-m", _PROGRAM],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            raise ReleaseNotFoundError(
                f"cannot start a process to look for releases: {error.strerror}",
                hint="see whether the mover has run out of processes, memory or open files",
            ) from error
        try:
            out, words = process.communicate(request, timeout=seconds)
        except subprocess.TimeoutExpired as error:
            _give_up(process)
            raise ReleaseNotFoundError(
                f"{directory} did not answer within {seconds:.0f} s",
                hint="CVMFS hangs: try `cvmfs_config probe` and `cvmfs_config wipecache`; it is tried again",
            ) from error
        if process.returncode:
            last = words.decode("utf-8", "backslashreplace").strip().splitlines()[-1:]
            raise ReleaseNotFoundError(
                f"the process that looks for releases failed: {''.join(last)[:300] or process.returncode}",
                hint="please report it, with the log",
            )
        found: dict[str, Any] = json.loads(out)
        return found


def _give_up(process: subprocess.Popen[bytes]) -> None:
    """One that hangs in the kernel stays; subprocess reaps it when it ends at last."""
    process.kill()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
    try:
        process.wait(_KILLED_SECONDS)
    except subprocess.TimeoutExpired:
        return


def _is_name(name: str) -> bool:
    try:
        check_name(name)
    except UnsafeNameError:
        return False
    return not name.startswith(".")
