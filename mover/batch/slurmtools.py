"""The client programs of Slurm: started in an environment of their own, with a deadline, their errors translated."""

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from mover.errors import BatchUnavailableError, JobRefusedError

_PATH = "/usr/local/bin:/usr/bin:/bin"
# sbatch itself tries again for a while when the controller is busy.
_SECONDS = 120.0

#: What slurmctld says (slurm_errno.c) of a job that it will never take. All else may be better later.
_REFUSED = re.compile(
    r"invalid (partition|account|qos|time|cluster|feature|gres|reservation|job (name|array)|working directory)"
    r"|requested (time limit is invalid|node configuration is not available|partition configuration not available)"
    r"|(more|fewer) (processors|nodes) (requested|available)|node count specification invalid"
    r"|memory (required by task|specification)|too many (nodes|tasks|cpus)|pathname of a file, .* is invalid"
    r"|(access|permission)[ /a-z]* denied|group not permitted|not permitted to use|job size specification"
    r"|unrecognized option|invalid option|batch script",
    re.IGNORECASE,
)
_UNKNOWN = re.compile(r"invalid job id", re.IGNORECASE)


class JobUnknownError(Exception):
    """Slurm does not know a job of that id."""


class SlurmTools:
    """Runs them."""

    def __init__(self, *, config: Path | None, directory: Path | None) -> None:
        """`config` is what they want in SLURM_CONF, `directory` where they are, if not where they usually are."""
        # sbatch passes on what it has: so it is given next to nothing.
        self._environment = {"PATH": f"{directory}:{_PATH}" if directory else _PATH, "LANG": "C.UTF-8"}
        if config is not None:
            self._environment["SLURM_CONF"] = str(config)

    def run(self, *argv: str) -> str:
        """What the program prints.

        Raises:
            JobRefusedError: Slurm will never do that.
            JobUnknownError: it does not know the job.
            BatchUnavailableError: it fails otherwise, or does not end.
        """
        try:
            done = subprocess.run(
                argv,
                capture_output=True,
                check=False,
                cwd="/",
                env=self._environment,
                errors="backslashreplace",
                stdin=subprocess.DEVNULL,
                text=True,
                timeout=_SECONDS,
            )
        except FileNotFoundError as error:
            raise BatchUnavailableError(
                f"{argv[0]} is not installed", hint="install Slurm's client programs, or say where they are"
            ) from error
        except OSError as error:
            raise BatchUnavailableError(
                f"cannot start {argv[0]}: {os.strerror(error.errno or 0).lower()}",
                hint="see whether we have run out of processes, memory or open files",
            ) from error
        except subprocess.TimeoutExpired as error:
            raise BatchUnavailableError(
                f"{argv[0]} has not ended after {_SECONDS:g} s",
                hint="see whether the controller is well: scontrol ping",
            ) from error
        if done.returncode != 0:
            raise _error(argv, done.stderr)
        return done.stdout


def fields(text: str, count: int) -> list[Sequence[str]]:
    """The lines of `text`, each of `count` fields that a | ends or parts; the last may have others in it."""
    lines = (line.split("|", count - 1) for line in text.splitlines())
    return [[*line[:-1], line[-1].removesuffix("|")] for line in lines if len(line) == count]


def _error(argv: Sequence[str], said: str) -> Exception:
    # The last line has the reason; lines before it are the details.
    words = "; ".join(line.strip() for line in said.splitlines() if line.strip())[:1000] or "it failed without a word"
    if _UNKNOWN.search(said):
        return JobUnknownError(words)
    if _REFUSED.search(said):
        return JobRefusedError(words, hint="see the partition's limits with scontrol show partition")
    return BatchUnavailableError(words, hint=f"try by hand: {argv[0]}; see whether the controller is up: scontrol ping")
