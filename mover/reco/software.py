"""`[reco.software]`: where the releases of the experiment's software are, and which of them are approved."""

from pathlib import Path
from string import Formatter

from pydantic import Field, model_validator

from mover.errors import UnsafeNameError
from mover.model import check_name, check_path
from mover.tables import Table


class SoftwareConfig(Table):
    """`[reco.software]`: one directory a release, and at most one way to say which are approved.

    `approved_file` (each line a release; # begins a comment) and `approved_symlink` are names beside the releases;
    `approved_pattern` is what their names must match, as in fnmatch(3). Without any of them, only what is approved by
    hand is.
    """

    path: str = "/cvmfs/mice.egi.eu/{platform}/{release}"
    platform: str = Field(min_length=1)
    setup: str = "env.sh"
    approved_file: str | None = None
    approved_symlink: str | None = None
    approved_pattern: str | None = Field(default=None, min_length=1, max_length=200)
    timeout_seconds: float = Field(default=60.0, ge=1, le=600)

    @model_validator(mode="after")
    def _is_usable(self) -> "SoftwareConfig":
        fields = {field for _, field, _, _ in Formatter().parse(self.path) if field is not None}
        if fields - {"platform"} != {"release"} or not self.path.endswith("/{release}"):
            raise ValueError(f"path {self.path!r}: it must end in /{{release}}, and may have {{platform}} before")
        try:
            if not self.path.startswith("/"):
                raise ValueError(f"path {self.path!r}: must be an absolute path")
            check_path(self.path.format(platform=self.platform, release="release")[1:])
            check_path(self.setup)
            for name in (self.approved_file, self.approved_symlink):
                if name is not None:
                    check_name(name)
        except UnsafeNameError as error:
            raise ValueError(error.message) from error
        ways = (self.approved_file, self.approved_symlink, self.approved_pattern)
        if sum(way is not None for way in ways) > 1:
            raise ValueError("give one of approved_file, approved_symlink and approved_pattern")
        return self

    @property
    def directory(self) -> Path:
        """What the releases are in."""
        return Path(self.path.removesuffix("/{release}").format(platform=self.platform))
