"""A control-room box under test: the `mover` command with its configuration, and a look at what the site really has."""

import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mover.catalogue.database import Database
from mover.catalogue.runs import find_run
from mover.sandbox.site import ControlRoom, Site
from mover.states import RunState

SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Station(ABC):
    """A control room and the `mover` command in it, wherever its bundles go."""

    room: ControlRoom
    engines: list[subprocess.Popen[str]] = field(default_factory=list, kw_only=True)

    @abstractmethod
    def stored(self) -> dict[str, dict[str, Path]]:
        """What the endpoints really hold for this room: place → path below the room's base → file."""

    def command(self, *arguments: str) -> list[str]:
        """The command line of `mover` with this room's configuration."""
        return [sys.executable, "-P", "-m", "mover", "--config", str(self.room.config_path), *arguments]

    def mover(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; a traceback is never acceptable."""
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, timeout=SECONDS, check=False)
        assert "Traceback" not in done.stderr + done.stdout, done.stderr
        return done

    def start_engine(self, *prefix: str) -> subprocess.Popen[str]:
        """Start the daemon, by the command `prefix` if there is one; its log goes to `engine.log`."""
        command = [*prefix, *self.command("engine")]
        with (self.room.directory / "engine.log").open("a") as log:
            self.engines.append(subprocess.Popen(command, stdout=log, stderr=log, text=True))
        return self.engines[-1]

    def kill_engines(self) -> None:
        """End every engine that was started and has not ended."""
        for process in self.engines:
            process.kill()
            process.wait(timeout=SECONDS)

    @contextmanager
    def engine(self) -> Iterator[subprocess.Popen[str]]:
        """The daemon in the block; it must end cleanly on SIGTERM."""
        process = self.start_engine()
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=SECONDS) == 0, self.log

    @property
    def log(self) -> str:
        """What engines of this room have logged."""
        return (self.room.directory / "engine.log").read_text(encoding="utf-8")

    def state(self, run: int) -> RunState:
        """The run's state in the catalogue."""
        with self.catalogue() as database:
            found = find_run(database, run)
        return found.state if found else RunState.UNKNOWN

    @contextmanager
    def catalogue(self) -> Iterator[Database]:
        """The catalogue, open in the block."""
        database = Database(self.room.catalogue_path, create=True)
        try:
            yield database
        finally:
            database.close()


@dataclass(frozen=True, slots=True)
class Box(Station):
    """A control room of `site`, whose bundles lie below `below` at every endpoint."""

    site: Site
    below: str

    def stored(self) -> dict[str, dict[str, Path]]:
        """What the site's own disks and tapes hold for this room: endpoint → path below the room's base → file."""
        places = {
            "ral-tape": self.site.tape_ral.tape_directory,
            "ral-buffer": self.site.tape_ral.disk_directory,
            "imperial-tape": self.site.tape_imperial.tape_directory,
            "imperial-buffer": self.site.tape_imperial.disk_directory,
            "brunel-disk": self.site.disk_brunel.disk_directory,
        }
        return {
            name: {
                str(path.relative_to(place / self.below)): path
                for path in sorted((place / self.below).rglob("*"))
                # FRM's own lock files stand beside the files of a tape buffer.
                if path.is_file() and not path.name.endswith((".lock", ".fail", ".pfn"))
            }
            for name, place in places.items()
        }


def wait_for(condition: Callable[[], bool], what: Callable[[], str], *, seconds: float = SECONDS) -> None:
    """Wait until the condition holds; fail with `what()` if it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.05)


def processes_using(directory: Path) -> list[str]:
    """The command lines of processes that work in `directory` or name it."""
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        try:
            arguments = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            cwd = str((process / "cwd").readlink())
        except OSError:
            continue
        if str(directory) in arguments or cwd.startswith(str(directory)):
            found.append(arguments)
    return found
