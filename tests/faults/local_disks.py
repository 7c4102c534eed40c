"""Small disks of this machine that fill up or are read-only: tmpfs, mounted for a test."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_SECONDS = 30


@contextmanager
def small_disk(directory: Path, *, megabytes: int) -> Iterator[Path]:
    """An empty file system of that size on `directory`, in the block."""
    directory.mkdir(exist_ok=True)
    mounted = _mount("-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(directory))
    if mounted.returncode != 0:
        pytest.skip(f"this machine may not mount a tmpfs: {mounted.stderr.strip()}")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True, timeout=_SECONDS)


def set_read_only(directory: Path, *, read_only: bool) -> None:
    """Mount the small disk anew, for reading only or for writing too."""
    done = _mount("-o", f"remount,{'ro' if read_only else 'rw'}", str(directory))
    assert done.returncode == 0, done.stderr


def fill(directory: Path) -> Path:
    """Fill the disk to its last byte; removing the returned file makes room again."""
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as file:
        for block in (1 << 20, 4096, 1):
            try:
                while file.write(bytes(block)) == block:
                    pass
            except OSError:
                continue
    return filler


def _mount(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["mount", *arguments], capture_output=True, text=True, timeout=_SECONDS, check=False)
