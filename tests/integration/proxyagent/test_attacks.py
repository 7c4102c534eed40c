"""What others on the box try against the agent and its clients: each is tried here, and refused."""

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from mover.sandbox.agent import Agent
from mover.sandbox.dongle import Dongle
from proxyagent.client import agent_status, obtain_proxy, unlock_agent
from proxyagent.errors import AgentUnreachableError
from proxyagent.pin import Secret
from tests.integration.proxyagent.conftest import AgentMaker
from tests.integration.proxyagent.test_module import agent_helper, is_listening, processes, wait_until

SECONDS = 30.0
NOBODY = 65534
AS_NOBODY = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"]
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to act as an unprivileged user")

#: Prints what a process of the same uid can take from another one: nothing, if all is well.
ATTACK = """
import ctypes, os, sys
pid = int(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
def attempt(name, action):
    try:
        action()
    except OSError:
        return
    print(name)
def checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
def vm_read():
    class Iovec(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
    buffer = ctypes.create_string_buffer(8)
    local, remote = Iovec(ctypes.addressof(buffer), 8), Iovec(id(pid), 8)
    # An unmapped address is EFAULT, which says that we may look: only EPERM is a refusal.
    if libc.process_vm_readv(pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0) < 0:
        if ctypes.get_errno() == 1:
            raise OSError(1, "")
attempt("fd", lambda: os.listdir(f"/proc/{pid}/fd"))
attempt("mem", lambda: open(f"/proc/{pid}/mem", "rb").close())
attempt("environ", lambda: open(f"/proc/{pid}/environ", "rb").read())
attempt("maps", lambda: open(f"/proc/{pid}/maps", "rb").read())
attempt("vm_read", vm_read)
attempt("pidfd_getfd", lambda: checked(libc.syscall(438, os.pidfd_open(pid), 0, 0)))
attempt("ptrace", lambda: checked(libc.ptrace(16, pid, None, None)))
"""
#: A process as unprotected as any: the attacks must work on it, or they prove nothing.
VICTIM = "import sys, time; print('ready', flush=True); time.sleep(60)"
#: A mover's credential in its hands, as the engine holds it.
MOVER = """
import os, sys, time
from pathlib import Path
from mover.credential import AgentCredentials, protect_memory
os.setgroups([])
os.setresgid(*[int(sys.argv[3])] * 3)
os.setresuid(*[int(sys.argv[3])] * 3)
protect_memory()
proxy = AgentCredentials(Path(sys.argv[1]), sys.argv[2], 600).proxy()
print('ready', flush=True)
time.sleep(60)
"""


def attack(pid: int) -> set[str]:
    done = subprocess.run(
        [*AS_NOBODY, "/usr/bin/python3", "-IS", "-c", ATTACK, str(pid)],
        capture_output=True,
        check=True,
        timeout=SECONDS,
        text=True,
    )
    return set(done.stdout.split())


