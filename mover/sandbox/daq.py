"""A DAQ that writes valid DATE runs: what `mover demo` and the tests take data with.

The events are shaped like those of a real MICE run (two LDCs, bursts around physics events); the payload is
pseudo-random, and the same for the same run number.
"""

import random
import shutil
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mover.bundle.date import END_OF_RUN, HEADER_BYTES, MAGIC, START_OF_RUN

_START_OF_BURST, _END_OF_BURST, _PHYSICS = 5, 6, 7
_VERSION = 0x0003000E
_VOID = 0xFFFFFFFF
_LDCS = 2
_FIRST_TIMESTAMP = 1_423_848_144


def event(run: int, kind: int, number: int, timestamp: int, payload: bytes = b"") -> bytes:
    """One DATE event: the 80-byte header (20 little-endian words) and its payload."""
    return _header(run, kind, number, timestamp, len(payload)) + payload


def _header(run: int, kind: int, number: int, timestamp: int, payload_bytes: int) -> bytes:
    words = [HEADER_BYTES + payload_bytes, MAGIC, HEADER_BYTES, _VERSION, kind, run, number]
    return struct.pack("<20I", *words, *[0] * 9, _VOID, 2, timestamp, 0)


@dataclass(frozen=True, slots=True)
class DaqWriter:
    """Writes runs into `directory`, named like `<run>.000`, and ends them by a marker written last."""

    directory: Path

    def write_run(self, run: int, *, parts: int = 3, part_bytes: int = 4 << 20, sparse: bool = False) -> list[Path]:
        """Write the parts of `run`, each of about `part_bytes`; with `sparse` the payloads are holes.

        Returns:
            The files, in part order. The end of run is not yet signalled.
        """
        files = []
        for number in range(parts):
            path = self.directory / f"{run:05d}.{number:03d}"
            with path.open("xb") as file:
                for header, payload_bytes, noise in _events(run, number, parts, part_bytes):
                    file.write(header)
                    if sparse:
                        file.truncate(file.tell() + payload_bytes)
                        file.seek(payload_bytes, 1)
                    else:
                        file.write(noise.randbytes(payload_bytes))
            files.append(path)
        return files

    def copy_run(self, files: Sequence[Path]) -> list[Path]:
        """Copy existing part files into the directory, under their own names."""
        copies = [self.directory / file.name for file in files]
        for file, copy in zip(files, copies, strict=True):
            shutil.copy2(file, copy)
        return copies

    def end_run(self, run: int) -> Path:
        """Signal the end of run: the marker is written last."""
        marker = self.directory / f"{run:05d}.end"
        marker.touch(exist_ok=False)
        return marker


def _events(run: int, part: int, parts: int, part_bytes: int) -> Iterator[tuple[bytes, int, random.Random]]:
    """Headers with the size of the payload that follows each, and where its noise comes from."""
    noise = random.Random(run * 1000 + part)  # noqa: S311 - test data, not a secret
    stamp = _FIRST_TIMESTAMP + 60 * part
    if part == 0:
        for ldc in range(_LDCS):
            yield _header(run, START_OF_RUN, ldc + 1, stamp, HEADER_BYTES), HEADER_BYTES, noise
    burst = 560
    largest = 1 << 30
    left = max(part_bytes, 4096)
    number = 0
    while left > 0:
        payload = min(left, max(1 << 10, min(part_bytes // 4, largest))) // 4 * 4
        yield _header(run, _START_OF_BURST, number, stamp, burst), burst, noise
        yield _header(run, _PHYSICS, number, stamp + 2, payload), payload, noise
        yield _header(run, _END_OF_BURST, number, stamp + 2, burst), burst, noise
        left -= payload + 3 * HEADER_BYTES + 2 * burst
        number += 1
        stamp += 2
    if part == parts - 1:
        for ldc in range(_LDCS):
            yield _header(run, END_OF_RUN, ldc + 1, stamp, HEADER_BYTES), HEADER_BYTES, noise
