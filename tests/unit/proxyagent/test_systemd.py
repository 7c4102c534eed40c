"""The protocols of systemd, as far as no systemd is needed for them."""

import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyagent.errors import ConfigError
from proxyagent.systemd import JournalFormatter, Notifier, activated_listener, credential, log_formatter

OWN = str(os.getpid())
SECONDS = 60.0
MEMORY = Path("/dev/shm")  # noqa: S108  # a tmpfs, as credentials lie on


@pytest.fixture(params=["path", "abstract"])
def receiver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A socket in systemd's place, and its name."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@test-{OWN}-{tmp_path.name}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as found:
        found.settimeout(SECONDS)
        found.bind(name.replace("@", "\0", 1) if name[0] == "@" else name)
        yield found, name


def test_systemd_is_told(receiver: tuple[socket.socket, str]) -> None:
    found, name = receiver
    environment = {"NOTIFY_SOCKET": name, "OTHER": "1"}
    notifier = Notifier(environment)
    assert environment == {"OTHER": "1"}  # no child may speak for us
    assert notifier.watchdog_seconds is None
    assert notifier.feed() is None
    notifier.ready()
    notifier.status("session until 18:40\nMAINPID=1\0" + "é" * 1000)
    notifier.stopping()
    said = [found.recv(4096).decode() for _ in range(3)]
    assert said == ["READY=1", "STATUS=session until 18:40?MAINPID=1?" + "é" * 226, "STOPPING=1"]


def test_the_watchdog_is_fed_when_it_is_time(receiver: tuple[socket.socket, str]) -> None:
    found, name = receiver
    environment = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "3600000000", "WATCHDOG_PID": OWN}
    notifier = Notifier(environment)
    assert not environment
    assert notifier.watchdog_seconds == 3600.0
    assert notifier.feed() == 1_800_000
    assert found.recv(100) == b"WATCHDOG=1"
    left = notifier.feed()
    assert left is not None
    assert 0 < left <= 1_800_000
    found.setblocking(False)
    with pytest.raises(BlockingIOError):
        found.recv(100)


def test_a_hungry_watchdog_is_fed_each_time(receiver: tuple[socket.socket, str]) -> None:
    found, name = receiver
    notifier = Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "1"})
    for _ in range(3):
        assert notifier.feed() == 1
        assert found.recv(100) == b"WATCHDOG=1"


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}, {"WATCHDOG_USEC": "5", "WATCHDOG_PID": "1"}])
def test_nobody_is_told_who_did_not_ask(environment: dict[str, str]) -> None:
    notifier = Notifier(environment)
    assert "WATCHDOG_PID" not in environment
    notifier.ready()
    assert notifier.feed() is None


def test_a_systemd_that_is_gone_stops_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "none")}).ready()
    assert caplog.messages == ["cannot tell systemd READY=1: [Errno 2] No such file or directory"]


