"""Who is at the other end: real users, processes that end, and real cgroups and units."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proxyagent import peer as peer_module
from proxyagent.errors import DeniedError
from proxyagent.peer import Peer, peer_of, server_uid, unit_of
from tests.cgroups import Cgroup, ServiceManager

SECONDS = 60.0
NOBODY = 65534
# Connects as whom it is told, and waits until it is hung up on.
CLIENT = """
import os, socket, sys
path, uid, gid, *groups = sys.argv[1:]
os.setgroups([int(group) for group in groups])
os.setgid(int(gid))
os.setuid(int(uid))
connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
connection.connect(path)
connection.recv(1)
"""
# The one that connects ends, and its child keeps the connection.
LEAVES = """
import os, socket, sys
connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
connection.connect(sys.argv[1])
if os.fork():
    os._exit(0)
connection.recv(1)
"""
# A server that listens and then becomes somebody else; it tells by a line when it can be reached.
LISTENS = """
import os, socket, sys
listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
listener.bind(sys.argv[1])
os.chmod(sys.argv[1], 0o666)
os.setuid(int(sys.argv[2]))
listener.listen()
print(flush=True)
listener.accept()[0].recv(1)
"""

Connect = Callable[..., tuple[socket.socket, Peer]]


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Listens where every user can connect: in no directory of pytest's, which it keeps closed."""
    with (
        tempfile.TemporaryDirectory(prefix="peer-") as directory,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as found,
    ):
        path = Path(directory) / "s"
        found.bind(str(path))
        path.chmod(0o666)
        path.parent.chmod(0o755)
        found.listen()
        found.settimeout(SECONDS)
        yield found


@pytest.fixture
def connect(listener: socket.socket) -> Iterator[Connect]:
    """Start a program that connects; all of them end when the test does."""
    processes: list[subprocess.Popen[bytes]] = []
    connections: list[socket.socket] = []

    def start(*command: str) -> tuple[socket.socket, Peer]:
        processes.append(subprocess.Popen(command))
        connection, _ = listener.accept()
        connections.append(connection)
        return connection, peer_of(connection)

    yield start
    for connection in connections:
        connection.close()
    for process in processes:
        process.wait(SECONDS)


@pytest.fixture
def root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to become somebody else")


@pytest.fixture
def cgroup() -> Iterator[Cgroup]:
    found = Cgroup()
    yield found
    found.remove()


@pytest.fixture(params=["SO_PEERPIDFD", "pidfd_open"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """By which the process is found; both give the same on a kernel of 6.5 or later."""
    if request.param == "pidfd_open":
        monkeypatch.setattr(peer_module, "_SO_PEERPIDFD", 9999)


def client(listener: socket.socket, uid: int = 0, gid: int = 0, *groups: int) -> tuple[str, ...]:
    numbers = (str(each) for each in (uid, gid, *groups))
    return (sys.executable, "-P", "-c", CLIENT, str(listener.getsockname()), *numbers)


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("groups", [[], [7], range(100_000, 100_300), range(100_000, 165_536)])
def test_a_peer_has_its_user_and_all_its_groups(
    connect: Connect, listener: socket.socket, groups: list[int], tmp_path: Path
) -> None:
    # More than a command line takes are given as a range.
    command = client(listener, 4_000_000_001, 4_000_000_000, *list(groups)[:300])
    if len(groups) > 300:
        script = CLIENT.replace("[int(group) for group in groups]", f"range({groups[0]}, {groups[-1] + 1})")
        command = (*command[:3], script, *command[4:7])
    _, peer = connect(*command)
    assert (peer.uid, peer.gid) == (4_000_000_001, 4_000_000_000)
    assert peer.groups == {4_000_000_000, *groups}


@pytest.mark.usefixtures("root")
def test_a_client_sees_who_listens(tmp_path: Path) -> None:
    path = tmp_path / "s"
    command = (sys.executable, "-P", "-c", LISTENS, str(path), str(NOBODY))
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(str(path))
            assert server_uid(connection) == NOBODY


@pytest.mark.usefixtures("way")
def test_a_process_that_has_ended_is_in_no_unit_even_if_its_connection_lives(
    connect: Connect, listener: socket.socket
) -> None:
    connection, peer = connect(sys.executable, "-P", "-c", LEAVES, str(listener.getsockname()))
    os.waitid(os.P_PID, peer.pid, os.WEXITED | os.WNOWAIT)  # it is a zombie now: its number is still its own
    with pytest.raises(DeniedError, match="the process that connected, number"):
        unit_of(connection, peer)
    os.waitpid(peer.pid, 0)
    with pytest.raises(DeniedError, match="has ended"):
        unit_of(connection, peer)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("group", "unit"),
    [
        ("mover.service", "mover.service"),
        ("system.slice/system-mover.slice/mover@reco.service", "mover@reco.service"),
        ("system.slice/mover.service/payload/other.service", "mover.service"),
        ("user.slice/user-1000.slice/user@1000.service/app.slice/mover.service", "user@1000.service"),
        ("system.slice/_cpu.service", "cpu.service"),
        ("system.slice/a.service/x\x0b0::/system.slice/mover.service", "a.service"),
        ("system.slice", None),
        ("other/mover.service", None),
    ],
)
def test_the_unit_is_that_of_the_cgroup(
    connect: Connect, listener: socket.socket, cgroup: Cgroup, group: str, unit: str | None
) -> None:
    connection, peer = connect(*cgroup.command(group, *client(listener)))
    assert unit_of(connection, peer) == unit


@pytest.mark.usefixtures("way")
def test_a_process_that_nobody_may_trace_is_seen_all_the_same(
    connect: Connect, listener: socket.socket, cgroup: Cgroup
) -> None:
    harden = "from proxyagent.hardening import harden_process; harden_process()\n"
    script = CLIENT.replace("connection =", f"{harden}connection =")  # becoming somebody else ends the protection
    command = (sys.executable, "-P", "-c", script, *client(listener, NOBODY, NOBODY)[4:])
    connection, peer = connect(*cgroup.command("mover.service", *command))
    assert Path(f"/proc/{peer.pid}/stat").stat().st_uid == 0
    assert unit_of(connection, peer) == "mover.service"


@pytest.mark.usefixtures("way")
def test_the_unit_of_a_service_that_systemd_started(listener: socket.socket, cgroup: Cgroup, tmp_path: Path) -> None:
    manager = ServiceManager(cgroup, tmp_path)
    try:
        script = tmp_path / "client.py"
        script.write_text(CLIENT)
        command = f"{sys.executable} -P {script} {listener.getsockname()} {NOBODY} 0 7"
        manager.install("mover@.service", f"[Service]\nExecStart={command}\n")
        manager.control("start", "--no-block", "mover@reco\\x2d1.service")
        connection, _ = listener.accept()
        with connection:
            peer = peer_of(connection)
            assert peer.uid == NOBODY
            assert peer.groups == {0, 7}
            assert unit_of(connection, peer) == "mover@reco\\x2d1.service"
    finally:
        manager.stop()
