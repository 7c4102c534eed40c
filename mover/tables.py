"""What the tables of the configuration have in common."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from mover.errors import UnsafeNameError
from mover.model import check_name


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("must be an absolute path")
    return path


def plain_name(name: str) -> str:
    try:
        return check_name(name)
    except UnsafeNameError as error:
        raise ValueError(f"{name!r} may have letters, digits and . _ + = @ , - only, and not begin with -") from error


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
Name = Annotated[str, AfterValidator(plain_name)]
Seconds = Annotated[float, Field(ge=0.05, le=7 * 86400)]


class Table(BaseModel):
    """A table of the configuration: frozen, and without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class CredentialConfig(Table):
    """`[credential]`: the agent that hands out Grid proxies, and the CAs that we trust."""

    agent: AbsolutePath = Path("/run/proxyagent/agent.sock")
    profile: Name = "mover"
    ca_directory: AbsolutePath = Path("/etc/grid-security/certificates")
    lifetime_seconds: int = Field(default=7200, ge=600, le=86400)
