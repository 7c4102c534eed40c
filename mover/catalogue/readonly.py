"""How SQLite is to open a catalogue that is only read.

A catalogue in WAL mode has its newest facts in a file beside it (-wal), with an index that all readers share (-shm).
SQLite makes both if they are not there, so reading wants the right to write to the folder, or somebody who has the
catalogue open. On a disk that nobody can write to, a catalogue without -wal is complete by itself, and may be read as
it is (`immutable`). Elsewhere that would be unsafe: an engine that starts meanwhile changes pages under the reader.
"""

import os
from pathlib import Path


def read_only_uri(path: Path) -> str:
    """The URI under which SQLite opens the file for reading, safely and without making anything where it need not."""
    immutable = "&immutable=1" if _on_read_only_disk(path) and not os.path.lexists(f"{path}-wal") else ""
    return f"{path.absolute().as_uri()}?mode=ro{immutable}"


def _on_read_only_disk(path: Path) -> bool:
    """Whether the file system itself is mounted for reading only: not just this way to it, as in a service's view."""
    try:
        device = path.stat().st_dev
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in mounts.splitlines():
        # proc(5): … major:minor … - type source super-options
        before, _, after = line.partition(" - ")
        if before.split()[2:3] == [wanted]:
            return "ro" in after.split()[-1].split(",")
    return False
