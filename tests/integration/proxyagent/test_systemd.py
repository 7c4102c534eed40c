"""With the real systemd: units that notify, listen and have credentials, and systemd's own programs."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import proxyagent
from proxyagent.peer import server_uid
from proxyagent.systemd import Notifier
from tests.cgroups import Cgroup, ServiceManager

SECONDS = 60.0
# Tells what it was given, in a file, and then serves until it is told to stop.
SERVICE = """
import json, os, select, signal, sys
from proxyagent.errors import ProxyAgentError
from proxyagent.systemd import Notifier, activated_listener, credential, log_formatter

def tell(**found):
    with open(sys.argv[1] + ".new", "w") as file:
        json.dump(found, file)
    os.rename(sys.argv[1] + ".new", sys.argv[1])

try:
    notifier = Notifier()
    listener = activated_listener()
    pin = credential("pin")
except ProxyAgentError as error:
    tell(error=error.message)
    sys.exit(error.exit_code)
tell(
    pin=pin and pin.buffer.decode(),
    watchdog_seconds=notifier.watchdog_seconds,
    inheritable=listener and os.get_inheritable(listener.fileno()),
    blocking=listener and listener.getblocking(),
    left=sorted(name for name in os.environ if name.startswith(("NOTIFY", "WATCHDOG", "LISTEN"))),
)
reader, writer = os.pipe2(os.O_NONBLOCK)
signal.set_wakeup_fd(writer)
signal.signal(signal.SIGTERM, lambda *_: None)
poll = select.poll()
poll.register(reader, select.POLLIN)
if listener:
    poll.register(listener, select.POLLIN)
notifier.status("waits for clients")
notifier.ready()
while True:
    for descriptor, _ in poll.poll(notifier.feed()):
        if descriptor == reader:
            notifier.stopping()
            sys.exit(0)
        connection = listener.accept()[0]
        connection.sendall(b"hello")
        connection.close()
