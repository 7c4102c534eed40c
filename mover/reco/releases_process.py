"""Looks at software releases on a file system that may hang, in a process of its own; `mover.reco.releases` starts it.

Reads a request from standard input and writes the answer to standard output, a JSON object each. It judges nothing.
"""

import errno
import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

_MOST_NAMES = 10_000
_MOST_POINTER_BYTES = 64 << 10


def survey(request: dict[str, Any]) -> dict[str, Any]:
    """What there is: names of directories, what the pointer says, one release's set-up script, and the mount."""
    directory = Path(request["directory"])
    answer: dict[str, Any] = {"names": _told(lambda: _directories(directory))}
    if request["file"]:
        answer["pointer"] = _told(lambda: _text(directory / request["file"]))
    if request["symlink"]:
        answer["pointer"] = _told(lambda: str((directory / request["symlink"]).readlink()))
    if request["release"]:
        answer["release"] = _told(lambda: _is_directory(directory / request["release"]))
        answer["setup"] = _told(lambda: _readable(directory / request["release"] / request["setup"]))
    # After the directory was looked at: CVMFS is often mounted by the first look.
    answer["mount"] = mount_of(str(directory), Path(request["mounts"]).read_text("utf-8", "surrogateescape"))
    if answer["mount"]:
        answer["attributes"] = {name: _attribute(answer["mount"], name) for name in ("revision", "root_hash")}
    return answer


def mount_of(path: str, mounts: str) -> str | None:
    """The mount point of the CVMFS repository that has the path; None if it is on another file system.

    Args:
        mounts: the text of /proc/self/mounts, see proc_pid_mounts(5).
    """
    point, is_cvmfs = "", False
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        device, where, kind = fields[0], _unescaped(fields[1]), fields[2]
        if (path == where or path.startswith(where.rstrip("/") + "/")) and len(where) >= len(point):
            # The client calls itself cvmfs2, and its file system fuse.
            point, is_cvmfs = where, kind.startswith("fuse") and "cvmfs2" in {device, kind.removeprefix("fuse.")}
    return point if is_cvmfs else None


def _unescaped(field: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, character)
    return field


def _told(ask: Any) -> dict[str, Any]:
    try:
        return {"is": ask()}
    except OSError as error:
        return {"errno": error.errno, "words": error.strerror}


def _directories(directory: Path) -> list[str]:
    names: list[str] = []
    with os.scandir(directory) as entries:
        for entry in entries:
            if len(names) >= _MOST_NAMES:
                raise OSError(errno.E2BIG, f"has over {_MOST_NAMES} entries")
            if entry.is_dir() and not entry.is_symlink():
                names.append(entry.name)
    return names


def _text(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(_MOST_POINTER_BYTES).decode("utf-8", "backslashreplace")


def _is_directory(path: Path) -> bool:
    return stat.S_ISDIR(path.stat().st_mode)


def _readable(path: Path) -> bool:
    if not stat.S_ISREG(path.stat().st_mode):
        return False
    with path.open("rb") as file:
        return bool(file.read(1))


def _attribute(mount: str, name: str) -> str | None:
    try:
        return os.getxattr(mount, f"user.{name}").decode("ascii", "backslashreplace")[:200]
    except OSError:
        # An administrator may keep them for some groups (CVMFS_XATTR_PROTECTED_XATTRS).
        return None


if __name__ == "__main__":
    json.dump(survey(json.load(sys.stdin)), sys.stdout)
