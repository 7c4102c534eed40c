"""A module that tries what no module needs: from inside, it finds every door shut."""

import os
from pathlib import Path

import pytest

from mover.sandbox.dongle import Dongle
from proxyagent.helperprocess import environment_for_module
from proxyagent.hsm import Helper
from tests.integration.proxyagent.conftest import HelperMaker, Shim, log_in
from tests.integration.proxyagent.tools import sign

pytest.importorskip("seccomp", reason="needs the package python3-seccomp")

# What a module needs for its work.
ALLOWED = {"socket-unix", "socket-uevent", "kill-self", "fork"}
# What fails in another way than by EPERM.
OTHERWISE = {"clone3": "ENOSYS", "write": "EFBIG", "open": "EMFILE", "much-memory": "ENOMEM"}
# The doors of the task, so that none is forgotten in shim.c.
AT_LEAST = {"socket-inet", "socket-inet6", "socket-in-disguise", "execve", "ptrace", "process_vm_readv", "bpf"}
AT_LEAST |= {"io_uring_setup", "mount", "unshare", "setns", "keyctl", "userfaultfd", "kexec_load", "perf_event_open"}


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to read a process that nobody else may read")


def status_of(helper: Helper) -> dict[str, str]:
    lines = Path(f"/proc/{helper.pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_every_door_is_shut(dongle: Dongle, start_helper: HelperMaker, shim: Shim) -> None:
    helper = start_helper()
    helper.describe()
    assert helper.confined
    shim.set("attack")
    helper.describe()
    tried = dict(line.split() for line in (shim.directory / "attacked").read_text().splitlines())
    wanted = {name: "done" if name in ALLOWED else OTHERWISE.get(name, "EPERM") for name in tried}
    assert tried == wanted
    assert tried.keys() >= AT_LEAST | ALLOWED | OTHERWISE.keys()
    assert (shim.directory / "big").stat().st_size == 1 << 20
    # It was denied, not killed: the dongle works on.
    shim.clear("attack")
    log_in(helper, dongle)


@as_root
def test_the_process_is_alone_and_has_nothing_of_the_agents(
    dongle: Dongle, start_helper: HelperMaker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_SECRET", "of the agent")
    with (tmp_path / "open").open("w") as file:
        file.fileno()
        helper = start_helper()
        helper.describe()
        descriptors = {str(each.readlink()) for each in Path(f"/proc/{helper.pid}/fd").iterdir()}
    assert str(tmp_path / "open") not in descriptors
    status = status_of(helper)
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    assert status["NSsid"].split()[0] == str(helper.pid)
    assert Path(f"/proc/{helper.pid}/cwd").readlink() == Path("/")
    environment = Path(f"/proc/{helper.pid}/environ").read_bytes().split(b"\0")
    assert not [each for each in environment if b"AWS_SECRET" in each]
    assert f"SOFTHSM2_CONF={dongle.environment['SOFTHSM2_CONF']}".encode() in environment


@as_root
def test_no_pin_outlives_the_login_in_the_modules_process(dongle: Dongle, start_helper: HelperMaker) -> None:
    helper = start_helper()
    log_in(helper, dongle)
    sign(helper)
    pid = helper.pid
    assert pid is not None
    assert appears_in_memory(pid, dongle.directory.name.encode()), "the search finds what is there"
    assert not appears_in_memory(pid, dongle.pin.encode())


def appears_in_memory(pid: int, text: bytes) -> bool:
    with Path(f"/proc/{pid}/maps").open() as maps, Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in maps:
            span, flags, *_, name = line.split()
            if not flags.startswith("r") or name.startswith("[v"):
                continue
            first, end = (int(each, 16) for each in span.split("-"))
            memory.seek(first)
            if text in memory.read(end - first):
                return True
    return False


def test_the_environment_is_what_modules_are_configured_by() -> None:
    given = {
        "HOME": "/home/x",
        "LANG": "C.UTF-8",
        "LC_ALL": "C",
        "SOFTHSM2_CONF": "/etc/softhsm2.conf",
        "OPENSC_CONF": "/etc/opensc.conf",
        "PCSCLITE_CSOCK_NAME": "/run/pcscd",
        "P11_KIT_STRICT": "1",
    }
    others = {
        "PATH": "/home/x/bin",
        "LD_PRELOAD": "/x/x.so",
        "LD_LIBRARY_PATH": "/x",
        "PYTHONPATH": "/x",
        "CREDENTIALS_DIRECTORY": "/run/credentials/x",
        "X509_USER_PROXY": "/x/x509up_u0",
        "OPENSC_DEBUG": "9",
        "PCSCLITE_DEBUG": "0",
        "P11_KIT_DEBUG": "all",
        "PKCS11SPY_OUTPUT": "/x/pins",
    }
    assert environment_for_module({**given, **others}) == {**given, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
