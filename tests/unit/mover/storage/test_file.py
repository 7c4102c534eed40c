"""What only a mounted disk can have: symlinks, odd files, a full or read-only disk."""

import ctypes
import errno
import os
from pathlib import Path

import pytest

from mover import durable
from mover.errors import (
    AccessDeniedError,
    ConfigError,
    EndpointFullError,
    EndpointUnavailableError,
    FileExistsAtEndpointError,
    ForeignFileError,
    StorageError,
)
from mover.storage import mounted
from mover.storage.file import FileEndpoint


@pytest.fixture
def endpoint(tmp_path: Path) -> FileEndpoint:
    (tmp_path / "disk").mkdir()
    return FileEndpoint(name="disk", base_url=(tmp_path / "disk").as_uri())


def test_symlinks_are_not_followed(endpoint: FileEndpoint, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a").write_bytes(b"theirs")
    (tmp_path / "disk/link").symlink_to(outside)
    (tmp_path / "disk/file").symlink_to(outside / "new")
    with pytest.raises(ForeignFileError):
        endpoint.stat("link/a")
    with pytest.raises(ForeignFileError):
        endpoint.upload("link/b", [b"run"], 3)
    with pytest.raises(FileExistsAtEndpointError):
        endpoint.upload("file", [b"run"], 3)
    with pytest.raises(ForeignFileError):
        endpoint.remove("link/a")
    assert sorted(path.name for path in outside.iterdir()) == ["a"]


def test_only_files_are_listed_whatever_their_names(endpoint: FileEndpoint, tmp_path: Path) -> None:
    endpoint.upload("raw/a", [b"run"], 3)
    (tmp_path / "disk/raw/with space").touch()
    (tmp_path / "disk/raw/-rf").touch()
    os.mkfifo(tmp_path / "disk/raw/pipe")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/disk/raw/\xff\n")).touch()
    assert [file.path for file in endpoint.list("raw")] == ["raw/-rf", "raw/a", "raw/with space", "raw/\udcff\n"]
    with pytest.raises(ForeignFileError):
        endpoint.stat("raw/pipe")


def test_rename_where_the_file_system_cannot_keep_from_replacing(
    endpoint: FileEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    class _Libc:
        def renameat2(self, *_arguments: object) -> int:
            ctypes.set_errno(errno.EINVAL)
            return -1

    monkeypatch.setattr(durable, "_libc", _Libc())
    endpoint.upload("a", [b"run"], 3)
    endpoint.upload("b", [b"other"], 5)
    with pytest.raises(FileExistsAtEndpointError):
        endpoint.rename("a", "b")
    endpoint.rename("a", "c")
    assert [file.path for file in (endpoint.stat(name) for name in "abc") if file] == ["b", "c"]


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, EndpointFullError),
        (errno.EDQUOT, EndpointFullError),
        (errno.EROFS, AccessDeniedError),
        (errno.EIO, EndpointUnavailableError),
        (errno.ESTALE, EndpointUnavailableError),
    ],
)
def test_errors_of_the_kernel(number: int, kind: type[StorageError]) -> None:
    with pytest.raises(kind, match=r"^file:///disk/a: "), mounted.storage_errors("file:///disk/a"):
        raise OSError(number, os.strerror(number))


@pytest.mark.parametrize("base_url", ["file://elsewhere/disk", "file:disk", "/disk", "root://host//disk"])
def test_bad_base_urls(base_url: str) -> None:
    with pytest.raises(ConfigError):
        FileEndpoint(name="disk", base_url=base_url)
