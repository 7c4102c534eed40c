"""Write an audit's report to where a person wants it."""

import os
from pathlib import Path
from tempfile import NamedTemporaryFile

import click

from mover.audit.page import render_page
from mover.audit.report import Report
from mover.errors import OutputError

_SUFFIXES = {".html": render_page, ".json": Report.to_json}


def check_target(target: Path) -> None:
    """See, before hours are spent on an audit, that its report can be written.

    Raises:
        click.UsageError: it is neither a directory nor a file of a known kind.
        OutputError: there is no such directory, or it cannot be written to.
    """
    if not target.is_dir() and target.suffix not in _SUFFIXES:
        raise click.UsageError("--report: give a directory that exists, or a file that ends in .html or .json")
    folder = target if target.is_dir() else target.parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write a report into {folder}", hint="make it, or give another directory")


def write_report(target: Path, report: Report) -> None:
    """Write a file, or both kinds into a directory; a report of the same name is replaced, never half written.

    Raises:
        OutputError: there is no space, or no right to write.
    """
    files = [target]
    if target.is_dir():
        files = [target / f"audit-{report.audit.id}{suffix}" for suffix in _SUFFIXES]
    for file in files:
        try:
            _replace(file, _SUFFIXES[file.suffix](report))
        except OSError as error:
            raise OutputError(
                f"cannot write the report {file}: {os.strerror(error.errno or 0).lower()}",
                hint=f"mend that, then `mover audit --show {report.audit.id} --report …`: the audit itself is kept",
            ) from error


def _replace(file: Path, text: str) -> None:
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
