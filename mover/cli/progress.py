"""Progress of the engine's lanes, as people see it."""

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from mover.config import Config
from mover.lane import Progress as LaneProgress
from mover.states import ReplicaState


class Display:
    """A bar an endpoint on a terminal; elsewhere a plain line for each thing proven."""

    def __init__(self, config: Config, say: Console) -> None:
        self._say = say
        self._states: dict[str, ReplicaState] = {}
        self._bars = Progress(
            TextColumn("{task.description:<14}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TextColumn("{task.fields[state]}"),
            console=say,
            disable=not say.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {
            one.name: self._bars.add_task(one.name, total=1, start=False, state="waits") for one in config.endpoint
        }

    def __enter__(self) -> "Display":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def observe(self, progress: LaneProgress) -> None:
        """Show it; called from the lanes' threads."""
        self._bars.start_task(self._tasks[progress.endpoint])
        self._bars.update(
            self._tasks[progress.endpoint],
            completed=progress.bytes_done if progress.state is ReplicaState.WANTED else progress.bytes_total,
            total=progress.bytes_total,
            state="sending" if progress.state is ReplicaState.WANTED else progress.state.value,
        )
        if self._states.get(progress.endpoint) is not progress.state:
            self._states[progress.endpoint] = progress.state
            if not self._say.is_terminal and progress.state is not ReplicaState.WANTED:
                self._say.print(f"run {progress.run} at {progress.endpoint}: {progress.state}")
