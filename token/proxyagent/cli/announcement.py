"""Telling whoever is at the box, wherever they look: standard output, terminals, and the boot splash."""

import shutil
import subprocess

import click

from proxyagent.cli.words import printable

_PATH = "/usr/bin:/bin:/usr/sbin:/sbin"
_SECONDS = 5.0


def announce(text: str) -> None:
    """Say it on standard output, and to everybody's terminals (wall) and the boot splash (plymouth), where there are.

    That nobody is there to see it is nothing wrong.
    """
    line = printable(text)
    click.echo(line)
    _run("wall", line)
    if _run("plymouth", "--ping"):
        _run("plymouth", "display-message", f"--text={line}")


def _run(program: str, *arguments: str) -> bool:
    path = shutil.which(program, path=_PATH)
    if path is None:
        return False
    try:
        done = subprocess.run(
            [path, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"PATH": _PATH, "LC_ALL": "C.UTF-8"},
            check=False,
            timeout=_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        click.echo(printable(f"{program} does not work: {error}"), err=True)
        return False
    return done.returncode == 0
