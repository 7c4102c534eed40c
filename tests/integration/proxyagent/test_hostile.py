"""Misuse by users of the box: what they exhaust, send, plug in or interrupt never costs a session or an explanation."""

import contextlib
import ctypes
import json
import os
import pty
import resource
import select
import signal
import socket
import struct
import subprocess
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from mover.sandbox.agent import Agent
from mover.sandbox.dongle import Dongle
from proxyagent.client import agent_status, obtain_proxy
from proxyagent.connection import ask
from proxyagent.errors import BusyError, ProtocolError
from tests.integration.proxyagent.conftest import AgentMaker, Shim, robot_status
from tests.integration.proxyagent.test_module import processes, wait_until

SECONDS = 60.0
PRODUCTION = "/mice/Role=production"
VOMS = f"""
[voms]
uid = {os.geteuid()}
vomses = "/nonexistent"
vomsdir = "/nonexistent"
[[profile]]
name = "production"
identity = "robot"
fqans = ["{PRODUCTION}"]
uids = [{os.geteuid()}]
"""
WANT = {"identity": "robot", "vo": "mice", "fqans": [PRODUCTION]}
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to act as other users")


def run(agent: Agent, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        agent.command(*arguments), input=stdin, capture_output=True, check=False, timeout=SECONDS, text=True
    )


def in_shell(agent: Agent, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script in which "$@" is `proxyagent`."""
    command = ["bash", "-c", script, "bash", *agent.command()]
    return subprocess.run(command, capture_output=True, check=False, timeout=SECONDS, text=True)


@contextlib.contextmanager
def connected(path: Path, count: int) -> Iterator[None]:
    """Hold connections that say nothing."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            connection = stack.enter_context(socket.socket(socket.AF_UNIX))
            connection.settimeout(SECONDS)
            connection.connect(str(path))
        yield


def as_user(uid: int, action: Callable[[], None]) -> int:
    """Do something in a process of another uid; its process id."""
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            action()
        finally:
            os._exit(0)
    return pid


def test_a_shortage_of_threads_costs_connections_and_no_session(agent: Agent) -> None:
    (server,) = processes("proxyagent", agent)
    status = Path(f"/proc/{server}/status").read_text()
    (size_kib,) = (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmSize"))
    # No room for the stack of another thread.
    _, hard = resource.prlimit(server, resource.RLIMIT_AS)
    resource.prlimit(server, resource.RLIMIT_AS, ((size_kib + 2048) * 1024, hard))
    with connected(agent.socket, 8), pytest.raises(BusyError):
        agent_status(agent.socket, timeout_seconds=SECONDS)
    resource.prlimit(server, resource.RLIMIT_AS, (hard, hard))
    obtain_proxy(agent.socket, agent.profile, 60, timeout_seconds=SECONDS).close()


@needs_root
def test_users_who_join_forces_do_not_keep_operators_out(start_agent: AgentMaker) -> None:
    agent = start_agent(settings='socket_mode = "0666"\nmax_connections = 4\nmax_connections_per_user = 2')
    agent.directory.chmod(0o711)
    held, release = os.pipe(), os.pipe()

    def hold() -> None:
        with connected(agent.socket, 2):
            os.write(held[1], b".")
            os.read(release[0], 1)

    users = [as_user(uid, hold) for uid in (65533, 65534)]
    try:
        for _ in users:
            os.read(held[0], 1)
        assert robot_status(agent).session is not None
    finally:
        os.write(release[1], b"..")
        for pid in users:
            os.waitpid(pid, 0)


def test_a_flood_of_bad_requests_does_not_fill_the_log(agent: Agent) -> None:
    for _ in range(50):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(SECONDS)
            connection.connect(str(agent.socket))
            connection.sendall(struct.pack("!I", 1) + b"x")
            connection.recv(1000)
    assert 0 < agent.log.count("a frame that is not JSON") < 30


def test_a_fetchers_reasons_break_neither_status_nor_log(start_agent: AgentMaker) -> None:
    agent = start_agent(profiles=VOMS)
    for text in ("\N{BOMB}" * 2000, "\nproxyagent.audit: audit head 1 forged\x1b[2J"):
        request = {"verb": "voms-deliver", "want": WANT, "kind": "voms", "problem": text, "hint": text}
        body = json.dumps({"version": 1, **request}, ensure_ascii=False).encode()
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(SECONDS)
            connection.connect(str(agent.socket))
            connection.sendall(struct.pack("!I", len(body)) + body)
            assert b"error" not in connection.recv(1000)
        assert robot_status(agent).attributes[0].problem is not None
    assert "\nproxyagent.audit" not in agent.log
    assert "\x1b" not in agent.log


def test_letters_that_are_not_base64_are_told_as_such(start_agent: AgentMaker) -> None:
    agent = start_agent(profiles=VOMS)
    with pytest.raises(ProtocolError, match="not base64"):
        ask(agent.socket, {"verb": "voms-deliver", "want": WANT, "ac": "é"}, None, SECONDS)
    assert "Traceback" not in agent.log


def test_a_full_queue_is_waited_for(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        path = tmp_path / "s"
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(path))
        listener.listen(0)
        waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
        waiting.connect(str(path))
        with pytest.raises(BusyError, match="too many others wait"):
            agent_status(path, timeout_seconds=0.3)


def test_names_on_a_dongle_do_not_reach_the_terminal_by_the_log(
    start_agent: AgentMaker, dongle: Dongle, shim: Shim
) -> None:
    agent = start_agent()
    agent.halt()
    shim.write("serial", "\x1b[2J\x1b[31m")
    agent.start()
    wait_until(lambda: " is in" in agent.log)
    assert "\x1b" not in agent.log


def test_a_right_pin_may_be_suspect_again_after_it_has_logged_in(start_agent: AgentMaker, shim: Shim) -> None:
    agent = start_agent()
    for _ in range(2):
        shim.set("login_rv", 0x30)  # CKR_DEVICE_ERROR
        before = shim.logins
        assert run(agent, "renew", stdin=f"{agent.dongle.pin}\n").returncode != 0
        assert shim.logins == before + 1
        shim.clear("login_rv")
        agent.unlock()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["exec", ""], 4, "command's name is empty"),
        (["pin", "retry", "--identity", "x" * 100], 4, "there is no identity"),
        (["init", "--subject", ""], 3, "is not a name"),
        (["init", "--subject", "CN=\x1b[31m"], 3, "is not a name"),
        (["audit"], 2, "error: Missing command."),
        (["pin"], 2, "error: Missing command."),
    ],
)
def test_odd_arguments_are_refused_in_words(agent: Agent, arguments: list[str], code: int, words: str) -> None:
    done = run(agent, *arguments, stdin=f"{agent.dongle.pin}\n")
    assert (done.returncode, words in done.stderr) == (code, True), done.stderr
    assert "unexpected" not in done.stderr


