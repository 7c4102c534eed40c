"""Progress of an audit, as people see it."""

import threading
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from mover.audit.auditor import Progress
from mover.cli.tables import size

_PARTS = 10


class Display:
    """A bar an endpoint on a terminal; elsewhere a line for each tenth that is done."""

    def __init__(self, counts: Mapping[str, tuple[int, int]], say: Console) -> None:
        """`counts`: how many replicas are asked for already, and how many there are in all, by endpoint."""
        self._say = say
        self._lock = threading.Lock()
        self._said = {name: _tenths(done, total) for name, (done, total) in counts.items()}
        self._bars = Bars(
            TextColumn("{task.description:<14}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[read]}"),
            TimeElapsedColumn(),
            console=say,
            disable=not say.is_terminal,
        )
        self._tasks = {
            name: self._bars.add_task(name, completed=done, total=total, read="")
            for name, (done, total) in counts.items()
        }

    def __enter__(self) -> "Display":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def observe(self, progress: Progress) -> None:
        """Show it; called from the endpoints' threads."""
        read = f"{size(progress.read_bytes)} read" if progress.read_bytes else ""
        self._bars.update(self._tasks[progress.endpoint], completed=progress.done, read=read)
        tenths = _tenths(progress.done, progress.total)
        with self._lock:
            news = not self._say.is_terminal and tenths > self._said[progress.endpoint]
            self._said[progress.endpoint] = tenths
        if news:
            self._say.print(f"{progress.endpoint}: {progress.done} of {progress.total} {read}".rstrip())


def _tenths(done: int, total: int) -> int:
    return done * _PARTS // total if total else _PARTS
