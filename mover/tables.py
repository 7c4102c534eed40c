"""What the tables of the configuration have in common."""

from pathlib import Path
from typing import Annotated, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

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
    """A table of the configuration: frozen, without unknown keys, its values of the kind that TOML says they are."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _are_of_their_kinds(cls, values: object) -> object:
        """Pydantic would take true for 1, and "5" for a number."""
        for name, value in values.items() if isinstance(values, dict) else ():
            declared = cls.model_fields[name].annotation if name in cls.model_fields else None
            kinds = {declared, *get_args(declared)}
            if bool in kinds and not isinstance(value, bool):
                raise ValueError(f"{name} must be true or false, without quotes")
            if kinds & {int, float} and isinstance(value, bool | str):
                raise ValueError(f"{name} must be a number, without quotes")
        return values


class CredentialConfig(Table):
    """`[credential]`: the agent that hands out Grid proxies, and the CAs that we trust."""

    agent: AbsolutePath = Path("/run/proxyagent/agent.sock")
    profile: Name = "mover"
    ca_directory: AbsolutePath = Path("/etc/grid-security/certificates")
    lifetime_seconds: int = Field(default=7200, ge=600, le=86400)
