"""Uploads through a WebDAV server that sends clients elsewhere, as dCache's and DPM's doors do."""

import zlib
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from mover.errors import StorageError
from mover.model import ChecksumKind
from tests.conformance.door import Answer, door, redirect
from tests.conformance.subjects import Site, remote_subject


def test_body_goes_where_the_door_says(site: Site, tmp_path: Path) -> None:
    subject = remote_subject("davs", site)
    real = urlsplit(subject.base_url)
    with door(site.ca, tmp_path, lambda _method, path: redirect(f"https://{real.netloc}{path}")) as port:
        endpoint = site.endpoint("davs", f"davs://localhost:{port}{real.path}")
        endpoint.upload("raw/a", [b"ev", b"ents"], 6)
    assert subject.open().checksum("raw/a", ChecksumKind.ADLER32) == f"{zlib.adler32(b'events'):08x}"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_door_that_leads_nowhere(site: Site, tmp_path: Path, scheme: str) -> None:
    """In circles, or out of TLS."""

    def answer(method: str, path: str) -> Answer:
        real = urlsplit(site.disk.davs_url)
        if method == "MKCOL":
            return redirect(f"https://{real.netloc}{real.path}/made-for-nothing")
        return redirect(f"{scheme}://localhost:{port}{path}") if method == "PUT" else Answer(404)

    with door(site.ca, tmp_path, answer) as port:
        endpoint = site.endpoint("davs", f"davs://localhost:{port}/disk")
        with pytest.raises(StorageError, match=r"redirect|[Pp]rotocol"):
            endpoint.upload("a", [b"events"], 6)
