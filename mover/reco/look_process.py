"""Looks into one member of a job's output, in a process of its own: started by `mover.reco.look`.

Reads a request from standard input and writes the answer to standard output, a JSON object each. The parsers work on
foreign bytes: the process has neither credential nor environment, may take only so much memory and time, and writes no
file.
"""

import json
import resource
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """Answer one request."""
    request = json.load(sys.stdin)
    memory, cpu = int(request["memory_bytes"]), int(request["cpu_seconds"])
    for what, most in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(what, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 5))
    try:
        answer = _answer(request)
    except MemoryError:
        answer = {"fault": f"needs more than {memory >> 20} MiB of memory to be read"}
    except RecursionError:
        answer = {"fault": "is nested without end"}
    json.dump(answer, sys.stdout)


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    path = Path(request["path"])
    if "expressions" in request:
        from mover.reco.logscan import scan_log  # noqa: PLC0415

        return {"lines": scan_log(path, request["expressions"], request["line_bytes"])}
    # Takes a while to be imported.
    from mover.reco.rootfile import RootFileError, tree_entries  # noqa: PLC0415

    try:
        return {"entries": tree_entries(path, request["tree"])}
    except RootFileError as error:
        return {"fault": str(error)}


if __name__ == "__main__":
    main()
