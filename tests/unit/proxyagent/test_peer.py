"""Which unit a cgroup is of, and who is at the other end of a socket pair."""

import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyagent import peer as peer_module
from proxyagent.errors import DeniedError
from proxyagent.peer import Peer, parse_unit, peer_of, server_uid, unit_of

NO_SUCH_OPTION = 9999


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("/system.slice/mover.service", "mover.service"),
        ("/system.slice/system-mover.slice/mover@reco-1.service", "mover@reco-1.service"),
        ("/mover.service", "mover.service"),
        ("/init.scope", "init.scope"),
        ("/system.slice/mover.service/payload", "mover.service"),
        ("/system.slice/a.service/system.slice/mover.service", "a.service"),
        ("/machine.slice/machine-a.scope/payload/system.slice/mover.service", "machine-a.scope"),
        ("/user.slice/user-1000.slice/session-3.scope", "session-3.scope"),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/mover.service", "user@1000.service"),
        ("/user.slice/user-1000.slice/user@1000.service/init.scope", "user@1000.service"),
        ("/system.slice/dev-disk-by\\x2dlabel-a.swap", "dev-disk-by\\x2dlabel-a.swap"),
        ("/system.slice/_cpu.service", "cpu.service"),
        ("/_memory.slice/__odd.service", "_odd.service"),
        ("/", None),
        ("/system.slice", None),
        ("/system.slice/", None),
        ("/docker/0123456789abcdef", None),
        ("/lxc/a/system.slice/mover.service", None),
        ("/system.slice/mover.service (deleted)", None),
        ("/system.slice//mover.service", None),
        ("/system.slice/mover.service\x0b", None),
        ("/system.slice/mover", None),
        ("/system.slice/.service", None),
        ("/evil\x0b0::/system.slice/mover.service", None),
        ("/" + "a" * 300 + ".service", None),
    ],
)
def test_a_path_names_the_outermost_unit(path: str, unit: str | None) -> None:
    assert parse_unit(f"0::{path}\n") == unit
    assert parse_unit(f"12:pids:/x\n7:name=systemd:{path}\n3:cpu,cpuacct:/system.slice/other.service\n") == unit


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("", None),
        ("\n", None),
        ("0:cpu:/system.slice/mover.service\n", None),
        ("1::/system.slice/mover.service\n", None),
        ("5:pids:/system.slice/mover.service\n0::/\n", None),
        ("5:name=other:/system.slice/mover.service\n", None),
        ("1:name=systemd:/system.slice/mover.service\n0::/\n", "mover.service"),
        ("1:name=systemd:/\n0::/system.slice/mover.service\n", "mover.service"),
        ("1:name=systemd:/system.slice/mover.service\n0::/system.slice/mover.service\n", "mover.service"),
        ("1:name=systemd:/system.slice/other.service\n0::/system.slice/mover.service\n", None),
        ("1:name=systemd:/elsewhere\n0::/system.slice/mover.service\n", None),
        ("0::/system.slice/a.service\x0b0::/system.slice/mover.service", None),
        ("0::/a.service/x\u20280::/system.slice/mover.service\n", "a.service"),
        ("0::/a.service/x:0::/mover.service\n", "a.service"),
    ],
)
def test_only_the_hierarchies_of_systemd_count(text: str, unit: str | None) -> None:
    assert parse_unit(text) == unit


@pytest.mark.parametrize("path", ["/..", "/../mover.service", "/../../system.slice/mover.service"])
def test_a_cgroup_outside_our_namespace_is_no_unit(path: str) -> None:
    with pytest.raises(DeniedError, match="in a cgroup that the agent does not see"):
        parse_unit(f"0::{path}\n")


@given(st.text())
def test_any_text_is_parsed(text: str) -> None:
    for each in (text, f"0::/{text}", f"0::/system.slice/{text}.service"):
        try:
            unit = parse_unit(each)
        except DeniedError:
            continue
        assert unit is None or "/" not in unit


@pytest.fixture
def connection() -> Iterator[socket.socket]:
    """A connection whose other end is ours."""
    near, far = socket.socketpair()
    with near, far:
        yield near


def test_the_peer_of_a_socket_pair_is_this_process(connection: socket.socket) -> None:
    peer = peer_of(connection)
    assert (peer.pid, peer.uid, peer.gid) == (os.getpid(), os.getuid(), os.getgid())
    assert peer.groups == {os.getgid(), *os.getgroups()}
    assert server_uid(connection) == os.getuid()


@pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET])
def test_what_is_not_connected_has_no_peer(family: socket.AddressFamily) -> None:
    with (
        socket.socket(family, socket.SOCK_STREAM) as lonely,
        pytest.raises(DeniedError, match="does not say who connected: "),
    ):
        peer_of(lonely)


