"""A double of a tape endpoint: a directory whose files count as archived from the second look on."""

from dataclasses import replace
from pathlib import Path

from mover.errors import FileMissingError
from mover.ports import Capabilities
from mover.storage.file import FileEndpoint


class DirectoryTape(FileEndpoint):
    """A file endpoint that says it is a tape. The first look ever at a file finds it not migrated yet."""

    def __init__(self, name: str, directory: Path) -> None:
        super().__init__(name=name, base_url=f"file://{directory}")
        self._looked_at = directory.with_name(f"{directory.name}-looked-at")

    @property
    def capabilities(self) -> Capabilities:
        """A disk's, with tape."""
        return replace(super().capabilities, tape=True)

    def on_tape(self, path: str) -> bool:
        """Whether somebody asked before."""
        if self.stat(path) is None:
            raise FileMissingError(f"there is no {self.url(path)}", hint="look at what the endpoint has")
        look = self._looked_at / path
        asked = look.exists()
        look.mkdir(parents=True, exist_ok=True)
        return asked
