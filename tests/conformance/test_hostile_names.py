"""Files with names that we would never give, put straight onto a real server's disk."""

import os
from pathlib import Path
from urllib.parse import unquote
from uuid import uuid4

import pytest

from mover.errors import StorageError
from mover.sandbox.process import give_to, server_user
from tests.conformance.subjects import DISKS, PLAIN, Site, server_account


def _folder(site: Site, kind: str, *names: bytes) -> str:
    """The name of a new directory at the disk of that kind with files of these names."""
    folder = site.server(kind).disk_directory / uuid4().hex
    folder.mkdir()
    for name in names:
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(b"run")
    give_to(server_user(server_account(kind)), folder)
    return folder.name


_TEXT = ("with space", "a<b>&amp;", "-rf", "a?xrd.gsiusrpxy=b", "é", "t\tb", "\u202e", "safe")


@pytest.mark.parametrize("kind", DISKS)
def test_files_with_names_that_we_would_never_give_are_listed(site: Site, kind: str) -> None:
    endpoint = site.endpoint(kind, site.base_url(kind))
    folder = _folder(site, kind, *(name.encode() for name in _TEXT))
    listed = [file.path for file in endpoint.list(folder)]
    if kind == PLAIN:
        listed = [unquote(path) for path in listed]  # Apache quotes them once more than others
    assert sorted(listed) == sorted(f"{folder}/{name}" for name in _TEXT)


@pytest.mark.parametrize("kind", DISKS)
def test_directories_with_such_names_are_not(site: Site, kind: str) -> None:
    endpoint = site.endpoint(kind, site.base_url(kind))
    folder = _folder(site, kind)
    for name in _TEXT:
        (site.server(kind).disk_directory / folder / name).mkdir()
    assert endpoint.directories(folder) == ("safe",)


@pytest.mark.parametrize("kind", ["root", "roots", "gsiftp"])
def test_a_name_that_is_no_text_is_left_out(site: Site, kind: str) -> None:
    endpoint = site.endpoint(kind, site.base_url(kind))
    folder = _folder(site, kind, b"\xff\xfe", b"safe")
    assert [file.path for file in endpoint.list(folder)] == [f"{folder}/safe"]


@pytest.mark.parametrize(
    ("kind", "name"), [("root", b"a\nb"), ("roots", b"a\nb"), ("gsiftp", b"a\nb"), ("davs", b"\x1b"), ("davs", b"\xff")]
)
def test_a_name_that_breaks_the_protocol_hides_the_listing_but_not_the_file(site: Site, kind: str, name: bytes) -> None:
    endpoint = site.endpoint(kind, site.base_url(kind))
    folder = _folder(site, kind, name, b"safe")
    with pytest.raises(StorageError):
        endpoint.list(folder)
    found = endpoint.stat(f"{folder}/safe")
    assert found is not None
    assert found.size_bytes == 3