def needs_peerpidfd() -> None:
    if tuple(map(int, re.findall(r"\d+", os.uname().release)[:2])) < (6, 5):
        pytest.skip("needs Linux 6.5")


@pytest.fixture(params=["SO_PEERPIDFD", "pidfd_open"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How the process is found; the second is that of kernels before 6.5, on which the option does not exist."""
    if request.param == "pidfd_open":
        monkeypatch.setattr(peer_module, "_SO_PEERPIDFD", NO_SUCH_OPTION)
    else:
        needs_peerpidfd()


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc with nothing but this process, in mover.service."""
    own = tmp_path / "proc" / str(os.getpid())
    own.mkdir(parents=True)
    (own / "cgroup").write_text("0::/system.slice/mover.service\n")
    (own / "stat").write_bytes(Path("/proc/self/stat").read_bytes())
    return tmp_path / "proc"


def own_file(proc: Path, name: str) -> Path:
    return proc / str(os.getpid()) / name


@pytest.mark.usefixtures("way")
def test_the_unit_is_read_from_proc(connection: socket.socket, proc: Path) -> None:
    assert unit_of(connection, peer_of(connection), proc=proc) == "mover.service"


@pytest.mark.usefixtures("way")
def test_nothing_stays_open(connection: socket.socket, proc: Path) -> None:
    peer = peer_of(connection)
    before = os.listdir("/proc/self/fd")  # noqa: PTH208
    unit_of(connection, peer, proc=proc)
    (own_file(proc, "cgroup")).unlink()
    with pytest.raises(DeniedError):
        unit_of(connection, peer, proc=proc)
    assert os.listdir("/proc/self/fd") == before  # noqa: PTH208


@pytest.mark.usefixtures("way")
def test_a_hidden_process_is_in_nobody_knows_which_unit(connection: socket.socket, tmp_path: Path) -> None:
    with pytest.raises(DeniedError, match=r"has ended or is hidden") as caught:
        unit_of(connection, peer_of(connection), proc=tmp_path)
    assert "ProtectProc=" in caught.value.hint


@pytest.fixture
def old_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_module, "_SO_PEERPIDFD", NO_SUCH_OPTION)


@pytest.mark.usefixtures("old_way")
def test_a_process_that_began_after_the_connection_is_another(connection: socket.socket, proc: Path) -> None:
    now = peer_of(connection)
    before_us = Peer(now.pid, now.uid, now.gid, now.groups, seen_ticks=0)
    before = os.listdir("/proc/self/fd")  # noqa: PTH208
    with pytest.raises(DeniedError, match="the process that connected, number"):
        unit_of(connection, before_us, proc=proc)
    assert os.listdir("/proc/self/fd") == before  # noqa: PTH208


@pytest.mark.usefixtures("old_way")
def test_a_process_of_another_user_is_another(connection: socket.socket, proc: Path) -> None:
    now = peer_of(connection)
    with pytest.raises(DeniedError, match="the process that connected, number"):
        unit_of(connection, Peer(now.pid, now.uid + 1, now.gid, now.groups), proc=proc)


@pytest.mark.usefixtures("old_way")
def test_a_command_may_be_named_as_a_line_of_stat_is_made(connection: socket.socket, proc: Path) -> None:
    pid, _, rest = own_file(proc, "stat").read_text().partition(" ")
    fields = rest.rpartition(")")[2].split()
    fields[19] = str(2**60)  # in the future
    own_file(proc, "stat").write_text(f"{pid} (a) S {'0 ' * 25}) {' '.join(fields)}\n")
    with pytest.raises(DeniedError, match="has ended"):
        unit_of(connection, peer_of(connection), proc=proc)


@pytest.mark.usefixtures("old_way")
@pytest.mark.parametrize("content", ["", "1 (a) S 0", "1 (a) S" + " x" * 30])
def test_a_proc_of_another_form_is_refused(connection: socket.socket, proc: Path, content: str) -> None:
    own_file(proc, "stat").write_text(content)
    with pytest.raises(DeniedError, match="is not as proc"):
        unit_of(connection, peer_of(connection), proc=proc)


def test_files_in_proc_are_bounded(connection: socket.socket, proc: Path) -> None:
    own_file(proc, "cgroup").write_text("0::/system.slice/mover.service\n" + "x" * 65536)
    with pytest.raises(DeniedError, match="File too large"):
        unit_of(connection, peer_of(connection), proc=proc)


def test_ticks_are_those_of_proc() -> None:
    begun = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    near, far = socket.socketpair()
    with near, far:
        seen = peer_of(near).seen_ticks
    assert begun <= seen <= time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK")
