"""Outputs of jobs, made for the tests of the contract."""

import gzip
import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import uproot

from mover.reco.contract import OutputContract
from mover.reco.limits import Limits
from mover.reco.proof import Expectation, Proof, check_output

RUN = 4742

CONTRACT: dict[str, Any] = {
    "members": ["{run:05d}_recon.root", "reco.log"],
    "tree": [{"member": "{run:05d}_recon.root", "tree": "Spill"}],
    "log": [{"member": "reco.log", "must_match": ["^processed [0-9]+ spills"], "must_not_match": ["Traceback"]}],
}
LOG = b"begins\nprocessed 40 spills\n"


def root_file(path: Path, entries: int = 40, *, tree: str = "Spill") -> bytes:
    """A ROOT file with two baskets a branch, compressed; and one of no entry if so many are asked for."""
    with uproot.recreate(path) as file:
        made = file.mktree(tree, {"event": np.int32, "charge": np.float64})
        for half in (range(entries // 2), range(entries // 2, entries)):
            if len(half):
                made.extend({"event": np.array(half, np.int32), "charge": np.array(half, np.float64) / 3})
    return path.read_bytes()


def tar(*files: tuple[str, bytes]) -> bytes:
    """A plain tar of these files, in this order."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name, data in files:
            header = tarfile.TarInfo(name)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    return content.getvalue()


def good(recon: bytes, log: bytes = LOG) -> bytes:
    """An output as MICE's jobs make it: gzip, whatever it is called."""
    return gzip.compress(tar((f"{RUN:05d}_recon.root", recon), ("reco.log", log)), mtime=0)


def check(
    stored: bytes,
    scratch: Path,
    contract: dict[str, Any] = CONTRACT,
    *,
    physics_events: int | None = None,
    uploaded: tuple[int, str] | None = None,
    limits: Limits | None = None,
    chunk_bytes: int = 10_007,
) -> Proof:
    """Check these bytes as the output of run 4742, in its first iteration. Nothing may be left in `scratch`."""
    chunks = (stored[at : at + chunk_bytes] for at in range(0, len(stored), chunk_bytes))
    size_bytes, adler32 = uploaded or (None, None)
    expected = Expectation(RUN, 1, physics_events, size_bytes, adler32)
    proof = check_output(chunks, OutputContract.model_validate(contract), expected, scratch, limits)
    assert not list(scratch.iterdir())
    return proof
