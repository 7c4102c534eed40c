"""The storage elements that the conformance suite is run against, by name."""

import os
import shutil
import socket
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import pytest

from mover.model import ChecksumKind
from mover.ports import CredentialSource, StorageEndpoint
from mover.sandbox.ca import CertificateAuthority
from mover.sandbox.gridftp import GridFtpServer
from mover.sandbox.process import give_to, server_user, together
from mover.sandbox.server import RobotServer
from mover.sandbox.tape import TapeServer
from mover.sandbox.webdav import WebDavServer
from mover.sandbox.xrootd import DiskServer
from mover.storage.file import FileEndpoint
from mover.storage.memory import MemoryEndpoint
from tests.conformance.credentials import RobotCredentials

MEMORY = ("memory", "memory-tape")
LOCAL = (*MEMORY, "file")
PLAIN = "davs-plain"  # a server that computes no checksums
DISKS = ("root", "roots", "davs", PLAIN, "gsiftp")
REMOTE = (*DISKS, "root-tape", "davs-tape")

_PACKAGES = {
    "xrootd": "xrootd-server",
    "frm_xfrd": "xrootd-server",
    "globus-gridftp-server": "globus-gridftp-server-progs",
    "apache2": "apache2-bin",
    "g++": "g++",
}
_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"  # where an ordinary user may not look


def scheme_of(kind: str) -> str:
    """The URL scheme of a kind of storage element."""
    return kind.partition("-")[0]


def disk_server(kind: str, directory: Path, ca: CertificateAuthority) -> RobotServer:
    """A server of one's own that speaks the protocol of `kind`, to be started and closed."""
    made = {"gsiftp": GridFtpServer, PLAIN: WebDavServer}.get(kind, DiskServer)
    return made(directory, ca, robot="Robot")


def server_account(kind: str) -> str:
    """Who the server of `kind` runs as where tests are run by root."""
    return {"gsiftp": "nobody", PLAIN: "www-data"}.get(kind, "xrootd")


def base_url_of(kind: str, server: RobotServer) -> str:
    """The base URL of `kind` at that server."""
    url: str = getattr(server, f"{scheme_of(kind)}_url")
    return url


