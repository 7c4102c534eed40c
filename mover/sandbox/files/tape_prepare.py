#!/usr/bin/python3 -ESs
"""XrdOfsPrepGPI program: stages, evicts and reports files for root:// clients (`xrdfs prepare`, gfal2 archive_poll).

Called as `[options] -- REQUEST stage|evict|cancel|query [PATH…]`; a query is answered in the JSON that gfal2 reads.
"""

import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from mover.sandbox.files import tape_state

_OVERTAKEN_SECONDS = 1.0


def main(arguments: list[str]) -> None:
    """Carry out one request."""
    request, operation, *paths = arguments[arguments.index("--") + 1 :]
    record = tape_state.BASE / "adm/requests" / hashlib.sha256(request.encode()).hexdigest()
    if operation == "stage":
        made = record.with_suffix(".new")
        made.write_text(json.dumps({"paths": paths, "time": int(time.time())}))
        made.replace(record)
        tape_state.stage(record.name[:32], paths)
    elif operation == "evict":
        for path in paths:
            tape_state.evict(path)
    elif operation == "cancel":
        record.unlink(missing_ok=True)
    elif operation == "query":
        if ":" in request:
            _await(record)
        print(json.dumps({"request_id": request, "responses": [_status(path, record) for path in paths]}))
    else:
        sys.exit(f"unknown operation {operation!r}")


def _await(record: Path) -> None:
    # XRootD answers the client, with an id of its own (it has colons), before it has us stage: a query may overtake.
    deadline = time.monotonic() + _OVERTAKEN_SECONDS
    while not record.exists() and time.monotonic() < deadline:
        time.sleep(0.01)


def _status(path: str, record: Path) -> dict[str, Any]:
    made = json.loads(record.read_text()) if record.exists() else {"paths": [], "time": ""}
    requested = path in made["paths"]
    disk, tape = tape_state.on_disk(path), tape_state.on_tape(path)
    return {
        "path": path,
        "path_exists": disk or tape or tape_state.is_lost(path),
        "on_tape": tape,
        "online": disk,
        "requested": requested,
        "has_reqid": requested,
        "req_time": str(made["time"]),
        "error_text": "",
    }


if __name__ == "__main__":
    main(sys.argv[1:])
