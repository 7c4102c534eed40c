"""The agent's configuration: its socket, its dongles, and which users may have which kind of proxy."""

import tomllib
from collections.abc import Callable, Collection
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from proxyagent.errors import ConfigError, DeniedError, RequestError
from proxyagent.modules import DEFAULT_ALLOWED
from proxyagent.uri import Uri

_MAX_SOCKET_PATH_BYTES = 107  # sun_path less its final zero, unix(7)
_MAX_CONFIG_BYTES = 1 << 20


def _absolute(path: Path) -> Path:
    if b"\0" in bytes(path):
        raise ValueError("has a zero byte")
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
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
Unit = Annotated[str, Field(pattern=r"^[A-Za-z0-9:_.\\@-]{1,255}$")]
# Groups, then a role; what the servers and the legacy protocol take without quoting.
Fqan = Annotated[str, Field(pattern=r"^(/[A-Za-z0-9._-]{1,255}){1,8}(/[Rr][Oo][Ll][Ee]=[A-Za-z0-9._-]{1,255})?$")]
Identifier = Annotated[int, Field(ge=0, lt=2**32 - 1, strict=True)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True, hide_input_in_errors=True)


class OnRemoval(StrEnum):
    """What becomes of the session when the dongle is pulled."""

    KEEP = "keep"
    WIPE = "wipe"


class AgentSection(_Model):
    """``[agent]``: the socket and the limits of the agent."""

    socket: SocketPath
    state_directory: AbsolutePath = Path("/var/lib/proxyagent")
    """For the audit log, and for the times and counts of unattended logins."""
    audit_max_mib: Annotated[int, Field(ge=50, le=1 << 20, strict=True)] = 1024
    """How long the audit log may be, in MiB; beyond that the oldest files of it are removed."""
    socket_mode: Annotated[int, BeforeValidator(_mode)] = 0o660
    session_lifetime_seconds: Annotated[int, Field(ge=60, le=7 * 86400, strict=True)] = 12 * 3600
    module_timeout_seconds: Annotated[float, Field(gt=0, le=300)] = 30.0
    """How long one call into the PKCS#11 module may take before its process is killed."""
    pin_pad_timeout_seconds: Annotated[float, Field(gt=0, le=600)] = 90.0
    """How long a person may take at a reader's pin pad."""
    modules: Annotated[tuple[str, ...], Field(min_length=1)] = DEFAULT_ALLOWED
    """Where PKCS#11 modules may lie: patterns of real paths, in which ``*`` matches any characters."""
    on_removal: OnRemoval = OnRemoval.KEEP
    warn_seconds: Annotated[int, Field(ge=0, le=7 * 86400, strict=True)] = 3 * 3600
    """How long before its end a session that needs a person is called 'soon'."""
    max_connections: Annotated[int, Field(ge=1, le=256, strict=True)] = 128
    max_connections_per_user: Annotated[int, Field(ge=1, le=256, strict=True)] = 64


class TrustSection(_Model):
    """``[trust]``: what vouches for certificates."""

    ca_directory: AbsolutePath = Path("/etc/grid-security/certificates")
    crls: Literal["require", "ignore"] = "require"
    """Whether a certificate is used only while every CA above it has a current CRL in the directory."""


class VomsSection(_Model):
    """``[voms]``: where attribute certificates come from. Needed for profiles with FQANs."""

    uid: Identifier
    """The user of `proxyagent voms`, who alone may deliver attribute certificates."""
    vomses: AbsolutePath = Path("/etc/vomses")
    vomsdir: AbsolutePath = Path("/etc/grid-security/vomsdir")
    lifetime_seconds: Annotated[int, Field(ge=600, le=7 * 86400, strict=True)] = 12 * 3600
    """The life that is asked for; servers may grant less."""


class IdentitySection(_Model):
    """``[[identity]]``: one robot, with its dongle and the PKCS#11 module for it."""

    name: Name
    module: AbsolutePath
    uri: Annotated[Uri, BeforeValidator(_uri)]
    subject: Annotated[str, Field(pattern=r"^/.{1,1000}$")] | None = None
    """The certificate's name in slash form. Any other dongle that the URI fits is refused before a PIN is asked for."""
    pin_pad: bool = True
    """Whether the PIN is entered at the reader's own pad, if it has one."""
    pin_credential: Name | None = None
    """The systemd credential with the PIN, for a robot that logs in without a person."""


