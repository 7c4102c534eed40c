#!/usr/bin/env python3
"""The sandbox's stand-in for an experiment's reconstruction. It is not MAUS, and finds no particle anywhere.

It keeps the contract of MICE's `execute_against_data.py`, whose name it has in a release: arguments, output, exit codes
(0 done, 1 transient, 2 reconstruction failed, 3 script failed). It decodes the DATE events of a raw bundle and writes
one entry of a tree `Spill` for each physics event; the 'simulation' makes entries from the run number alone. The
entries depend on nothing but the input.

Beside it there may be a `faults.json`, for tests: `{"4742": FAULT}` or `{"4742/mc": FAULT}`, where FAULT is exit-1,
exit-2, exit-3, signal, hang, slow:SECONDS, no-output, no-recon, empty-tree or truncated-root.
"""

import argparse
import gzip
import io
import json
import os
import random
import re
import signal
import struct
import sys
import tarfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NoReturn

import numpy as np
import uproot

MAGIC, HEADER_BYTES, PHYSICS = 0xDA1E5AFE, 80, 7
HEADER = struct.Struct("<20I")
DONE, TRANSIENT, RECONSTRUCTION_FAILED, SCRIPT_FAILED = 0, 1, 2, 3
BRANCHES = {
    "run_number": np.int32,
    "event_number": np.uint32,
    "size_bytes": np.uint32,
    "timestamp": np.uint32,
    "payload_adler32": np.uint32,
}
BATCH = 10_000

Entry = tuple[int, int, int, int, int]


class TransientError(Exception):
    """The input cannot be read; it may be possible another time."""


class DataError(Exception):
    """The input is no raw data of this run."""


def physics_events(bundle: Path, run: int) -> Iterator[Entry]:
    """The physics events of all parts, in their order."""
    try:
        with tarfile.open(bundle, mode="r:") as archive:
            parts = {one.name.removeprefix("./"): one for one in archive.getmembers() if one.isfile()}
            names = sorted(name for name in parts if re.fullmatch(rf"{run:05d}\.[0-9]{{3,}}", name))
            if not names:
                raise DataError(f"{bundle.name} has no part of run {run}")
            for name in names:
                content = archive.extractfile(parts[name])
                if content is not None:
                    yield from events(content, parts[name].size, run, name)
    except (OSError, tarfile.TarError, EOFError) as error:
        raise TransientError(f"{bundle} cannot be read: {error}") from error


def events(file: IO[bytes], size_bytes: int, run: int, name: str) -> Iterator[Entry]:
    """The physics events of one part."""
    offset = 0
    while offset < size_bytes:
        raw = file.read(HEADER_BYTES)
        if len(raw) < HEADER_BYTES:
            raise DataError(f"{name} ends within a header, at byte {offset}")
        words = HEADER.unpack(raw)
        size, magic, kind, run_number, event_number, timestamp = words[0], words[1], *words[4:7], words[18]
        if magic != MAGIC or size < HEADER_BYTES or run_number != run:
            raise DataError(f"{name} has no event of run {run} at byte {offset}")
        adler = 1
        left = size - HEADER_BYTES
        while left:
            chunk = file.read(min(left, 1 << 20))
            if not chunk:
                raise DataError(f"{name} ends within an event, at byte {offset}")
            adler = zlib.adler32(chunk, adler)
            left -= len(chunk)
        if kind == PHYSICS:
            yield run, event_number, size, timestamp, adler
        offset += size


def simulated_events(run: int) -> Iterator[Entry]:
    """Events that never were; always the same for a run."""
    noise = random.Random(run)  # noqa: S311 - not a secret
    for number in range(20 + noise.randrange(20)):
        yield run, number, noise.randrange(1 << 12, 1 << 20), 0, noise.randrange(1 << 32)


def write_tree(path: Path, entries: Iterator[Entry]) -> int:
    """A ROOT file with a tree `Spill`; how many entries it has."""
    count = 0
    with uproot.recreate(path) as file:
        tree = file.mktree("Spill", BRANCHES)
        batch: list[Entry] = []
        for entry in entries:
            batch.append(entry)
            count += 1
            if len(batch) == BATCH:
                tree.extend(_columns(batch))
                batch = []
        if batch:
            tree.extend(_columns(batch))
    return count


