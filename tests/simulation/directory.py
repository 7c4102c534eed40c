"""The run directory of the simulation: real files that the DAQ and persons write, entered in the ledger."""

import os
from collections.abc import Iterable
from pathlib import Path

from mover.ports import Clock
from mover.sandbox.daq import event
from tests.simulation.ledger import Ledger


class RunDirectory:
    """Writes files whose times are those of the simulated clock."""

    def __init__(self, path: Path, ledger: Ledger, clock: Clock) -> None:
        self._path = path
        self._ledger = ledger
        self._clock = clock
        self._written = 0
        self._times: dict[int, dict[str, int]] = {}

    def write(self, name: str, content: bytes) -> None:
        """A file comes, or changes; no two have the same time."""
        self._written += 1
        self._put(name, content, int(self._clock.now().timestamp()) * 1_000_000_000 + self._written)

    def remove(self, name: str) -> None:
        """A person removes a file."""
        (self._path / name).unlink()
        del self._ledger.local[name]

    def take_run(self, run: int, *, parts: int, ended: bool = True, whole: bool = True) -> None:
        """The DAQ writes a run; one that is not whole lacks its end-of-run event."""
        for part in range(parts):
            payload = f"run {run} part {part} ".encode() * (20 + run % 50)
            events = [event(run, 1, 1, 1000 + run)] if part == 0 else []
            events.append(event(run, 7, part, 1001 + run, payload[: len(payload) // 4 * 4]))
            if part == parts - 1 and whole:
                events.append(event(run, 2, 1, 1002 + run))
            self.write(f"{run:05d}.{part:03d}", b"".join(events))
        if ended:
            self.write(f"{run:05d}.end", b"")

    def change_part(self, run: int, share: float) -> None:
        """A part gets other bytes."""
        names = sorted(name for name in self._ledger.local if name.startswith(f"{run:05d}.") and name[6:].isdigit())
        if names:
            name = names[int(share * len(names))]
            changed = bytearray(self._ledger.local[name])
            changed[-1] ^= 1
            self.write(name, bytes(changed))

    def note_times(self, run: int, names: Iterable[str]) -> None:
        """The run was planned with these files, as they are now."""
        self._times[run] = {name: (self._path / name).stat().st_mtime_ns for name in names}

    def restore(self, run: int) -> None:
        """The parts are again those that were planned, bytes and times."""
        for name, content in self._ledger.planned[run][-1].parts.items():
            self._put(name, content, self._times[run][name])

    def _put(self, name: str, content: bytes, mtime_ns: int) -> None:
        (self._path / name).write_bytes(content)
        os.utime(self._path / name, ns=(mtime_ns, mtime_ns))
        self._ledger.local[name] = content
