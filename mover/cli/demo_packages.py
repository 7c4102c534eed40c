"""The Debian packages that a demo's batch system needs: they are installed if the person says so, and not else."""

import os
import subprocess
import sys
from collections.abc import Sequence

import click

from mover.errors import SandboxError
from mover.sandbox.batches import BatchKind

_SECONDS = 1800.0


def need_packages(kind: BatchKind, *, install: bool) -> None:
    """Return when what the batch system needs is installed.

    What is not is installed if `install` is set, or the person at the terminal agrees; it is said exactly how.

    Raises:
        SandboxError: it is not installed, and is not to be; or that failed.
    """
    missing = [name for name in kind.packages if not _is_installed(name)]
    if not missing:
        return
    commands = _commands(missing)
    shown = "\n".join("  " + " ".join(one) for one in commands)
    click.echo(
        f"--batch {kind} needs Debian packages that are not installed: {', '.join(missing)}.\n{shown}\n"
        "would install them; Debian may start their services, which the demo does not use.",
        err=True,
    )
    if not install and not (sys.stdin.isatty() and click.confirm("Do that now?", err=True)):
        raise SandboxError(
            f"--batch {kind} needs {', '.join(missing)}", hint="give --install, or install them with the commands above"
        )
    for command in commands:
        if subprocess.run(command, stdout=sys.stderr, timeout=_SECONDS, check=False).returncode != 0:
            raise SandboxError(f"`{' '.join(command)}` failed", hint="its own words are above")


def _is_installed(package: str) -> bool:
    query = ["dpkg-query", "-W", "-f", "${Status}", package]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except FileNotFoundError as error:
        raise SandboxError("this is not Debian: there is no dpkg-query", hint="use --batch local") from error
    return done.stdout == "install ok installed"


def _commands(packages: Sequence[str]) -> list[list[str]]:
    root = [] if os.geteuid() == 0 else ["sudo"]
    quiet = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "install", "-y", "--no-install-recommends"]
    return [[*root, "apt-get", "-q", "update"], [*root, *quiet, *packages]]