def _columns(batch: list[Entry]) -> dict[str, object]:
    return {
        name: np.array(column, kind)
        for (name, kind), column in zip(BRANCHES.items(), zip(*batch, strict=True), strict=True)
    }


def write_output(path: Path, members: list[Path]) -> None:
    """A gzip, in spite of its name, as MICE's is."""
    with (
        path.open("wb") as raw,
        gzip.GzipFile("", "wb", 1, raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for member in members:
            header = tarfile.TarInfo(member.name)
            content = member.read_bytes()
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))


def fault_of(run: int, *, mc: bool) -> str:
    """What a test wants to go wrong; empty if nothing."""
    path = Path(__file__).resolve().parent / "faults.json"
    faults: dict[str, str] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return faults.get(f"{run}/{'mc' if mc else 'reco'}", faults.get(str(run), ""))


def commit_early_fault(fault: str) -> None:
    """Those that keep it from doing anything."""
    if fault.startswith("exit-"):
        print(f"ERROR: told to end with {fault}", flush=True)
        sys.exit(int(fault.removeprefix("exit-")))
    if fault == "signal":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault.startswith(("hang", "slow:")):
        print(f"INFO: told to {fault}", flush=True)
    while fault == "hang":
        time.sleep(60)
    if fault.startswith("slow:"):
        time.sleep(float(fault.removeprefix("slow:")))


def work(bundle: Path | None, run: int, iteration: int, *, mc: bool) -> None:
    """Make the output in the working directory."""
    fault = fault_of(run, mc=mc)
    commit_early_fault(fault)
    logs = {name: Path(f"{name}.log") for name in ("download", "sim", "reco", "batch")}
    recon, sim = Path(f"{run:05d}_recon.root"), Path(f"{run:05d}_sim.root")
    logs["download"].write_text(f"INFO: no geometry or calibration is needed for run {run}\n", "utf-8")
    count = write_tree(sim, iter(()) if mc and fault == "empty-tree" else simulated_events(run))
    logs["sim"].write_text(f"INFO: {count} spills simulated for run {run}\n", "utf-8")
    members = [sim, logs["download"], logs["sim"]]
    if not mc:
        if bundle is None:
            raise DataError("no --input-file is given")
        found = physics_events(bundle, run)
        count = write_tree(recon, iter(()) if fault == "empty-tree" else found)
        logs["reco"].write_text(f"INFO: {count} spills reconstructed of run {run}\n", "utf-8")
        members = [recon, *members, logs["reco"]]
    if fault == "truncated-root":
        members[0].write_bytes(members[0].read_bytes()[:-600])
    if fault == "no-recon":
        members = members[1:]
    logs["batch"].write_text(f"INFO: run {run}, iteration {iteration}: done\n", "utf-8")
    if fault != "no-output":
        write_output(Path(f"{run:05d}_{'mc' if mc else 'offline'}.tar"), [*members, logs["batch"]])
    print(f"INFO: run {run}, iteration {iteration}: done", flush=True)


class _Parser(argparse.ArgumentParser):
    """One that does not end with 2, which means something else here."""

    def error(self, message: str) -> NoReturn:
        self.exit(SCRIPT_FAILED, f"ERROR: {message}\n")


def main() -> int:
    """Run by its command line; its exit code is by the contract."""
    parser = _Parser()
    parser.add_argument("--input-file", type=Path)
    parser.add_argument("--batch-iteration", type=int, default=1)
    parser.add_argument("--run", type=int, help="where there is no input file whose name says it")
    parser.add_argument("--mc", action="store_true", help="the Monte Carlo of the run only")
    arguments = parser.parse_args()
    named = re.fullmatch(r"([0-9]+)\.tar", arguments.input_file.name) if arguments.input_file else None
    run = arguments.run if named is None else int(named[1])
    if run is None:
        parser.error("nothing says which run it is")
    try:
        work(arguments.input_file, run, arguments.batch_iteration, mc=arguments.mc)
    except TransientError as error:
        print(f"ERROR: {error}", flush=True)
        return TRANSIENT
    except DataError as error:
        print(f"ERROR: {error}", flush=True)
        return RECONSTRUCTION_FAILED
    return DONE


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Exception as error:
        print(f"ERROR: {type(error).__name__}: {error}", flush=True)
        sys.exit(SCRIPT_FAILED)
