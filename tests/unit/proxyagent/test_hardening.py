"""What a process does to keep its memory to itself, as the kernel sees it."""

import ctypes
import re
import subprocess
import sys
from pathlib import Path

from proxyagent.hardening import protect_buffer
from proxyagent.pin import Secret

SECONDS = 20.0
STATE = """
import resource
from pathlib import Path
from proxyagent.hardening import harden_process
harden_process()
status = Path("/proc/self/status").read_text()
print("NoNewPrivs:\\t1" in status, resource.getrlimit(resource.RLIMIT_CORE) == (0, 0))
import ctypes
print(ctypes.CDLL(None).prctl(3))
"""


def flags_at(address: int) -> set[str]:
    """The kernel's flags of the memory around an address (proc(5), smaps)."""
    found = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if match := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            found = int(match[1], 16) <= address < int(match[2], 16)
        elif found and line.startswith("VmFlags:"):
            return set(line.split()[1:])
    raise AssertionError("no such memory")


def test_a_pin_is_in_memory_that_is_neither_swapped_nor_dumped() -> None:
    buffer = bytearray(b"12345678")
    with Secret(buffer):
        address = ctypes.addressof((ctypes.c_char * len(buffer)).from_buffer(buffer))
        assert {"lo", "dd"} <= flags_at(address)
    assert buffer == bytes(8)


def test_a_buffer_over_several_pages_is_protected_as_a_whole() -> None:
    buffer = bytearray(3 * 4096)
    assert protect_buffer(buffer)
    address = ctypes.addressof((ctypes.c_char * len(buffer)).from_buffer(buffer))
    for offset in (0, 4096, 8192, len(buffer) - 1):
        assert {"lo", "dd"} <= flags_at(address + offset)
    assert not protect_buffer(bytearray())


def test_a_hardened_process_cannot_be_dumped_and_gains_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", STATE], capture_output=True, check=True, timeout=SECONDS, text=True
    )
    assert done.stdout.split() == ["True", "True", "0"]