class Site:
    """The real servers of one test process, started when they are first wanted."""

    def __init__(self, directory: Path, ca: CertificateAuthority) -> None:
        missing = [package for program, package in _PACKAGES.items() if shutil.which(program, path=_PATH) is None]
        if missing:
            pytest.skip(f"apt install {' '.join(sorted(set(missing)))}")
        reason = "apt install python3-gfal2 gfal2-plugin-gridftp gfal2-plugin-http gfal2-plugin-xrootd"
        pytest.importorskip("gfal2", reason=reason)
        self.ca = ca
        self.robot = RobotCredentials(ca, "Robot")
        self.stranger = RobotCredentials(ca, "Stranger")
        self.disk = DiskServer(directory / "disk", ca, robot="Robot")
        self.tape = TapeServer(directory / "tape", ca, robot="Robot")
        self.gridftp = GridFtpServer(directory / "gridftp", ca, robot="Robot")
        self.plain = WebDavServer(directory / "plain", ca, robot="Robot")
        together(*(server.start for server in self.servers))

    @property
    def servers(self) -> tuple[RobotServer, ...]:
        """All of them."""
        return self.disk, self.tape, self.gridftp, self.plain

    def close(self) -> None:
        """Stop the servers."""
        together(*(server.close for server in self.servers))

    def base_url(self, kind: str) -> str:
        """The base URL that `kind` has at this site."""
        return base_url_of(kind, self.server(kind))

    def server(self, kind: str) -> RobotServer:
        """The server that the subjects of `kind` are at."""
        if kind.endswith("-tape"):
            return self.tape
        others: dict[str, RobotServer] = {"gsiftp": self.gridftp, PLAIN: self.plain}
        return others.get(kind, self.disk)

    def folder(self, subject: "Subject") -> Path:
        """Where the files of a subject are on its server's disk."""
        return self.server(subject.kind).disk_directory / subject.base_url.rpartition("/")[2]

    def store(self, subject: "Subject", name: str, data: bytes) -> None:
        """Put a file there, behind everybody's back."""
        folder = self.folder(subject)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
        give_to(server_user(server_account(subject.kind)), folder)

    def at(self, kind: str, port: int, path: str = "/store") -> str:
        """The base URL of that path at a port of localhost where `kind` is spoken, or should be."""
        slashes = "//" if kind.startswith("root") else "/"
        return f"{scheme_of(kind)}://localhost:{port}{slashes}{path.lstrip('/')}"

    def endpoint(
        self,
        kind: str,
        base_url: str,
        *,
        credentials: CredentialSource | None = None,
        stall_timeout_seconds: float = 20.0,
        checksum_timeout_seconds: float = 1800.0,
    ) -> StorageEndpoint:
        """An adapter of that kind; the robot's unless others' credentials are given."""
        # They need gfal2, which may not be installed.
        from mover.storage.davs import DavsEndpoint  # noqa: PLC0415
        from mover.storage.gsiftp import GsiFtpEndpoint  # noqa: PLC0415
        from mover.storage.root import RootEndpoint, RootsEndpoint  # noqa: PLC0415

        credentials = credentials or self.robot
        tape = kind.endswith("-tape")
        if scheme_of(kind) == "davs":
            return DavsEndpoint(
                name=kind,
                base_url=base_url,
                credentials=credentials,
                ca_directory=self.ca.directory,
                tape=tape,
                checksums=frozenset() if kind == PLAIN else frozenset({ChecksumKind.ADLER32}),
                stall_timeout_seconds=stall_timeout_seconds,
                checksum_timeout_seconds=checksum_timeout_seconds,
            )
        kinds = {"root": RootEndpoint, "roots": RootsEndpoint, "gsiftp": GsiFtpEndpoint}
        return kinds[scheme_of(kind)](
            name=kind,
            base_url=base_url,
            credentials=credentials,
            tape=tape,
            stall_timeout_seconds=stall_timeout_seconds,
            checksum_timeout_seconds=checksum_timeout_seconds,
        )


@dataclass
class Subject:
    """A fresh, empty base at one storage element, and how to make adapters for it."""

    kind: str
    base_url: str
    make: Callable[[str], StorageEndpoint]
    closing: ExitStack = field(default_factory=ExitStack)

    def open(self) -> StorageEndpoint:
        """Another adapter for the same base. In memory, there is only the one."""
        endpoint = self.make(self.base_url)
        self.closing.callback(endpoint.close)
        return endpoint


def local_subject(kind: str, directory: Path) -> Subject:
    """The memory or the file adapter."""
    if kind == "file":
        return Subject(kind, directory.as_uri(), lambda url: FileEndpoint(name=kind, base_url=url))
    memory = MemoryEndpoint(name=kind, tape=kind == "memory-tape")
    return Subject(kind, "memory://here", lambda _url: memory)


def remote_subject(kind: str, site: Site) -> Subject:
    """A directory of its own at a real server."""
    return Subject(kind, f"{site.base_url(kind)}/{uuid4().hex}", lambda url: site.endpoint(kind, url))


def adler32_of(endpoint: StorageEndpoint, path: str) -> str:
    """The adler32 of what is stored: the storage's own, or where it has none that of the bytes read back."""
    if ChecksumKind.ADLER32 in endpoint.capabilities.checksums:
        return endpoint.checksum(path, ChecksumKind.ADLER32)
    return f"{zlib.adler32(b''.join(endpoint.read(path))):08x}"


def refusing_port() -> Iterator[int]:
    """A port at which nobody listens, for as long as the generator is held."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def eventually(holds: Callable[[], bool], *, seconds: float = 30.0) -> bool:
    """Whether `holds` becomes true within that time."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
