"""A real VOMS server on loopback, with its MariaDB: who is in a VO, and with which groups and roles."""

import itertools
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from cryptography import x509

from mover.errors import SandboxError
from mover.sandbox.ca import CertificateAuthority
from mover.sandbox.database import ENVIRONMENT, database_process
from mover.sandbox.plugin import compile_plugin
from mover.sandbox.ports import PortLease
from mover.sandbox.process import ServerProcess, give_to, server_user, write_config

_SCHEMA = Path("/usr/share/voms/voms-mysql.data")


class VomsServer:
    """The VOMS server of one VO. Everything lies in `directory`; the port stays the same until `close`."""

    def __init__(
        self,
        directory: Path,
        ca: CertificateAuthority,
        *,
        members: Mapping[str, Sequence[str]],
        vo: str = "mice",
        rest: bool = True,
        longest_seconds: int = 86400,
    ) -> None:
        """Lay out the directory, which must not exist.

        `members` gives for each name (/C=UK/…) the FQANs that it holds (/mice/offline, /mice/Role=production), besides
        the VO's own group. Without `rest` the server is as Debian 12 ships it: it understands the legacy protocol only.
        It grants no more than `longest_seconds`.

        Raises:
            SandboxError: no port is free, or we are root and there is no user voms.
        """
        self.directory = directory.resolve()
        self.vo = vo
        self.members = {name: tuple(fqans) for name, fqans in members.items()}
        self._ca = ca
        self._rest = rest
        self._longest_seconds = longest_seconds
        self._user = server_user("voms")
        self._port = PortLease()
        for name in ("bin", "db/tmp", "etc", "log", f"vomsdir/{vo}"):
            (self.directory / name).mkdir(parents=True)
        (self.directory / "db").chmod(0o700)  # the database asks nobody for a password
        host = x509.load_pem_x509_certificate(ca.issue_host(self.directory / "etc").certificate.read_bytes())
        self.name = _slashes(host.subject)
        (self.vomsdir / vo / "localhost.lsc").write_text(f"{self.name}\n{_slashes(host.issuer)}\n")
        self.vomses.write_text(f"{self.vomses_line}\n")
        password = self.directory / "etc/password"
        password.write_text("not-asked-for\n")
        password.chmod(0o640)  # the server insists on it
        self._mariadb = database_process(self.directory / "db", user=self._user, init_file="load.sql")
        self._voms = self._voms_process()

    @property
    def port(self) -> int:
        """Where the server listens."""
        return self._port.number

    @property
    def vomses_line(self) -> str:
        """The line of a vomses file that describes this server."""
        return f'"{self.vo}" "localhost" "{self.port}" "{self.name}" "{self.vo}"'

    @property
    def vomses(self) -> Path:
        """A vomses file with this server alone."""
        return self.directory / "vomses"

    @property
    def vomsdir(self) -> Path:
        """A vomsdir that trusts this server alone."""
        return self.directory / "vomsdir"

    def start(self) -> None:
        """Start the server with the `members` as they are now, and wait until it is ready.

        Raises:
            SandboxError: a package is not installed, or the server did not start.
        """
        if not _SCHEMA.exists():
            raise SandboxError(f"{_SCHEMA} is not there", hint="apt install voms-mysql-plugin")
        if self._rest:
            compile_plugin("vomsrest", self.directory / "bin", package="libgsoap-dev")
        shutil.copytree(self._ca.directory, self.directory / "etc/certificates", dirs_exist_ok=True)
        values = {"VO": self.vo, "PORT": self.port, "LONGEST_SECONDS": self._longest_seconds}
        write_config("voms.conf", self.directory / "etc/voms.conf", values)
        rows = "\n".join(_rows(self.vo, _slashes(self._ca.certificate.subject), self.members))
        # Tables of an earlier start are dropped in the order of the directory, whatever refers to them.
        checks = "SET foreign_key_checks = {};\n"
        database = f"{checks.format(0)}CREATE OR REPLACE DATABASE voms;\n{checks.format(1)}USE voms;\n"
        (self.directory / "db/load.sql").write_text(f"{database}{_SCHEMA.read_text()}\n{rows}\n")
        give_to(self._user, *(self.directory / name for name in ("bin", "db", "etc", "log")))
        try:
            self._mariadb.start(lambda log: "ready for connections" in log)
            failed = re.search(r"^ERROR.*", self._mariadb.logged(), re.MULTILINE)
            if failed:
                raise SandboxError(f"MariaDB did not load {_SCHEMA}: {failed[0]}", hint="reinstall voms-mysql-plugin")
            self._voms.start(lambda _: self._port.in_use)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the server and its database; new connections are refused."""
        self._voms.stop()
        self._mariadb.stop()

    def close(self) -> None:
        """Stop for good, and let others have the port."""
        self.stop()
        self._port.close()

    def _voms_process(self) -> ServerProcess:
        preload = {"LD_PRELOAD": "/proc/self/cwd/bin/libvomsrest.so"} if self._rest else {}
        return ServerProcess(
            "voms",
            ["voms", "--conf", "/proc/self/cwd/etc/voms.conf"],
            directory=self.directory,
            package="voms-server",
            environment={**ENVIRONMENT, **preload},
            user=self._user,
            grace_seconds=0.5,
        )


def _slashes(name: x509.Name) -> str:
    return "".join(f"/{each.rfc4514_attribute_name}={each.value!s}" for each in name)


def _rows(vo: str, ca_name: str, members: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """The statements that fill the tables of an empty VOMS database of version 2, one a line."""
    held = {name: [(f"/{vo}", None), *_memberships(fqans)] for name, fqans in members.items()}
    pairs = list(itertools.chain.from_iterable(held.values()))
    groups = _numbered([f"/{vo}", *(group for group, _ in pairs)])
    roles = _numbered([role for _, role in pairs if role is not None])
    yield _insert("version", 2)
    yield _insert("seqnumber", "00")
    yield _insert("ca", 1, ca_name, None)
    for group, number in groups.items():
        yield _insert("groups", number, group, 1, int(number == 1))
    for role, number in roles.items():
        yield _insert("roles", number, role)
    for user, (name, mine) in enumerate(held.items(), start=1):
        yield _insert("usr", user, name, 1, None, None, None)
        for group, held_role in dict.fromkeys(mine):
            yield _insert("m", None, user, groups[group], held_role and roles[held_role], None)


def _memberships(fqans: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Groups and roles; who has a role in a group is a member of it."""
    for fqan in fqans:
        group, _, role = fqan.partition("/Role=")
        yield group, None
        if role:
            yield group, role


def _numbered(names: Sequence[str]) -> dict[str, int]:
    return {name: number for number, name in enumerate(dict.fromkeys(names), start=1)}


def _insert(table: str, *values: str | int | None) -> str:
    return f"INSERT INTO `{table}` VALUES ({', '.join(map(_literal, values))});"  # noqa: S608 - a throwaway database


def _literal(value: str | int | None) -> str:
    if isinstance(value, str):
        if "\\" in value or "\n" in value:
            raise SandboxError(f"{value!r} cannot be put into the VOMS database", hint="leave backslashes out of names")
        return "'" + value.replace("'", "''") + "'"
    return "NULL" if value is None else str(value)
