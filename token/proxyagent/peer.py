"""Who is at the other end of a connected Unix socket: user, groups, and the systemd unit of the very process."""

import ctypes
import errno
import os
import re
import select
import socket
import struct
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from proxyagent.errors import DeniedError

_UCRED = struct.Struct("iII")  # pid, uid, gid: struct ucred, unix(7)
# asm-generic/socket.h; Python 3.11 does not name them.
_SO_PEERGROUPS = 59  # Linux 4.13
_SO_PEERPIDFD = 77  # Linux 6.5
_MAX_GROUPS = 65536  # NGROUPS_MAX
_MAX_PROC_BYTES = 64 * 1024
_HIDDEN_HINT = (
    "run the agent where it sees its clients in /proc (no ProtectProc=, ProcSubset= or PrivateUsers= in its unit), "
    "or remove the units from the profile"
)
_GONE_HINT = "keep the process that connected running until it has its answer"

#: What systemd puts before names that the kernel might take for a file of its own, such as _cpu.service (cg_escape).
_ESCAPE = "_"
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]{1,246}\.(service|scope|socket|mount|swap)")  # systemd.unit(5)
_SLICE = re.compile(r"[A-Za-z0-9:_.\\-]{1,249}\.slice")  # systemd.slice(5)

_libc = ctypes.CDLL(None, use_errno=True)


def _boot_ticks() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK") // 10**9


@dataclass(frozen=True, slots=True)
class Peer:
    """Who connected, as the kernel says: who it was when connect() was called (SO_PEERCRED, SO_PEERGROUPS)."""

    pid: int
    uid: int
    gid: int
    groups: frozenset[int]
    """The primary and all supplementary groups."""
    seen_ticks: int = field(default_factory=_boot_ticks, compare=False)
    """When this was asked, in clock ticks since boot: a process that began later is not this one."""


def peer_of(connection: socket.socket) -> Peer:
    """The peer of a connected Unix socket. Call it right after accept().

    Raises:
        DeniedError: it is not a Unix socket, or the kernel does not tell its groups.
    """
    try:
        pid, uid, gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        return Peer(pid, uid, gid, _groups(connection) | {gid})
    except OSError as error:
        raise DeniedError(
            f"the kernel does not say who connected: {error.strerror}", hint="connect by the agent's Unix socket"
        ) from error


def server_uid(connection: socket.socket) -> int:
    """The uid that made the socket listen to which a client is connected; root's, for one from a systemd unit.

    Raises:
        DeniedError: it is not a connected Unix socket.
    """
    return peer_of(connection).uid


def unit_of(connection: socket.socket, peer: Peer, *, proc: Path = Path("/proc")) -> str | None:
    """The systemd system unit that the peer's process runs in, such as mover.service; None outside any.

    It is the process that connected, even if another one holds the socket now. A process of a user's own service
    manager runs in that manager's unit, user@1000.service, whatever its own unit is called: users choose those names.

    On kernels before 6.5 the process is found by its number. It is then refused if it began after the connection was
    accepted, or has another uid: what remains is a client that dies before that and whose number is given, until then,
    to another process of its own user. The unit only ever narrows what the user may do.

    Raises:
        DeniedError: nobody can tell, because the process has ended or is hidden from us.
    """
    try:
        pidfd = _open_process(connection, peer, proc)
        try:
            lines = _read(proc / str(peer.pid) / "cgroup")
            # Only now is it sure that the number was not another process's meanwhile.
            if _has_ended(pidfd):
                _gone(peer)
        finally:
            os.close(pidfd)
    except FileNotFoundError as error:
        raise DeniedError(f"process {peer.pid} has ended or is hidden in {proc}", hint=_HIDDEN_HINT) from error
    except OSError as error:
        if error.errno in {errno.ESRCH, errno.EINVAL}:  # the latter is what SO_PEERPIDFD says of an ended process
            _gone(peer)
        raise DeniedError(f"cannot look at process {peer.pid}: {error.strerror}", hint=_HIDDEN_HINT) from error
    return parse_unit(lines)


def parse_unit(cgroup: str) -> str | None:
    """The system unit in the text of a /proc/PID/cgroup, see cgroups(7).

    Raises:
        DeniedError: the process is outside the cgroup namespace that we see.
    """
    found: set[str | None] = set()
    # Not splitlines(): the kernel keeps only line feeds out of names, and anybody may name a delegated cgroup.
    for line in cgroup.split("\n"):
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        # Version 2, or systemd's own version 1 hierarchy. On hybrid systems either may stand at the root, unused.
        if (hierarchy, controllers) == ("0", "") or controllers == "name=systemd":
            if ".." in path.split("/"):
                raise DeniedError(
                    "the process is in a cgroup that the agent does not see",
                    hint="set no ProtectControlGroups=private or =strict in the agent's unit",
                )
            if path != "/":
                found.add(_unit_in(path))
    return found.pop() if len(found) == 1 else None


def _unit_in(path: str) -> str | None:
    # Only systemd and root make cgroups above a unit; what is below one may be delegated, and named by anybody.
    for component in path.removeprefix("/").split("/"):
        name = component.removeprefix(_ESCAPE)
        if not _SLICE.fullmatch(name):
            return name if _UNIT.fullmatch(name) else None
    return None


def _groups(connection: socket.socket) -> frozenset[int]:
    # socket.getsockopt() takes 1024 bytes at most, which is 256 groups.
    gid_type = ctypes.c_uint32
    count = 64
    while count <= _MAX_GROUPS:
        buffer = (gid_type * count)()
        length = ctypes.c_uint32(ctypes.sizeof(buffer))
        if _libc.getsockopt(
            connection.fileno(), socket.SOL_SOCKET, _SO_PEERGROUPS, ctypes.byref(buffer), ctypes.byref(length)
        ):
            number = ctypes.get_errno()
            if number != errno.ERANGE:
                raise OSError(number, os.strerror(number))
            count = length.value // ctypes.sizeof(gid_type)
            continue
        return frozenset(buffer[: length.value // ctypes.sizeof(gid_type)])
    raise OSError(errno.ERANGE, os.strerror(errno.ERANGE))


def _open_process(connection: socket.socket, peer: Peer, proc: Path) -> int:
    """A pidfd of the peer's process; the caller closes it."""
    try:
        return connection.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT:
            raise
    pidfd = os.pidfd_open(peer.pid)
    try:
        _check_identity(peer, proc)
    except BaseException:
        os.close(pidfd)
        raise
    return pidfd


def _check_identity(peer: Peer, proc: Path) -> None:
    """See that the process with the peer's number, which is held by a pidfd, is the one that connected."""
    directory = proc / str(peer.pid)
    # The command's name in parentheses may hold anything, so count from its end. Field 22, proc(5).
    fields = _read(directory / "stat").rpartition(")")[2].split()
    try:
        started_ticks = int(fields[19])
    except (ValueError, IndexError):
        raise DeniedError(f"{directory}/stat is not as proc(5) has it", hint=_HIDDEN_HINT) from None
    # The directory belongs to the effective user, unlike most files in it, even if nobody may trace the process.
    if started_ticks > peer.seen_ticks or directory.stat().st_uid != peer.uid:
        _gone(peer)


def _has_ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def _gone(peer: Peer) -> NoReturn:
    raise DeniedError(f"the process that connected, number {peer.pid}, has ended", hint=_GONE_HINT)


def _read(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(_MAX_PROC_BYTES + 1)
    if len(content) > _MAX_PROC_BYTES:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return content.decode(errors="replace")
