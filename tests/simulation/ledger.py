"""What the simulation knows by itself, not from the catalogue: the bytes that the DAQ wrote, and where they are."""

import hashlib
import io
import re
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass, field

from mover.model import EndpointKind
from mover.policy import Policy
from mover.storage.memory import _Stored
from tests.simulation.storage import Storage

_LFN = re.compile(r"data/(\d{5})\.tar")
_TEMPORARY = re.compile(r"data/(\d{5})\.tar\.mover-[1-9]\d*\.part")


def lfn_of(run: int) -> str:
    """Where the run's bundle belongs."""
    return f"data/{run:05d}.tar"


def run_of(path: str) -> int | None:
    """The run whose bundle, or a part of it, belongs under that name."""
    named = _LFN.fullmatch(path) or _TEMPORARY.fullmatch(path)
    return int(named[1]) if named else None


@dataclass(slots=True)
class Planned:
    """What a run was when it was closed: the bytes of its parts; and what its bundle is, as soon as it was seen."""

    parts: dict[str, bytes]
    bundle: bytes | None = None


@dataclass(slots=True)
class _Known:
    """A stored file that is not the mover's, or of which the storage told lies. Held, so that its id stays its own."""

    stored: _Stored
    foreign: bool = False
    excused: bool = False
    lied: bool = False


