"""Nothing secret reaches a disk, an argument, an environment, a log or the wrong socket: watched by strace."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mover.sandbox.agent import Agent
from mover.sandbox.process import ServerProcess
from tests.integration.proxyagent.conftest import AgentMaker
from tests.integration.proxyagent.test_module import is_listening, processes, wait_until

SECONDS = 60.0
WRITING = re.compile(r"\b(O_WRONLY|O_RDWR|O_CREAT|O_TMPFILE|O_TRUNC|O_APPEND)\b")
CHANGING = re.compile(r"^\d+ +(creat|rename\w*|mkdir\w*|link\w*|symlink\w*|mknod\w*|truncate)\(")
# write(3</memfd:proxy (deleted)>, … or sendto(4<UNIX-STREAM:[1->2]>, …
MEMORY_OR_SOCKET = re.compile(r"^\d+ +(write\(\d+</memfd:|(sendto|sendmsg)\(\d+<UNIX-STREAM:)")


def strace(output: Path) -> list[str]:
    if shutil.which("strace") is None:
        pytest.skip("needs the package strace")
    calls = "trace=%file,write,writev,pwrite64,sendto,sendmsg"
    return ["strace", "-f", "-yy", "-s", "65536", "-e", calls, "-o", str(output)]


def environment(agent: Agent) -> dict[str, str]:
    return {**os.environ, **agent.dongle.environment, "PYTHONDONTWRITEBYTECODE": "1"}


def run(agent: Agent, output: Path, *arguments: str, stdin: str = "") -> str:
    done = subprocess.run(
        [*strace(output), *agent.command(*arguments)],
        input=stdin,
        env=environment(agent),
        capture_output=True,
        check=True,
        timeout=SECONDS,
        text=True,
    )
    return done.stdout + done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to watch a process that hides its memory")
def test_a_whole_cycle_writes_no_file_and_no_secret(start_agent: AgentMaker, tmp_path: Path) -> None:
    agent = start_agent(unlock=False)
    agent.halt()
    traces = [tmp_path / name for name in ("serve", "renew", "exec")]
    command = [*strace(traces[0]), *agent.command("serve")]
    server = ServerProcess(
        "traced", command, directory=agent.directory, package="strace", environment=environment(agent)
    )
    server.start(lambda log: "proxyagent listens on" in log, seconds=SECONDS)
    try:
        said = run(agent, traces[1], "renew", stdin=f"{agent.dongle.pin}\n")
        said += run(agent, traces[2], "exec", "--", "true")
        (pid,) = (pid for pid in processes("proxyagent", agent) if b"strace" not in _arguments(pid))
        os.kill(pid, signal.SIGTERM)
        said += server.logged()
    finally:
        server.stop()
    lines = [line for trace in traces for line in trace.read_text(errors="replace").splitlines()]
    text = "\n".join(lines)
    # The watching works: SoftHSM was seen to read its configuration, and the proxy to be written to memory.
    assert "softhsm2.conf" in text
    assert "BEGIN RSA PRIVATE KEY" in text
    # The audit log is written on purpose; what is in it is held against the secrets below, as every write is.
    audit = (f'{agent.directory}"', f"{agent.directory}/audit-", "audit-")
    allowed = (str(agent.dongle.directory / "tokens"), "/dev/null", *audit)
    for line in lines:
        if CHANGING.match(line) or (WRITING.search(line) and " = -1 " not in line):
            assert any(f'"{path}' in line for path in allowed), line
        if "PRIVATE KEY" in line or agent.dongle.pin in line:
            assert MEMORY_OR_SOCKET.match(line), line
        if "PRIVATE KEY" in line:
            assert "UNIX-STREAM" not in line, line
    for file in agent.directory.glob("audit-*"):
        assert agent.dongle.pin not in file.read_text()
    assert agent.dongle.pin not in said
    assert "PRIVATE KEY" not in said


def test_processes_keep_their_memory_and_have_no_secret_in_sight(agent: Agent) -> None:
    found = processes("proxyagent", agent) + processes("proxyagent.hsm_helper", agent)
    assert len(found) == 2
    for pid in found:
        status = Path(f"/proc/{pid}/status").read_text()
        assert "NoNewPrivs:\t1" in status
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert re.search(r"^Max core file size +0 +0 ", limits, re.MULTILINE)
        pin = agent.dongle.pin.encode()
        if os.geteuid() == 0:  # nobody else may look
            assert pin not in Path(f"/proc/{pid}/environ").read_bytes()
        assert pin not in b"".join(_arguments(pid))


def test_another_process_of_the_same_user_cannot_read_their_memory(start_agent: AgentMaker) -> None:
    agent = start_agent(unlock=False)
    agent.halt()
    # Root reads everything by its capabilities: do without them, on both sides.
    plain = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--"] if os.geteuid() == 0 else []

    def can_read(pid: int) -> bool:
        reader = [*plain, sys.executable, "-c", f"open('/proc/{pid}/mem', 'rb')"]
        return subprocess.run(reader, stderr=subprocess.DEVNULL, check=False, timeout=SECONDS).returncode == 0

    with (
        subprocess.Popen([*plain, *agent.command("serve")], env=environment(agent)) as server,
        subprocess.Popen([*plain, "sleep", str(SECONDS)]) as other,
    ):
        try:
            wait_until(lambda: is_listening(agent.socket))
            agent.unlock()
            (helper,) = processes("proxyagent.hsm_helper", agent)
            assert can_read(other.pid), "this test cannot tell"
            assert not can_read(server.pid)
            assert not can_read(helper)
        finally:
            server.terminate()
            other.kill()


def _arguments(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