@contextmanager
def running(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A process that has said 'ready'."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def test_the_attacks_work_on_a_process_that_does_not_protect_itself() -> None:
    with running([*AS_NOBODY, "/usr/bin/python3", "-IS", "-c", VICTIM]) as victim:
        found = attack(victim.pid)
    expected = {"fd", "mem", "environ", "maps"}
    if Path("/proc/sys/kernel/yama/ptrace_scope").exists():
        scope = int(Path("/proc/sys/kernel/yama/ptrace_scope").read_text())
    else:
        scope = 0
    assert found >= (expected | {"vm_read", "pidfd_getfd", "ptrace"} if scope == 0 else expected)


SERVE_AS_NOBODY = """
import os, runpy, sys
import proxyagent.cli.serve, proxyagent.hsm, proxyagent.agent
uid = int(sys.argv[1])
os.setgroups([])
os.setresgid(uid, uid, uid)
os.setresuid(uid, uid, uid)
sys.argv = ["proxyagent", *sys.argv[2:]]
runpy.run_module("proxyagent", run_name="__main__")
"""


@pytest.fixture
def nobodys(start_agent: AgentMaker, dongle: Dongle) -> Agent:
    """An agent that does not run yet, whose files are an unprivileged user's."""
    readable = subprocess.run(
        [*AS_NOBODY, sys.executable, "-P", "-c", "import proxyagent.hsm_helper"],
        check=False,
        timeout=SECONDS,
        capture_output=True,
    )
    if readable.returncode != 0:
        pytest.skip("needs a checkout that other users may read")
    agent = start_agent(settings='socket_mode = "0666"', profiles=f'[[profile]]\nname = "theirs"\nuids = [{NOBODY}]')
    agent.halt()
    for top in (agent.directory, dongle.directory):
        for path in (top, *top.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
    for parent in (*agent.directory.parents, *dongle.directory.parents):
        if parent.stat().st_mode & 0o001 == 0:
            parent.chmod(0o711)
    agent.directory.chmod(0o711)
    return agent


def serve_as_nobody(agent: Agent) -> list[str]:
    return [sys.executable, "-P", "-c", SERVE_AS_NOBODY, str(NOBODY), *agent.command("serve")[4:]]


@pytest.fixture
def nobodys_agent(nobodys: Agent, dongle: Dongle) -> Iterator[Agent]:
    """An agent that runs as an unprivileged user, and has made its socket itself."""
    environment = {**os.environ, **dongle.environment}
    with subprocess.Popen(serve_as_nobody(nobodys), stdout=subprocess.PIPE, env=environment) as server:
        try:
            assert server.stdout is not None
            assert b"listens on" in server.stdout.readline()
            yield nobodys
        finally:
            server.terminate()


def test_the_user_of_a_service_may_not_unlock_it_and_root_may(nobodys: Agent) -> None:
    activate = shutil.which("systemd-socket-activate")
    if activate is None:
        pytest.skip("needs the package systemd")
    settings = [f"--setenv={name}={value}" for name, value in nobodys.dongle.environment.items()]
    command = [activate, f"--listen={nobodys.socket}", *settings, *serve_as_nobody(nobodys)]
    with ExitStack() as stack:
        server = stack.enter_context(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        stack.callback(server.kill)
        wait_until(lambda: is_listening(nobodys.socket))
        nobodys.socket.chmod(0o666)
        for arguments in (("renew",), ("pin", "retry")):
            refused = subprocess.run(
                [*AS_NOBODY, *nobodys.command(*arguments)],
                input=f"{nobodys.dongle.pin}\n",
                capture_output=True,
                check=False,
                timeout=SECONDS,
                text=True,
            )
            assert refused.returncode == 6, refused.stderr
            assert f"error: uid {NOBODY} may not " in refused.stderr
            assert "hint: run this as root" in refused.stderr
        nobodys.unlock()


def unlock_as_nobody(agent: Agent) -> None:
    done = subprocess.run(
        [*AS_NOBODY, *agent.command("renew")],
        input=f"{agent.dongle.pin}\n",
        capture_output=True,
        check=False,
        timeout=SECONDS,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_the_agents_own_user_sees_nothing_of_agent_and_helper(nobodys_agent: Agent) -> None:
    unlock_as_nobody(nobodys_agent)
    (helper,) = agent_helper(nobodys_agent)
    (server,) = server_of(nobodys_agent)
    assert Path(f"/proc/{server}").stat().st_uid in {0, NOBODY}
    for pid in (server, helper):
        assert attack(pid) == set(), pid


def server_of(agent: Agent) -> list[int]:
    """The process that listens: the child of ours with this configuration."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                arguments = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if str(agent.config).encode() in arguments and arguments[-2:] == [b"serve", b""]:
                found.append(int(entry.name))
    return found


def test_the_movers_own_user_sees_nothing_of_its_proxies(start_agent: AgentMaker) -> None:
    agent = start_agent(settings='socket_mode = "0666"', profiles=f'[[profile]]\nname = "theirs"\nuids = [{NOBODY}]')
    agent.directory.chmod(0o711)
    command = [sys.executable, "-P", "-c", MOVER, str(agent.socket), "theirs", str(NOBODY)]
    with running(command) as mover:
        assert attack(mover.pid) == set()


def test_a_client_tells_a_squatter_nothing(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    received = []
    with socket.socket(socket.AF_UNIX) as squatter:
        # The credentials that a client sees are those of the moment of listen().
        squatter.bind(str(path))
        listening = threading.Event()

        def listen() -> None:
            set_thread_uid(NOBODY)
            squatter.listen()
            listening.set()

        thread = threading.Thread(target=listen)
        thread.start()
        thread.join(SECONDS)
        assert listening.is_set()
        squatter.settimeout(SECONDS)
        calls = (
            lambda: obtain_proxy(path, "mover", 60, timeout_seconds=SECONDS),
            lambda: agent_status(path, timeout_seconds=SECONDS),
            lambda: unlock_agent(path, Secret(bytearray(b"12345678")), timeout_seconds=SECONDS),
        )
        for call in calls:
            with pytest.raises(AgentUnreachableError, match=f"belongs to uid {NOBODY}") as caught:
                call()
            assert "nothing was sent" in caught.value.hint
            connection, _ = squatter.accept()
            with connection:
                received.append(connection.recv(1000))
    assert received == [b""] * len(calls)


def set_thread_uid(uid: int) -> None:
    """Change the uid of this thread only: the system call itself, without the C library, which changes them all."""
    libc = ctypes.CDLL(None, use_errno=True)
    setresuid = 117 if os.uname().machine == "x86_64" else 147
    assert libc.syscall(setresuid, -1, uid, -1) == 0


@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGSEGV])
def test_a_crash_leaves_no_core(agent: Agent, tmp_path: Path, number: signal.Signals) -> None:
    if not dumps_core("import os; os.abort()", tmp_path):
        pytest.skip("this system dumps no cores at all")
    preamble = "from proxyagent.hardening import harden_process; harden_process()"
    assert not dumps_core(f"{preamble}; import os; os.kill(os.getpid(), {int(number)})", tmp_path)
    # The running agent, too: its limits are those of the kernel's view.
    (server,) = processes("proxyagent", agent)
    (helper,) = agent_helper(agent)
    for pid in (server, helper):
        assert "Max core file size        0                    0" in Path(f"/proc/{pid}/limits").read_text()


def dumps_core(code: str, directory: Path) -> bool:
    """Whether a process that dies so dumps its core, with the limit raised as far as it goes."""
    with subprocess.Popen(
        ["sh", "-c", 'ulimit -c unlimited; exec "$@"', "sh", sys.executable, "-P", "-c", code], cwd=directory
    ) as process:
        _, status = os.waitpid(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert os.WIFSIGNALED(status)
    return os.WCOREDUMP(status)
