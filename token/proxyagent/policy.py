"""The agent's configuration: its socket, its dongle, and which users may have which kind of proxy."""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from proxyagent.errors import ConfigError, DeniedError, RequestError
from proxyagent.uri import Uri

_MAX_SOCKET_PATH_BYTES = 107  # sun_path less its final zero, unix(7)
_MAX_CONFIG_BYTES = 1 << 20


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("is not an absolute path")
    return path


def _socket_path(path: Path) -> Path:
    if len(bytes(path)) > _MAX_SOCKET_PATH_BYTES:
        raise ValueError(f"is longer than {_MAX_SOCKET_PATH_BYTES} bytes, more than a socket's path may be")
    return path


def _uri(value: object) -> Uri:
    if not isinstance(value, str):
        raise ValueError("is not a string")
    return Uri.parse(value)


def _mode(value: object) -> int:
    if not isinstance(value, str) or len(value) > 4 or not set(value) <= set("01234567") or not value:
        raise ValueError('is not an octal mode in quotes, such as "0660"')
    mode = int(value, 8)
    if mode & ~0o777:
        raise ValueError("has more than permission bits")
    return mode


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
SocketPath = Annotated[AbsolutePath, AfterValidator(_socket_path)]
Identifier = Annotated[int, Field(ge=0, lt=2**32 - 1, strict=True)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True, hide_input_in_errors=True)


class AgentSection(_Model):
    """``[agent]``: the socket and the limits of the agent."""

    socket: SocketPath
    socket_mode: Annotated[int, BeforeValidator(_mode)] = 0o660
    session_lifetime_seconds: Annotated[int, Field(ge=60, le=7 * 86400, strict=True)] = 12 * 3600
    module_timeout_seconds: Annotated[float, Field(gt=0, le=300)] = 30.0
    """How long one call into the PKCS#11 module may take before its process is killed."""
    max_connections: Annotated[int, Field(ge=1, le=256, strict=True)] = 32
    max_connections_per_user: Annotated[int, Field(ge=1, le=256, strict=True)] = 8


class DongleSection(_Model):
    """``[dongle]``: the PKCS#11 module and the token behind it."""

    module: AbsolutePath
    uri: Annotated[Uri, BeforeValidator(_uri)]


class Profile(_Model):
    """``[[profile]]``: a kind of client proxy and who may have it."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    max_lifetime_seconds: Annotated[int, Field(ge=60, le=86400, strict=True)] = 2 * 3600
    limited: bool = False
    path_length: Annotated[int, Field(ge=0, le=16, strict=True)] | None = None
    """How many further proxies may be delegated from it; any number if left out."""
    uids: frozenset[Identifier] = frozenset()
    gids: frozenset[Identifier] = frozenset()

    def allows(self, uid: int, gid: int) -> bool:
        """Whether a peer with this uid and (primary) gid may have such a proxy."""
        return uid in self.uids or gid in self.gids

    @model_validator(mode="after")
    def _somebody(self) -> Self:
        if not self.uids and not self.gids:
            raise ValueError("allows nobody: give it uids or gids")
        return self


class Config(_Model):
    """The whole file."""

    agent: AgentSection
    dongle: DongleSection
    profile: tuple[Profile, ...] = ()

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [profile.name for profile in self.profile]
        if len(set(names)) != len(names):
            raise ValueError("has two profiles of one name")
        return self

    def profiles_of(self, uid: int, gid: int) -> tuple[str, ...]:
        """The names of the profiles that a peer may use."""
        return tuple(profile.name for profile in self.profile if profile.allows(uid, gid))

    def select(self, name: str, uid: int, gid: int) -> Profile:
        """The profile `name`, for a peer with this uid and gid.

        Raises:
            DeniedError: the peer may not use it. An unknown name gives the same answer to those who may use none.
            RequestError: there is no such profile.
        """
        allowed = self.profiles_of(uid, gid)
        for profile in self.profile:
            if profile.name == name and profile.name in allowed:
                return profile
        if allowed and name not in {profile.name for profile in self.profile}:
            raise RequestError(f"there is no profile {name!r}", hint=f"use one of {', '.join(allowed)}")
        raise DeniedError(
            f"uid {uid} may not use profile {name!r}",
            hint=f"add {uid} to the profile's uids in the agent's configuration and restart the agent",
        )


def load(path: Path) -> Config:
    """Read the configuration file (TOML).

    Raises:
        ConfigError: it cannot be read or is not valid; the message names the key, the hint the remedy.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", hint="give its path with --config") from error
    if len(text) > _MAX_CONFIG_BYTES:
        raise ConfigError(f"{path} is too long for a configuration", hint="give the path of the right file")
    try:
        values = tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is not TOML: {error}", hint="correct the file at that place") from error
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise _explain(path, error) from error


def _explain(path: Path, error: ValidationError) -> ConfigError:
    first = error.errors(include_url=False, include_input=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = ", ".join(_model_at(first["loc"][:-1]).model_fields)
        return ConfigError(f"{path}: unknown key {key!r}", hint=f"remove it, or use one of: {known}")
    if first["type"] == "missing":
        return ConfigError(f"{path}: {key!r} is missing", hint=f"add {key!r} to the file")
    problem = str(first["msg"]).removeprefix("Value error, ")
    problem = problem[:1].lower() + problem[1:]
    return ConfigError(f"{path}: {key or 'the file'}: {problem}", hint="correct the value and start again")


def _model_at(location: tuple[Any, ...]) -> type[_Model]:
    sections: dict[str, type[_Model]] = {"agent": AgentSection, "dongle": DongleSection, "profile": Profile}
    return sections.get(str(location[0]), Config) if location else Config