"""


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ServiceManager]:
    cgroup = Cgroup()
    try:
        found = ServiceManager(cgroup, tmp_path)
        try:
            yield found
        finally:
            found.stop()
    finally:
        cgroup.remove()


@pytest.fixture
def command(tmp_path: Path) -> str:
    """The command line of a service that tells what it was given in tmp_path/told."""
    # Neither systemd nor systemd-socket-activate hands PYTHONPATH on.
    tested = str(Path(proxyagent.__file__).parents[1])
    (tmp_path / "service.py").write_text(f"import sys\nsys.path.insert(0, {tested!r})\n{SERVICE}")
    return f"{sys.executable} -P {tmp_path / 'service.py'} {tmp_path / 'told'}"


def told(tmp_path: Path) -> dict[str, object]:
    """What the service told, once it did."""
    deadline = time.monotonic() + SECONDS
    while not (tmp_path / "told").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    found = json.loads((tmp_path / "told").read_text())
    assert isinstance(found, dict)
    return found


def wait_for(manager: ServiceManager, unit: str, name: str, other_than: str) -> str:
    deadline = time.monotonic() + SECONDS
    while (found := manager.property(unit, name)) == other_than:
        assert time.monotonic() < deadline, f"{name} stays {found}"
        time.sleep(0.02)
    return found


def test_systemd_sees_readiness_status_and_watchdog(manager: ServiceManager, command: str, tmp_path: Path) -> None:
    manager.install("t.service", f"[Service]\nType=notify\nWatchdogSec=30\nTimeoutStartSec=60\nExecStart={command}\n")
    manager.control("start", "t.service")  # returns when it is ready
    assert manager.property("t.service", "StatusText") == "waits for clients"
    assert wait_for(manager, "t.service", "WatchdogTimestampMonotonic", "0")
    assert told(tmp_path) == {"pin": None, "watchdog_seconds": 30.0, "inheritable": None, "blocking": None, "left": []}
    manager.control("stop", "t.service")
    assert manager.property("t.service", "Result") == "success"


def test_the_watchdog_is_fed_in_time_and_again(manager: ServiceManager, command: str) -> None:
    manager.install("t.service", f"[Service]\nType=notify\nWatchdogSec=2\nExecStart={command}\n")
    manager.control("start", "t.service")
    before = wait_for(manager, "t.service", "WatchdogTimestampMonotonic", "0")
    wait_for(manager, "t.service", "WatchdogTimestampMonotonic", before)
    assert manager.property("t.service", "ActiveState") == "active"


def test_a_socket_unit_hands_the_listener_over(manager: ServiceManager, command: str, tmp_path: Path) -> None:
    manager.install("t.service", f"[Service]\nType=notify\nExecStart={command}\n")
    manager.install("t.socket", f"[Socket]\nListenStream={tmp_path}/s\nSocketMode=0600\n")
    manager.control("start", "t.socket")
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(SECONDS)
        client.connect(str(tmp_path / "s"))
        assert server_uid(client) == os.getuid()  # of the manager, which listens
        assert client.recv(5) == b"hello"
    assert told(tmp_path)["inheritable"] is False
    assert told(tmp_path)["blocking"] is False
    assert told(tmp_path)["left"] == []


@pytest.mark.parametrize(
    "case",
    [
        ("LoadCredential=pin:{}", b"12 34\n", {"pin": "12 34"}),
        ("SetCredential=pin:1234", b"", {"pin": "1234"}),
        ("LoadCredential=pin:{}", b"", {"error": "the credential 'pin' is empty"}),
        ("LoadCredential=pin:{}", b"x" * 300, {"error": "the credential 'pin' is longer than 255 bytes"}),
        ("SetCredential=other:1234", b"", {"pin": None}),
    ],
)
def test_a_credential_of_the_unit_is_read(
    manager: ServiceManager, command: str, tmp_path: Path, case: tuple[str, bytes, dict[str, object]]
) -> None:
    setting, content, expected = case
    (tmp_path / "sealed").write_bytes(content)
    line = setting.format(tmp_path / "sealed")
    manager.install("t.service", f"[Service]\n{line}\nExecStart={command}\n")
    manager.control("start", "t.service")
    found = told(tmp_path)
    assert {name: found[name] for name in expected} == expected


@pytest.fixture
def activate(tmp_path: Path, command: str) -> list[str]:
    """The command line of systemd-socket-activate for the service, less the sockets."""
    program = shutil.which("systemd-socket-activate")
    if program is None:
        pytest.skip("needs the package systemd")
    return [program, f"--listen={tmp_path}/s", *command.split()]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ([], None),
        (["--fdname=agent"], None),
        (["--listen={}/other", "--fdname=agent:other"], "systemd handed over 2 sockets (agent:other)"),
        (["--datagram"], "systemd handed over another kind of socket than a listening Unix stream socket"),
        (["--seqpacket"], "systemd handed over another kind of socket than a listening Unix stream socket"),
        (["--accept"], "systemd handed over another kind of socket than a listening Unix stream socket"),
    ],
)
def test_only_one_listening_stream_socket_is_taken(
    activate: list[str], tmp_path: Path, options: list[str], error: str | None
) -> None:
    arguments = [activate[0], *(option.format(tmp_path) for option in options), *activate[1:]]
    with subprocess.Popen(arguments, stderr=subprocess.DEVNULL) as process:
        kind = socket.SOCK_STREAM
        if "--datagram" in options:
            kind = socket.SOCK_DGRAM
        elif "--seqpacket" in options:
            kind = socket.SOCK_SEQPACKET
        deadline = time.monotonic() + SECONDS
        with socket.socket(socket.AF_UNIX, kind) as client:
            client.settimeout(SECONDS)
            while True:
                try:
                    client.connect(str(tmp_path / "s"))
                    break
                except (FileNotFoundError, ConnectionRefusedError):
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
            client.send(b"x")
            found = told(tmp_path)
            assert found.get("error") == error
            if error is None:
                assert client.recv(5) == b"hello"
        process.terminate()


def test_what_a_broken_launcher_hands_over_is_told(command: str, tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as network:
        network.bind(("127.0.0.1", 0))
        network.listen()
        for action, reason in (
            ("os.dup2(1, 3)", "no socket: Socket operation on non-socket"),
            ("os.closerange(3, 100)", "no socket: Bad file descriptor"),
            (f"os.dup2({network.fileno()}, 3)", "another kind of socket than a listening Unix stream socket"),
        ):
            launch = f"{action}; os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1')"
            script = f"import os, sys; {launch}; os.execv(sys.argv[1], sys.argv[1:])"
            arguments = [sys.executable, "-c", script, *command.split()]
            subprocess.run(arguments, check=False, timeout=SECONDS, pass_fds=[network.fileno()])
            assert told(tmp_path) == {"error": f"systemd handed over {reason}"}
            (tmp_path / "told").unlink()


def test_we_say_what_systemd_notify_says(tmp_path: Path) -> None:
    if shutil.which("systemd-notify") is None:
        pytest.skip("needs the package systemd")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.settimeout(SECONDS)
        receiver.bind(str(tmp_path / "notify"))
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "PATH": os.defpath}
        notifier = Notifier({**environment, "WATCHDOG_USEC": "1"})
        for arguments, say in (
            (["--ready"], notifier.ready),
            (["--status=all is well"], lambda: notifier.status("all is well")),
            (["STOPPING=1"], notifier.stopping),
            (["WATCHDOG=1"], notifier.feed),
        ):
            subprocess.run(["systemd-notify", "--no-block", *arguments], env=environment, check=True, timeout=SECONDS)
            theirs = receiver.recv(4096)
            say()
            assert receiver.recv(4096) == theirs.rstrip(b"\n")