def test_a_certificate_of_an_unknown_version_is_refused_in_words(agent: Agent, tmp_path: Path) -> None:
    der = agent.dongle.certificate.public_bytes(serialization.Encoding.DER)
    odd = der.replace(bytes.fromhex("a003020102"), bytes.fromhex("a003020107"), 1)
    file = tmp_path / "odd.pem"
    subprocess.run(["openssl", "base64", "-out", str(file)], input=odd, check=True, timeout=SECONDS)
    file.write_text(f"-----BEGIN CERTIFICATE-----\n{file.read_text()}-----END CERTIFICATE-----\n")
    done = run(agent, "init", "--certificate", str(file))
    assert (done.returncode, "is not a certificate" in done.stderr) == (3, True), done.stderr


@pytest.mark.parametrize(
    "change",
    [
        lambda text: f"x = {'9' * 5000}\n{text}",
        lambda text: text.replace('state_directory = "/', 'state_directory = "/\\u0000'),
    ],
    ids=["a huge number", "a zero byte"],
)
def test_an_odd_configuration_is_refused_in_words(start_agent: AgentMaker, change: Callable[[str], str]) -> None:
    agent = start_agent(unlock=False)
    agent.config.write_text(change(agent.config.read_text()))
    done = run(agent, "audit", "verify")
    assert (done.returncode, "unexpected" in done.stderr) == (3, False), done.stderr


def test_the_exit_code_is_told_even_if_no_word_can_be(agent: Agent) -> None:
    shown = in_shell(agent, '"$@" exec --profile nope true 2>/dev/full; echo $?')
    assert (shown.stdout, shown.stderr) == ("4\n", "")


def test_an_agent_serves_without_standard_streams(start_agent: AgentMaker) -> None:
    agent = start_agent(unlock=False)
    agent.halt()
    command = ["bash", "-c", 'exec "$@" <&- >&- 2>&-', "bash", *agent.command("serve")]
    with subprocess.Popen(command) as server:
        try:
            wait_until(lambda: agent.socket.exists() or server.poll() is not None)
            assert robot_status(agent).session is None
        finally:
            server.terminate()
    assert server.returncode == 0


def test_a_command_gets_the_signals_of_any_shell(agent: Agent) -> None:
    done = in_shell(agent, '"$@" exec -- sh -c "yes | head -1"')
    assert (done.stdout, done.stderr) == ("y\n", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_whoever_interrupts_the_pins_entry_sees_what_they_type_next(agent: Agent, number: signal.Signals) -> None:
    libc = ctypes.CDLL(None)
    libc.ptsname.restype = ctypes.c_char_p
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(agent.command()[0], agent.command("renew"))  # noqa: S606 - there is no shell to start it with
    # Open, so that the terminal outlives the command, as a shell's does.
    other = os.open(libc.ptsname(terminal), os.O_RDWR | os.O_NOCTTY)
    try:
        wait_until(lambda: bool(select.select([terminal], [], [], 0)[0]) and not echoes(other))
        os.kill(pid, number)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == (130 if number is signal.SIGINT else -number)
        assert echoes(other)
    finally:
        os.close(other)
        os.close(terminal)


def echoes(terminal: int) -> bool:
    """Whether what is typed is shown."""
    return bool(termios.tcgetattr(terminal)[3] & termios.ECHO)
