"""Sealed memory files."""

import os
import stat
from pathlib import Path

import pytest

from proxyagent.memfd import sealed_memfd


def test_a_sealed_file_can_be_read_again_and_again_and_never_changed() -> None:
    content = os.urandom(100_000)
    descriptor = sealed_memfd("test", content)
    try:
        path = Path(f"/proc/self/fd/{descriptor}")
        assert path.read_bytes() == content
        assert path.read_bytes() == content
        assert stat.S_IMODE(os.fstat(descriptor).st_mode) == 0o600
        assert not os.get_inheritable(descriptor)
        for change in (
            lambda: os.pwrite(descriptor, b"x", 0),
            lambda: os.ftruncate(descriptor, 0),
            lambda: os.ftruncate(descriptor, 200_000),
        ):
            with pytest.raises(PermissionError):
                change()
    finally:
        os.close(descriptor)
