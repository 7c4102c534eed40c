"""Runs that somebody has told have ended, by a file named after each in a directory made for that."""

import logging
import re
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mover.errors import RunDirectoryError
from mover.naming import LARGEST_RUN

log = logging.getLogger("mover")
#: What systemd's path unit looks for: PathExistsGlob=…/[0-9]*. A name of this kind that stays would start it for ever.
_TOLD = re.compile(r"[0-9].*", re.DOTALL)
_RUN = re.compile(r"[0-9]{1,18}")
_MOST_BYTES = 4096  # somebody may have written a line into it, but it is no file of a run
_HINT = "docs/integration.md says how the directory is made"


class ToldRuns:
    """The files in the directory, into which others may put any names. Nothing but what tells of a run is removed."""

    def __init__(self, directory: Path, run_directory: Path) -> None:
        """`run_directory` is where the DAQ writes its runs.

        Raises:
            RunDirectoryError: that is the same directory, or there is none.
        """
        self._directory = directory
        with self._used():
            if directory.samefile(run_directory):
                raise RunDirectoryError(f"{directory} is where the runs themselves are", hint=_HINT)

    def runs(self) -> Mapping[int, int]:
        """When each run was told of: the file's time of modification in nanoseconds. The lowest run is the first.

        What begins like a run's number and is none is renamed out of the way.

        Raises:
            RunDirectoryError: the directory cannot be read or written.
        """
        found: dict[int, int] = {}
        with self._used():
            for name in sorted(path.name for path in self._directory.iterdir()):
                if not _TOLD.fullmatch(name):
                    continue
                told = self._look(name)
                if told is None:
                    self._put_aside(name)
                else:
                    run, told_ns = told
                    found[run] = max(told_ns, found.get(run, 0))
        return dict(sorted(found.items()))

    def forget(self, run: int, told_ns: int) -> None:
        """It is recorded that the run has ended: remove what told of it up to then.

        Raises:
            RunDirectoryError: it cannot be removed.
        """
        with self._used():
            for name in [path.name for path in self._directory.iterdir()]:
                told = self._look(name)
                if told is not None and told[0] == run and told[1] <= told_ns:
                    (self._directory / name).unlink(missing_ok=True)

    def _look(self, name: str) -> tuple[int, int] | None:
        if not _RUN.fullmatch(name) or int(name) > LARGEST_RUN:
            return None
        status = (self._directory / name).lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST_BYTES:
            return None
        return int(name), status.st_mtime_ns

    def _put_aside(self, name: str) -> None:
        aside = f".refused-{secrets.token_hex(8)}"
        (self._directory / name).rename(self._directory / aside)
        log.error("%r in %s is no empty file named after a run; it is named %s now", name, self._directory, aside)

    @contextmanager
    def _used(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunDirectoryError(f"cannot use {self._directory}: {error.strerror}", hint=_HINT) from error