class Profile(_Model):
    """``[[profile]]``: a kind of client proxy and who may have it."""

    name: Name
    identity: Name | None = None
    """Whose proxies these are; may be left out while there is one identity."""
    max_lifetime_seconds: Annotated[int, Field(ge=60, le=86400, strict=True)] = 2 * 3600
    limited: bool = False
    path_length: Annotated[int, Field(ge=0, le=16, strict=True)] | None = None
    """How many further proxies may be delegated from it; any number if left out."""
    fqans: Annotated[tuple[Fqan, ...], Field(max_length=16)] = ()
    """The VOMS groups and roles in the proxy's attribute certificate, of one VO, the most important one first."""
    uids: frozenset[Identifier] = frozenset()
    gids: frozenset[Identifier] = frozenset()
    units: frozenset[Unit] = frozenset()
    """The systemd units that may ask; they only narrow: the user or group must be allowed as well."""

    @property
    def vo(self) -> str | None:
        """The VO of the FQANs, which is the first component of each."""
        return vo_of(self.fqans[0]) if self.fqans else None

    def allows(self, uid: int, gids: Collection[int]) -> bool:
        """Whether a peer with this uid and these groups may have such a proxy, if it runs in the right unit."""
        return uid in self.uids or not self.gids.isdisjoint(gids)

    @model_validator(mode="after")
    def _somebody(self) -> Self:
        if not self.uids and not self.gids:
            raise ValueError("allows nobody: give it uids or gids")
        return self

    @model_validator(mode="after")
    def _one_vo(self) -> Self:
        if len({vo_of(fqan) for fqan in self.fqans}) > 1:
            raise ValueError("has FQANs of several VOs: make a profile for each")
        return self


class Config(_Model):
    """The whole file."""

    agent: AgentSection
    trust: TrustSection = TrustSection()
    voms: VomsSection | None = None
    identity: Annotated[tuple[IdentitySection, ...], Field(min_length=1, max_length=8)]
    profile: Annotated[tuple[Profile, ...], Field(max_length=64)] = ()

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        for what, sections in (("profiles", self.profile), ("identities", self.identity)):
            names = [section.name for section in sections]
            if len(set(names)) != len(names):
                raise ValueError(f"has two {what} of one name")
        return self

    @model_validator(mode="after")
    def _references_hold(self) -> Self:
        names = {identity.name for identity in self.identity}
        for profile in self.profile:
            if profile.identity is None and len(names) > 1:
                raise ValueError(f"profile {profile.name!r} does not say which identity it is of")
            if profile.identity is not None and profile.identity not in names:
                raise ValueError(f"profile {profile.name!r} names an identity that does not exist")
            if profile.fqans and self.voms is None:
                raise ValueError(f"profile {profile.name!r} has FQANs, but there is no [voms] section")
        return self

    @property
    def warning(self) -> timedelta:
        """How long before its end a session that needs a person is called 'soon'."""
        return timedelta(seconds=self.agent.warn_seconds)

    def identity_of(self, profile: Profile) -> str:
        """The name of the identity that a profile's proxies are of."""
        return profile.identity or self.identity[0].name

    def profiles_of(self, uid: int, gids: Collection[int]) -> tuple[Profile, ...]:
        """The profiles that a peer may use, if it runs in the right unit."""
        return tuple(profile for profile in self.profile if profile.allows(uid, gids))

    def select(self, name: str, uid: int, gids: Collection[int], unit: Callable[[], str | None]) -> Profile:
        """The profile `name`, for a peer with this uid, these groups and this unit, which is looked up if it matters.

        Raises:
            DeniedError: the peer may not use it. An unknown name gives the same answer to those who may use none.
            RequestError: there is no such profile.
        """
        allowed = self.profiles_of(uid, gids)
        for profile in allowed:
            if profile.name == name:
                _check_unit(profile, unit)
                return profile
        if allowed and name not in {profile.name for profile in self.profile}:
            names = ", ".join(profile.name for profile in allowed)
            raise RequestError(f"there is no profile {name!r}", hint=f"use one of {names}")
        raise DeniedError(
            f"uid {uid} may not use profile {name!r}",
            hint=f"add {uid} to its uids, or a group to its gids, in the agent's configuration and restart the agent",
        )


def vo_of(fqan: str) -> str:
    """The VO that an FQAN is of: /mice/Role=production is of mice."""
    return fqan.split("/", 2)[1]


def _check_unit(profile: Profile, unit: Callable[[], str | None]) -> None:
    if not profile.units:
        return
    found = unit()
    if found not in profile.units:
        raise DeniedError(
            f"{found or 'a process outside any system service'} may not use profile {profile.name!r}",
            hint=f"run it in one of the units {', '.join(sorted(profile.units))}, or change the profile's units",
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
    except (ValueError, RecursionError) as error:  # of which TOMLDecodeError is one; a number of 5,000 digits another
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
    sections: dict[str, type[_Model]] = {
        "agent": AgentSection,
        "trust": TrustSection,
        "voms": VomsSection,
        "identity": IdentitySection,
        "profile": Profile,
    }
    return sections.get(str(location[0]), Config) if location else Config
