#!/usr/bin/python3 -ESs
"""oss.rsscmd of XRootD: statx, exists, mv and rm on the tape directory; first answers 0 or minus the errno.

Arguments are paths below the tape's root, with or without that root.
"""

import errno
import os
import stat
import sys
from pathlib import Path

from mover.sandbox.files.tape_state import LOST, TAPE


def main(operation: str, *names: str) -> None:
    """Do the operation and answer it."""
    paths = [_full(name) for name in names]
    try:
        answer = _answer(operation, *paths)
    except OSError as error:
        print(-(error.errno or errno.EIO))
    except ValueError:
        print(-errno.EINVAL)
    else:
        print("\n".join(["0", *answer]))


def _full(name: str) -> Path:
    path = Path(name if name.startswith(f"{TAPE}/") else f"{TAPE}/{name.lstrip('/')}")
    return Path(os.path.normpath(path))


def _answer(operation: str, path: Path, *more: Path) -> list[str]:
    if not path.is_relative_to(TAPE) or any(not other.is_relative_to(TAPE) for other in more):
        raise ValueError("outside of the tape")
    if operation == "mv":
        (target,) = more
        # XRootD has renamed the file on disk already, whatever was there: to refuse now would part disk and tape.
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
    elif operation == "rm":
        _known(path).unlink()
        _known(path).unlink(missing_ok=True)  # what is left of an earlier copy
    else:
        status = _known(path).stat()
        return [_statx(status)] if operation == "statx" else []
    return []


def _known(path: Path) -> Path:
    """The file on tape, or else what is left of a lost one."""
    lost = LOST / path.relative_to(TAPE)
    return lost if not path.exists() and lost.exists() else path


def _statx(s: os.stat_result) -> str:
    mode = stat.filemode(s.st_mode)
    fields = ["d" if mode[0] == "d" else "-", mode[1:], s.st_nlink, s.st_uid, s.st_gid]
    fields += [int(s.st_atime), int(s.st_ctime), int(s.st_mtime), s.st_size, s.st_blksize, s.st_blocks]
    return " ".join(map(str, fields))


if __name__ == "__main__":
    main(*sys.argv[1:])
