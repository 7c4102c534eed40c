"""Where a file of the tape endpoint is, and how it is moved: what the server's helper programs share.

The helpers are copied into the server's own directory and run there by the server, with the standard library only.
"""

import os
import subprocess
from pathlib import Path

#: The server's own directory is the working directory (see xrootd.cfg for why it is named so).
BASE = Path("/proc/self/cwd")
DISK = BASE / "disk"
TAPE = BASE / "mss"
#: What the tape system remembers of files whose tape cannot be read any more: their size and time, no content.
LOST = BASE / "lost"

_AGENT_SECONDS = 10


def on_disk(path: str) -> bool:
    """Whether the file is in the disk buffer."""
    return _below(DISK, path).is_file()


def on_tape(path: str) -> bool:
    """Whether the file, as it is now, is on tape; the same answer as the stat plug-in's (tapestat.cc)."""
    try:
        tape = _below(TAPE, path).stat()
    except FileNotFoundError:
        return False
    disk_path = _below(DISK, path)
    try:
        disk = disk_path.stat()
        os.getxattr(disk_path, "user.XrdFrm.Cpy")
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return (disk.st_size, disk.st_mtime_ns) == (tape.st_size, tape.st_mtime_ns)


def is_lost(path: str) -> bool:
    """Whether there was such a file, and its bytes are nowhere any more."""
    return not on_disk(path) and not on_tape(path) and _below(LOST, path).is_file()


def evict(path: str) -> bool:
    """Remove the file from the disk buffer; False, and nothing done, unless it is on tape too."""
    if not (on_disk(path) and on_tape(path)):
        return False
    _below(DISK, path).unlink()
    return True


def stage(request_id: str, paths: list[str]) -> None:
    """Ask FRM to bring the files back from tape; does not wait for them."""
    wanted = [path for path in paths if not on_disk(path) and on_tape(path)]
    lines = "".join(f"+ {request_id} - 0 - {path}\n" for path in wanted)
    if lines:
        # The agent ends with a complaint about the end of its input, whatever it has done.
        subprocess.run(
            ["frm_xfragent", "-c", str(BASE / "etc/server.cfg")],
            input=lines.encode(),
            timeout=_AGENT_SECONDS,
            check=False,
        )


def _below(root: Path, path: str) -> Path:
    names = path.strip("/").split("/")
    if any(name in {"", ".", ".."} or any(c.isspace() or not c.isprintable() for c in name) for name in names):
        raise ValueError(f"not a plain path: {path!r}")
    return root.joinpath(*names)