@dataclass(slots=True)
class Ledger:
    """Bytes, and the rules that are broken if some of them go."""

    storages: dict[str, Storage]
    sites: dict[str, str]
    #: The run directory as it must be: every file that the DAQ or a person wrote and the mover did not release.
    local: dict[str, bytes] = field(default_factory=dict)
    planned: dict[int, list[Planned]] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    #: Counts what nature destroys, in order: (when, run, endpoint).
    destroyed: list[tuple[int, int, str]] = field(default_factory=list)
    released: dict[int, str] = field(default_factory=dict)
    now: int = 0
    _known: dict[int, _Known] = field(default_factory=dict)

    def violated(self, what: str) -> None:
        """A rule is broken."""
        self.violations.append(what)

    def plan(self, run: int, names: Iterable[str]) -> None:
        """The run was closed, or planned anew, with these files; they must be all of its parts."""
        parts = {name: self.local[name] for name in self.local if name.startswith(f"{run:05d}.") and name[6:].isdigit()}
        if set(names) != set(parts):
            self.violated(f"run {run} was planned with {sorted(names)}, its parts are {sorted(parts)}")
        self.planned.setdefault(run, []).append(Planned(parts))

    def sent(self, path: str, data: bytes) -> None:
        """The mover sent all of a bundle: it must be the run's bytes, and each time the same."""
        run = run_of(path)
        if run is None or run not in self.planned:
            self.violated(f"{path} was sent, but no such run is planned")
            return
        for planned in self.planned[run]:
            if planned.bundle is None and _unpacks(data, planned.parts):
                planned.bundle = data
        # An engine that sleeps may still send what was planned before.
        if all(planned.bundle != data for planned in self.planned[run]):
            self.violated(f"what was sent to {path} is not the run's bundle")

    def is_right(self, storage: Storage, run: int) -> bool:
        """Whether the storage has the run's bundle under its final name."""
        stored = storage.files.get(lfn_of(run))
        return stored is not None and self._is_bundle(run, stored)

    def _is_bundle(self, run: int, stored: _Stored) -> bool:
        known = self.planned.get(run)
        return known is not None and known[-1].bundle == bytes(stored.data)

    def lacking(self, run: int, policy: Policy, *, since: int) -> str:
        """What the policy lacks at the storage itself; what nature destroyed after `since` counts as being there."""
        spared = {name for at, one, name in self.destroyed if at > since and one == run}
        tapes: set[str] = set()
        disks: set[str] = set()
        for name, storage in self.storages.items():
            if name not in policy.endpoints:
                continue
            tape = storage.capabilities.tape
            if name in spared or (self.is_right(storage, run) and (not tape or storage.is_migrated(lfn_of(run)))):
                (tapes if tape else disks).add(name)
        sites = {self.sites[name] for name in tapes}
        if len(tapes) >= policy.tapes and len(sites) >= policy.tape_sites and len(disks) >= policy.disks:
            return ""
        return f"only {sorted(tapes)} and {sorted(disks)} have it"

    def proven(self, run: int, endpoint: str, kind: EndpointKind | None, *, since: int) -> None:
        """The catalogue says so of a replica; with TAPE, that it is on tape."""
        storage = self.storages[endpoint]
        if (run, endpoint) in {(one, name) for at, one, name in self.destroyed if at > since}:
            return
        if not self.is_right(storage, run):
            self.violated(f"run {run} is said to be proven at {endpoint}, and is not")
        elif kind is EndpointKind.TAPE and not storage.is_migrated(lfn_of(run)):
            self.violated(f"run {run} is said to be on tape at {endpoint}, and is not")

    def unlinked(self, name: str, policy: Policy, *, since: int) -> None:
        """The mover is about to remove a file of the run directory."""
        run = int(name[:5])
        if run not in self.planned:
            self.violated(f"{name} is removed, but run {run} was never planned")
        elif lacking := self.lacking(run, policy, since=since):
            self.violated(f"{name} is removed, but {lacking}")
        elif not name.endswith(".end") and self.local.get(name) != self.planned[run][-1].parts.get(name):
            self.violated(f"{name} is removed, but its bytes are not in the bundle")
        self.local.pop(name, None)
        self.released.setdefault(run, name)

    def note_foreign(self, stored: _Stored, *, excused: bool) -> None:
        """Somebody else's file; `excused` where the mover cannot tell it from a partial one of its own."""
        self._known[id(stored)] = _Known(stored, foreign=True, excused=excused)

    def is_foreign(self, stored: _Stored) -> bool:
        """Whether it is somebody else's."""
        known = self._known.get(id(stored))
        return known is not None and known.foreign

    def note_lie(self, stored: _Stored) -> None:
        """The storage says something untrue of it, or made it another one than was sent."""
        self._known.setdefault(id(stored), _Known(stored)).lied = True

    def came(self, storage: Storage, path: str) -> None:
        """The mover made a file, or renamed one to `path`."""
        if run_of(path) is None:
            self.violated(f"{storage.name} has {path}, a name that the mover must not use")
        elif storage.capabilities.tape and not _LFN.fullmatch(path):
            self.violated(f"{path} is written on tape under a temporary name")

    def lost(self, storage: Storage, path: str, stored: _Stored, *, own_attempt: bool) -> None:
        """The mover removed, replaced or renamed a file; `own_attempt` if its own failed upload made it."""
        known = self._known.get(id(stored))
        run = run_of(path)
        if known and known.foreign and not known.excused:
            self.violated(f"{storage.name} had somebody else's {path}, and the mover took it away")
        elif run is None:
            self.violated(f"{storage.name} had {path}, which is no name of ours, and the mover took it away")
        elif _LFN.fullmatch(path) and self._is_bundle(run, stored) and not own_attempt and not (known and known.lied):
            self.violated(f"{storage.name} had the right {path}, and the mover took it away")


def _unpacks(data: bytes, parts: dict[str, bytes]) -> bool:
    """Whether it is a tar of these parts, a manifest and a listing that `md5sum -c` would agree with."""
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            members = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    except tarfile.TarError:
        return False
    listings = [name for name in members if name.endswith(".md5")]
    if set(members) - set(parts) != {"manifest.json", *listings} or len(listings) != 1:
        return False
    lines = members[listings[0]].decode("ascii").splitlines()
    sums = {name: digest for digest, name in (line.split("  ") for line in lines)}
    found = {
        name: hashlib.md5(content, usedforsecurity=False).hexdigest()
        for name, content in members.items()
        if name not in listings
    }
    return sums == found and all(members.get(name) == content for name, content in parts.items())