def test_a_systemd_that_does_not_read_stops_nobody(
    receiver: tuple[socket.socket, str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxyagent.systemd._SEND_SECONDS", 0.01)
    notifier = Notifier({"NOTIFY_SOCKET": receiver[1]})
    while not caplog.messages:
        notifier.ready()
    assert caplog.messages == ["cannot tell systemd READY=1: timed out"]


@pytest.mark.parametrize("name", ["vsock:2:1234", "relative", "/", "@", "/" + "x" * 107])
def test_an_address_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="which is no Unix socket"):
        Notifier({"NOTIFY_SOCKET": name})


@pytest.mark.parametrize("interval", ["-1", "x", "1.5", "9" * 16, "\u0661"])
def test_an_interval_that_is_none_is_refused(interval: str) -> None:
    with pytest.raises(ConfigError, match="which is no number"):
        Notifier({"WATCHDOG_USEC": interval})


# An activated socket. The real systemd-socket-activate is in the integration tests.


@pytest.mark.parametrize("environment", [{}, {"LISTEN_FDS": "1"}, {"LISTEN_FDS": "1", "LISTEN_PID": "1"}])
def test_sockets_of_others_are_left_alone(environment: dict[str, str]) -> None:
    assert activated_listener(environment) is None
    assert not environment


def test_no_socket_is_none() -> None:
    assert activated_listener({"LISTEN_FDS": "0", "LISTEN_PID": OWN}) is None


@pytest.mark.parametrize("count", ["", "-1", "x", "9" * 16])
def test_a_number_of_sockets_that_is_none_is_refused(count: str) -> None:
    with pytest.raises(ConfigError, match=r"LISTEN_FDS is .* which is no number"):
        activated_listener({"LISTEN_FDS": count, "LISTEN_PID": OWN})


def test_too_many_sockets_are_refused_with_their_names() -> None:
    script = (
        "import os; from proxyagent.systemd import *\n"
        "from proxyagent.errors import ConfigError\n"
        "try: activated_listener({'LISTEN_PID': str(os.getpid()), 'LISTEN_FDS': '9999', 'LISTEN_FDNAMES': 'a:b\\n'})\n"
        "except ConfigError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "systemd handed over 9999 sockets (a:b?)\n"


# Credentials


@pytest.fixture
def in_memory() -> Iterator[Path]:
    """A directory in memory, as systemd gives it."""
    if not MEMORY.is_dir():
        pytest.skip("needs a tmpfs at /dev/shm")
    directory = MEMORY / f"test-{OWN}-{threading.get_native_id()}"
    directory.mkdir(mode=0o700)
    yield directory
    for path in directory.iterdir():
        path.unlink() if not path.is_dir() else path.rmdir()
    directory.rmdir()


def put(directory: Path, content: bytes, mode: int = 0o400) -> None:
    (directory / "pin").write_bytes(content)
    (directory / "pin").chmod(mode)


@pytest.mark.parametrize(
    ("content", "pin"),
    [
        (b"1234", b"1234"),
        (b"1234\n", b"1234"),
        (b"1234\n\n", b"1234\n"),
        (b"1234\r\n", b"1234\r"),
        (b"x" * 255, b"x" * 255),
        (b"x" * 255 + b"\n", b"x" * 255),
    ],
)
def test_a_credential_is_read(in_memory: Path, content: bytes, pin: bytes) -> None:
    put(in_memory, content)
    secret = credential("pin", {"CREDENTIALS_DIRECTORY": str(in_memory)})
    assert secret is not None
    assert bytes(secret.buffer) == pin


def test_no_credential_is_none(in_memory: Path) -> None:
    assert credential("pin", {}) is None
    assert credential("pin", {"CREDENTIALS_DIRECTORY": ""}) is None
    assert credential("pin", {"CREDENTIALS_DIRECTORY": str(in_memory)}) is None
    assert credential("pin", {"CREDENTIALS_DIRECTORY": str(in_memory / "none")}) is None


@pytest.mark.parametrize(
    ("content", "mode", "reason"),
    [
        (b"", 0o400, "is empty"),
        (b"\n", 0o400, "is empty"),
        (b"x" * 256, 0o400, "is longer than 255 bytes"),
        (b"x" * 256 + b"\n", 0o400, "is longer than 255 bytes"),
        (b"x" * 100_000, 0o400, "is longer than 255 bytes"),
        (b"1234", 0o404, "may be read by everybody"),
        (b"1234", 0o402, "may be read by everybody"),
    ],
)
def test_an_unusable_credential_is_refused(in_memory: Path, content: bytes, mode: int, reason: str) -> None:
    put(in_memory, content, mode)
    with pytest.raises(ConfigError, match=f"the credential 'pin' {reason}") as caught:
        credential("pin", {"CREDENTIALS_DIRECTORY": str(in_memory)})
    assert "1234" not in str(caught.value)


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory"])
def test_a_credential_that_is_no_file_is_refused_at_once(in_memory: Path, kind: str) -> None:
    path = in_memory / "pin"
    if kind == "symlink":
        (in_memory / "other").write_text("1234")
        path.symlink_to(in_memory / "other")
    elif kind == "fifo":
        os.mkfifo(path, 0o600)
    else:
        path.mkdir(0o700)
    with pytest.raises(ConfigError, match=r"Too many levels of symbolic links|is not a file"):
        credential("pin", {"CREDENTIALS_DIRECTORY": str(in_memory)})


def test_a_credential_on_a_disk_is_refused(tmp_path: Path) -> None:
    kind = subprocess.run(["stat", "-f", "-c", "%T", tmp_path], capture_output=True, text=True, check=True).stdout
    if kind.strip() in {"tmpfs", "ramfs"}:
        pytest.skip("needs temporary files on a disk")
    put(tmp_path, b"1234")
    with pytest.raises(ConfigError, match="does not lie in memory, so it may be on a disk"):
        credential("pin", {"CREDENTIALS_DIRECTORY": str(tmp_path)})


@pytest.mark.parametrize("name", ["", ".", "..", "../pin", "a/b", ".hidden", "a\0", "x" * 81, "pin\n"])
def test_a_name_that_is_none_is_refused(in_memory: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be a credential's name"):
        credential(name, {"CREDENTIALS_DIRECTORY": str(in_memory)})


# Levels for the journal


def record(level: int, message: str) -> logging.LogRecord:
    return logging.LogRecord("proxyagent.x", level, __file__, 1, message, None, None)


@pytest.mark.parametrize(
    ("level", "number"),
    [
        (logging.CRITICAL, 2),
        (logging.ERROR, 3),
        (logging.WARNING, 4),
        (logging.INFO, 6),
        (logging.DEBUG, 7),
        (35, 4),
        (0, 7),
    ],
)
def test_lines_carry_their_level(level: int, number: int) -> None:
    assert JournalFormatter().format(record(level, "text")) == f"<{number}>proxyagent.x: text"


@given(st.text(alphabet=st.sampled_from("a<0>\n\r\0\x0b\u2028"), max_size=30))
def test_foreign_text_gets_no_level_of_its_own(text: str) -> None:
    written = JournalFormatter().format(record(logging.INFO, text))
    # As journald breaks it.
    assert all(line.startswith("<6>") for line in written.replace("\0", "\n").split("\n"))


def test_lines_are_shorter_than_what_journald_breaks() -> None:
    written = JournalFormatter().format(record(logging.INFO, "x" * 100_000))
    assert len(written) < 48 * 1024


def test_levels_are_written_only_for_the_journal() -> None:
    script = (
        "import logging, os, sys; from proxyagent.systemd import log_formatter\n"
        "found = os.fstat(2)\n"
        "for add in 0, 1:\n"
        "    journal = {'JOURNAL_STREAM': f'{found.st_dev}:{found.st_ino + add}'}\n"
        "    print(type(log_formatter(journal)).__name__)\n"
        "sys.stderr = None\n"
    )
    command = [sys.executable, "-P", "-c", script]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    assert done.stdout.split() == ["JournalFormatter", "Formatter"]
    assert not isinstance(log_formatter({}), JournalFormatter)
