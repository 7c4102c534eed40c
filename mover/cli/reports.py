"""Write a report to where a person wants it: as a page, as JSON, or both."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile

import click

from mover.errors import OutputError

SUFFIXES = (".html", ".json")


def check_target(target: Path) -> None:
    """See, before anything is done for it, that a report can be written.

    Raises:
        click.UsageError: it is neither a directory nor a file of a known kind.
        OutputError: there is no such directory, or it cannot be written to.
    """
    if not target.is_dir() and target.suffix not in SUFFIXES:
        raise click.UsageError("give a directory that exists for the report, or a file that ends in .html or .json")
    folder = target if target.is_dir() else target.parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write a report into {folder}", hint="make it, or give another directory")


def write_report(target: Path, name: str, render: Mapping[str, Callable[[], str]], *, again: str) -> None:
    """Write a file, or both kinds into a directory; a report of the same name is replaced, never half written.

    Args:
        name: of the files in a directory, without the suffix.
        render: what each of `SUFFIXES` is to hold.
        again: how to have it written once the trouble is mended.

    Raises:
        OutputError: there is no space, or no right to write.
    """
    files = [target / f"{name}{suffix}" for suffix in SUFFIXES] if target.is_dir() else [target]
    for file in files:
        try:
            replace_file(file, render[file.suffix]())
        except OSError as error:
            raise OutputError(
                f"cannot write the report {file}: {os.strerror(error.errno or 0).lower()}",
                hint=f"mend that, then {again}",
            ) from error


def replace_file(file: Path, text: str) -> None:
    """Write a file that all may read, whole, in the place of what is there.

    Raises:
        OSError: there is no space, or no right to write.
    """
    with NamedTemporaryFile(
        "w", encoding="utf-8", dir=file.parent, prefix=f".{file.name}.", suffix=".part", delete=False
    ) as temporary:
        partial = Path(temporary.name)
        try:
            temporary.write(text)
            temporary.flush()
            os.fchmod(temporary.fileno(), 0o644)
            os.fsync(temporary.fileno())
            partial.replace(file)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
