"""Look at a run's files in the DAQ's directory: which parts there are, and whether the run is complete.

Nothing found here is trusted: names, kinds of files and contents come from outside.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mover.bundle.date import END_OF_RUN, START_OF_RUN, DateFormatError, DateSummary, walk
from mover.errors import RunChangedError, RunDirectoryError, RunIncompleteError, UnsafeNameError
from mover.model import Part, check_name
from mover.naming import RunNaming


@dataclass(frozen=True, slots=True)
class ScannedRun:
    """A run's parts in order, what its format says of them, and every finding against its completeness."""

    number: int
    parts: tuple[Part, ...]
    summary: DateSummary | None
    findings: tuple[str, ...]


@contextmanager
def open_directory(path: Path) -> Iterator[int]:
    """A descriptor of the run directory, to open files relative to it.

    Raises:
        RunDirectoryError: it cannot be opened, or is not a directory.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise RunDirectoryError(
            f"cannot open the run directory {path}: {error.strerror}",
            hint="check that the DAQ's disk is mounted and that this user may read it",
        ) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_part(directory: int, part: Part) -> int:
    """Open a part for reading, if it still is the file that was planned.

    Raises:
        RunChangedError: it is gone, is no plain file any more, or has another size or mtime.
        RunDirectoryError: the system cannot open it at the moment.
    """
    try:
        # O_NONBLOCK: a FIFO put in its place must not hang us.
        descriptor = os.open(part.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.ENXIO}:
            raise changed(part, f"cannot be opened: {error.strerror}") from error
        raise unreadable(part, error) from error
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or (found.st_size, found.st_mtime_ns) != (part.size_bytes, part.mtime_ns):
        os.close(descriptor)
        raise changed(part, "has another size or time than when the run was closed")
    return descriptor


def changed(part: Part, how: str) -> RunChangedError:
    """The error for a part that is not what it was."""
    return RunChangedError(
        f"part {part.name} {how}",
        hint="find out who changed it and restore it; if nothing of the run is stored yet, close it anew with --force",
    )


def unreadable(part: Part, error: OSError) -> RunDirectoryError:
    """The error for a part that the system cannot read; nothing says that it is not the right one."""
    return RunDirectoryError(
        f"part {part.name} cannot be read: {error.strerror}",
        hint="look at the disk and at the limits of this service; it is tried again",
    )


def list_run(directory: int, naming: RunNaming, run: int) -> tuple[list[Part], list[str]]:
    """The parts of `run` in an open directory, in order, and a finding for each other file of its name.

    Raises:
        UnsafeNameError: a symlink, a device, a FIFO, a folder, or a name that must not be packaged.
        RunDirectoryError: the directory cannot be listed.
    """
    try:
        return _list_parts(directory, naming, run)
    except OSError as error:
        raise RunDirectoryError(
            f"cannot list the run directory: {error.strerror}", hint="look at the disk that the DAQ writes to"
        ) from error


def scan(directory: Path, naming: RunNaming, run: int, *, date_format: bool, first_part: int = 0) -> ScannedRun:
    """List and judge the files of `run` in `directory`.

    Raises:
        UnsafeNameError: a symlink, a device, a FIFO, a folder, or a name that must not be packaged.
        RunIncompleteError: there is no part at all.
        RunDirectoryError: the directory cannot be read.
    """
    with open_directory(directory) as opened:
        parts, findings = list_run(opened, naming, run)
        if not parts:
            raise RunIncompleteError(
                f"run {run} has no part in {directory}",
                hint=f"parts are named like {naming.part_name(run, first_part)}; check `[runs]` in the configuration",
            )
        findings += _gaps(parts, naming, run, first_part)
        findings += [f"part {part.name} is empty" for part in parts if part.size_bytes == 0]
        summary = _summarise(opened, parts, run, findings) if date_format else None
    return ScannedRun(run, tuple(parts), summary, tuple(findings))


def _list_parts(directory: int, naming: RunNaming, run: int) -> tuple[list[Part], list[str]]:
    parts: list[Part] = []
    findings: list[str] = []
    prefix, marker = naming.prefix(run), naming.marker_name(run)
    with os.scandir(directory) as entries:
        ours = sorted((entry for entry in entries if entry.name.startswith(prefix)), key=lambda entry: entry.name)
    for entry in ours:
        check_name(entry.name)
        try:
            found = entry.stat(follow_symlinks=False)
        except OSError as error:
            findings.append(f"{entry.name} cannot be examined: {error.strerror}")
            continue
        if not stat.S_ISREG(found.st_mode):
            raise UnsafeNameError(
                f"{entry.name} is {_kind(found.st_mode)}, not a plain file",
                hint="replace it by the file itself, or move it out of the run directory; then close the run again",
            )
        number = naming.part_number(run, entry.name)
        if number is not None:
            parts.append(Part(number, entry.name, found.st_size, found.st_mtime_ns))
        elif entry.name != marker:
            findings.append(f"{entry.name} is neither a part nor the marker (is the DAQ still writing?)")
    return sorted(parts, key=lambda part: part.number), findings


def _gaps(parts: list[Part], naming: RunNaming, run: int, first_part: int) -> list[str]:
    """Missing parts, a finding a gap: a hostile part number must not make us count up to it."""
    findings = []
    expected = first_part
    for part in parts:
        if part.number > expected:
            first, last = naming.part_name(run, expected), naming.part_name(run, part.number - 1)
            findings.append(f"part {first} is missing" if first == last else f"parts {first} to {last} are missing")
        expected = part.number + 1
    return findings


def _kind(mode: int) -> str:
    kinds = ((stat.S_ISLNK, "a symlink"), (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a FIFO"))
    return next((name for test, name in kinds if test(mode)), "a device or socket")


def _summarise(directory: int, parts: list[Part], run: int, findings: list[str]) -> DateSummary:
    summary = DateSummary()
    for part in parts:
        descriptor = open_part(directory, part)
        try:
            for header in walk(descriptor, part.size_bytes, run):
                summary.add(header)
        except DateFormatError as error:
            findings.append(f"part {part.name}: {error}")
        except OSError as error:
            raise unreadable(part, error) from error
        finally:
            os.close(descriptor)
    starts, ends = summary.events[START_OF_RUN], summary.events[END_OF_RUN]
    if not starts:
        findings.append("there is no START_OF_RUN event")
    if not ends:
        findings.append("there is no END_OF_RUN event")
    elif starts and starts != ends:
        findings.append(f"{starts} START_OF_RUN events, but {ends} END_OF_RUN events")
    return summary
