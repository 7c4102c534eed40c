"""vomses files: where the servers of a VO are, and by which name they prove themselves."""

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from proxyagent.errors import ConfigError

_MAX_BYTES = 256 * 1024
_MAX_FILES = 1000
_MAX_SERVERS = 16
_HINT = 'a line is "alias" "host" "port" "name of the host certificate" "VO"; ask the VO for it'

_FIELD = re.compile(r'\s*"([^"]*)"')
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?")
_NAME = re.compile(r"(/[ -.0-~]+)+")  # printable
_VO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")


@dataclass(frozen=True, slots=True)
class VomsServer:
    """One line of a vomses file."""

    alias: str
    host: str
    port: int
    name: str
    """The subject of the server's certificate, in slash form."""
    vo: str

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def servers_of(path: Path, vo: str) -> tuple[VomsServer, ...]:
    """The servers of a VO that a vomses file, or the files of a directory, name; in that order, each once.

    Raises:
        ConfigError: there is none, or a file is unreadable or malformed.
    """
    found = dict.fromkeys(server for file in _files(path) for server in _servers_in(file) if server.vo == vo)
    if not found:
        raise ConfigError(f"no server of VO {vo!r} in {path}", hint=_HINT)
    if len(found) > _MAX_SERVERS:
        raise ConfigError(f"{len(found)} servers of VO {vo!r} in {path}", hint=f"leave {_MAX_SERVERS} at most")
    return tuple(found)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    try:
        files = sorted(entry for entry in path.iterdir() if not entry.name.startswith(".") and not entry.is_dir())
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(files) > _MAX_FILES:
        raise ConfigError(f"{len(files)} files in {path}", hint="give a directory of vomses files, or one file")
    return files


def _servers_in(file: Path) -> Iterator[VomsServer]:
    try:
        with file.open("rb") as stream:
            content = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        raise _unreadable(file, error) from error
    if len(content) > _MAX_BYTES:
        raise ConfigError(f"{file} is too long for a vomses file", hint=_HINT)
    for number, line in enumerate(content.decode(errors="replace").splitlines(), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            server = _server(line)
            if server is None:
                raise ConfigError(f"{file}, line {number} does not describe a VOMS server", hint=_HINT)
            yield server


def _server(line: str) -> VomsServer | None:
    """The server that a line describes. A sixth and seventh field, of old, say nothing to us."""
    if not re.fullmatch(rf"({_FIELD.pattern}){{5,7}}\s*", line):
        return None
    alias, host, port, name, vo = _FIELD.findall(line)[:5]
    usable = _is_host(host) and _is_port(port) and _NAME.fullmatch(name) and _VO.fullmatch(vo)
    return VomsServer(alias, host, int(port), name, vo) if usable else None


def _is_host(text: str) -> bool:
    if _HOST.fullmatch(text):
        return True
    try:
        return bool(ipaddress.IPv6Address(text)) and "%" not in text
    except ValueError:
        return False


def _is_port(text: str) -> bool:
    return bool(re.fullmatch(r"[0-9]{1,5}", text)) and 0 < int(text) < 65536


def _unreadable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"cannot read {path}: {error.strerror or error}", hint="set vomses in [voms] to what is there")
