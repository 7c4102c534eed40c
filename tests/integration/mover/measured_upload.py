"""Upload one planned bundle to one endpoint in a process of its own, and say what it took.

``python -m tests.integration.mover.measured_upload CONFIG RUN ENDPOINT`` closes the run, does its transfer and prints
JSON: bytes read (/proc/self/io rchar), peak resident memory, adler32. No file over 1 MB can be made: RLIMIT_FSIZE
forbids it.
"""

import json
import resource
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mover.catalogue.database import Database
from mover.catalogue.replicas import claim_next, get_replica, replicas_of
from mover.catalogue.runs import bundle_of
from mover.config import load_config
from mover.states import ReplicaState
from mover.steps.close import close_run
from mover.steps.transfer import transfer
from mover.steps.verify import verify
from mover.steps.work import Work
from mover.wiring import SystemClock, build_endpoints

LARGEST_FILE_BYTES = 1_000_000


def _read_bytes() -> int:
    lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    return int(dict(line.split(": ") for line in lines)["rchar"])


def _peak_bytes() -> int:
    """Our own peak; ru_maxrss would begin with that of the process that started us (vfork)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(dict(line.split(":", 1) for line in lines)["VmHWM"].split()[0]) * 1024


def main(config_path: Path, run: int, name: str) -> None:
    """Do it and print the figures."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE_BYTES, LARGEST_FILE_BYTES))
    config = load_config(config_path)
    endpoints = build_endpoints(config)
    database = Database(config.catalogue, create=True)
    before = _read_bytes()
    close_run(database, config, run, now=datetime.now(UTC))
    for step in (transfer, verify):
        now = datetime.now(UTC)
        claim = claim_next(database, name, list(ReplicaState), owner="a/b/c/1/d", lease=timedelta(0), now=now)
        bundle = bundle_of(database, run)
        assert claim is not None
        assert bundle is not None
        replica = get_replica(database, claim.replica_id)
        step(Work(database, claim, replica, bundle, config, endpoints, SystemClock(), lambda _: None, lambda _: None))
    bundle = bundle_of(database, run)
    assert bundle is not None
    assert bundle.digest is not None
    (replica,) = [one for one in replicas_of(database, run) if one.endpoint == name]
    figures = {
        "read_bytes": _read_bytes() - before,
        "bundle_bytes": bundle.size_bytes,
        "peak_bytes": _peak_bytes(),
        "adler32": bundle.digest.adler32,
        "state": replica.state,
    }
    for endpoint in endpoints.values():
        endpoint.close()
    print(json.dumps(figures))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
