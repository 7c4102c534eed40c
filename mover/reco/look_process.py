"""What a process does that looks into one member of a job's output; `mover.reco.look` starts it.

Reads a request from standard input and writes the answer to standard output, a JSON object each. The parsers work on
foreign bytes: the process has neither credential nor environment, may take only so much memory and time, and writes no
file.
"""

import json
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def serve(answer: Callable[[Path, dict[str, Any]], dict[str, Any]]) -> None:
    """Answer one request, within the limits that it names."""
    request = json.load(sys.stdin)
    memory, cpu = int(request["memory_bytes"]), int(request["cpu_seconds"])
    for what, most in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(what, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 5))
    try:
        found = answer(Path(request["path"]), request)
    except MemoryError:
        found = {"fault": f"needs more than {memory >> 20} MiB of memory to be read"}
    except RecursionError:
        found = {"fault": "is nested without end"}
    json.dump(found, sys.stdout)
