"""Files with names that we would never give, put straight onto a real server's disk."""

import os
from pathlib import Path
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


@pytest.mark.parametrize("kind", DISKS)
def test_unsafe_names_are_not_listed(site: Site, kind: str) -> None:
    endpoint = site.endpoint(kind, site.base_url(kind))
    unsafe = [b"with space", b"a<b>&amp;", b"%2e%2e", b"-rf", b"a?xrd.gsiusrpxy=b", "é".encode()]
    if kind == PLAIN:
        unsafe.append(b"\xff\xfe")  # which Apache quotes, unlike others
    folder = _folder(site, kind, *unsafe, b"safe")
    assert [file.path for file in endpoint.list(folder)] == [f"{folder}/safe"]


@pytest.mark.parametrize("kind", sorted({*DISKS} - {PLAIN}))
def test_names_that_are_no_text_are_an_error_of_the_storage(site: Site, kind: str) -> None:
    endpoint = site.endpoint(kind, site.base_url(kind))
    folder = _folder(site, kind, b"\xff\xfe", b"safe")
    with pytest.raises(StorageError):
        endpoint.list(folder)
    found = endpoint.stat(f"{folder}/safe")
    assert found is not None
    assert found.size_bytes == 3
