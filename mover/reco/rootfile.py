"""How many entries the trees of a ROOT file have, every basket of them read: a file that was cut short does not pass.

ROOT's file format: https://root.cern/doc/master/md_io_doc_TFile_2index.html. A tree's header may be whole where its
data is not, so that a count alone proves nothing. Foreign bytes: this is run as a program, see `look`.
"""

import struct
from pathlib import Path
from typing import Any, BinaryIO

import uproot

from mover.reco.look_process import serve

_MAGIC = b"root"
# fVersion and fBEGIN; then fEND of 4 bytes, or of 8 where the version is a million more.
_BEGIN = struct.Struct(">4sII")
_SMALL, _LARGE = struct.Struct(">I"), struct.Struct(">Q")
_LARGE_VERSION = 1_000_000
_HEAD_BYTES = 64
# TKey: fNbytes, fVersion, fObjlen, fDatime, fKeylen.
_KEY = struct.Struct(">iHIIH")


class RootFileError(Exception):
    """The file is no whole ROOT file, or lacks a tree; the text says where and why."""


def answer(path: Path, request: dict[str, Any]) -> dict[str, Any]:
    """What `look` asks for."""
    try:
        return {"entries": tree_entries(path, request["tree"])}
    except RootFileError as error:
        return {"fault": str(error)}


def tree_entries(path: Path, name: str) -> int:
    """The number of entries of the tree of that name, the newest cycle of it.

    Raises:
        RootFileError: there is none, or not all of it can be read.
    """
    with path.open("rb") as file:
        _check_end(file)
        try:
            return _entries(file, name)
        except (RootFileError, MemoryError):
            raise
        except Exception as error:
            # uproot raises whatever its parsing stumbled over.
            raise RootFileError(f"cannot be read as ROOT: {type(error).__name__}: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """What an error says, in bounds: uproot's go on for pages."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else "without words"


def _check_end(file: BinaryIO) -> None:
    """The header says where the file ends.

    Records are not followed from one to the next: not all that write ROOT keep their gaps so that they can be.
    """
    head = file.read(_HEAD_BYTES)
    size_bytes = file.seek(0, 2)
    if len(head) < _HEAD_BYTES or not head.startswith(_MAGIC):
        raise RootFileError("is no ROOT file")
    _, version, begin = _BEGIN.unpack_from(head)
    (end,) = (_LARGE if version >= _LARGE_VERSION else _SMALL).unpack_from(head, _BEGIN.size)
    if end > size_bytes:
        raise RootFileError(f"is cut short: it has {size_bytes} of {end} bytes")
    if not _BEGIN.size < begin < end:
        raise RootFileError(f"was never closed: its first record is at byte {begin}, its end at byte {end}")


def _entries(file: BinaryIO, name: str) -> int:
    with uproot.open(file) as directory:
        for listed in directory.keys(recursive=False):
            _check_listed(file, directory, listed)
        _ = directory.file.streamers  # unpacks what the classes in it look like
        try:
            tree = directory[name]
        except uproot.exceptions.KeyInFileError as error:
            raise RootFileError(f"has no tree {name!r}") from error
        if not isinstance(tree, uproot.TTree):
            raise RootFileError(f"its {name!r} is no tree but a {type(tree).__name__}")
        wanted = int(tree.num_entries)
        data = 0
        for branch in tree.itervalues(recursive=True):
            data += _check_baskets(branch, name, wanted)
    if wanted and not data:
        raise RootFileError(f"its tree {name!r} says {wanted} entries, but has no data")
    return wanted


def _check_listed(file: BinaryIO, directory: Any, listed: str) -> None:
    """The directory's list of its keys is a copy of the keys themselves; what such a key names can be unpacked."""
    key = directory.key(listed)
    file.seek(key.fSeekKey)
    there = file.read(_KEY.size)
    if len(there) < _KEY.size or _KEY.unpack(there)[::2] != (key.fNbytes, key.fObjlen, key.fKeylen):
        raise RootFileError(f"the key of {listed!r} is not where, or not what, its directory says")
    try:
        key.get_uncompressed_chunk_cursor()
    except MemoryError:
        raise
    except Exception as error:
        raise RootFileError(f"its {listed!r} is damaged: {first_line(error)}") from error


def _check_baskets(branch: Any, tree: str, wanted: int) -> int:
    """Unpack each basket, which checks what its compression can check; how many there are."""
    where = f"branch {branch.name!r} of its tree {tree!r}"
    found = 0
    for number in range(branch.num_baskets):
        try:
            # Unpacks it, too.
            found += int(branch.basket(number).num_entries)
        except MemoryError:
            raise
        except Exception as error:
            raise RootFileError(f"basket {number} of {where} is damaged: {first_line(error)}") from error
    # A branch that is split may have all its data in the branches below it.
    if found != wanted and not (found == 0 and branch.branches):
        raise RootFileError(f"{where} has {found} of {wanted} entries")
    return int(branch.num_baskets)


if __name__ == "__main__":
    serve(answer)
