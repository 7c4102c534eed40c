"""What WebDAV servers say of directories, and of names that are taken, between our look and our request.

The door is a double that changes something on the server's disk just before it passes a request on.
"""

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from mover.errors import FileExistsAtEndpointError, FileMissingError, ForeignFileError, StorageError
from mover.ports import StorageEndpoint
from tests.conformance.door import Answer, door, redirect
from tests.conformance.subjects import PLAIN, Site, Subject, adler32_of, remote_subject


class Meddled:
    """An empty directory at the plain server, and an endpoint whose requests are meddled with."""

    def __init__(self, site: Site, subject: Subject) -> None:
        self.folder = site.folder(subject)
        self.real = subject.open()
        self.put = partial(site.store, subject)
        self._netloc = urlsplit(subject.base_url).netloc
        self._meddle: dict[str, Callable[[], object]] = {}
        self.endpoint = self.real

    def once(self, method: str, do: Callable[[], object]) -> None:
        """Before the next request of that method is passed on, do this."""
        self._meddle[method] = do

    def answer(self, method: str, path: str) -> Answer:
        self._meddle.pop(method, int)()
        return redirect(f"https://{self._netloc}{path}")


@pytest.fixture
def meddled(site: Site, tmp_path: Path) -> Iterator[Meddled]:
    subject = remote_subject(PLAIN, site)
    with subject.closing:
        made = Meddled(site, subject)
        with door(site.ca, tmp_path, made.answer) as port:
            made.endpoint = site.endpoint(PLAIN, site.at("davs", port, urlsplit(subject.base_url).path))
            yield made


def test_a_directory_that_went_is_made_again(meddled: Meddled) -> None:
    """409 to a PUT is no file in the way: Apache says it when the directory is missing (RFC 4918, section 9.7.1)."""
    meddled.once("PUT", lambda: shutil.rmtree(meddled.folder / "raw"))
    meddled.endpoint.upload("raw/00100/a", [b"ev", b"ents"], 6)
    assert b"".join(meddled.real.read("raw/00100/a")) == b"events"


def test_a_directory_that_keeps_going_is_no_reason_for_a_person(meddled: Meddled) -> None:
    def again() -> None:
        shutil.rmtree(meddled.folder / "raw")
        meddled.once("PUT", again)

    meddled.once("PUT", again)
    with pytest.raises(FileMissingError) as caught:
        meddled.endpoint.upload("raw/a", [b"events"], 6)
    assert not caught.value.permanent


def test_a_directory_that_came_under_the_name_is_found_by_the_next_try(meddled: Meddled) -> None:
    meddled.once("PUT", lambda: meddled.put("a/theirs", b"theirs"))
    with pytest.raises(FileMissingError):
        meddled.endpoint.upload("a", [b"events"], 6)
    with pytest.raises(ForeignFileError):
        meddled.endpoint.upload("a", [b"events"], 6)
    assert (meddled.folder / "a/theirs").read_bytes() == b"theirs"


def test_a_file_that_came_after_our_look_is_not_overwritten(meddled: Meddled) -> None:
    """Where the server honours If-None-Match."""
    meddled.once("PUT", lambda: meddled.put("a", b"theirs"))
    with pytest.raises(FileExistsAtEndpointError):
        meddled.endpoint.upload("a", [b"events"], 6)
    assert (meddled.folder / "a").read_bytes() == b"theirs"


def test_a_file_that_came_after_our_look_is_not_replaced_by_a_rename(meddled: Meddled) -> None:
    """Where the server honours Overwrite: F, which gfal2's own rename does not ask for."""
    meddled.endpoint.upload("a", [b"events"], 6)
    meddled.once("MOVE", lambda: meddled.put("b", b"theirs"))
    with pytest.raises(FileExistsAtEndpointError):
        meddled.endpoint.rename("a", "b")
    assert [(meddled.folder / name).read_bytes() for name in "ab"] == [b"events", b"theirs"]


def test_a_source_that_went_after_our_look_is_missing(meddled: Meddled) -> None:
    meddled.endpoint.upload("a", [b"events"], 6)
    meddled.once("MOVE", (meddled.folder / "a").unlink)
    with pytest.raises(FileMissingError):
        meddled.endpoint.rename("a", "b")
    assert meddled.real.stat("b") is None


@pytest.mark.parametrize("kind", ["davs", PLAIN])
@pytest.mark.parametrize("path", ["raw/a", "raw/00100/a"])
def test_a_file_where_a_directory_is_needed_wants_a_person(site: Site, kind: str, path: str) -> None:
    endpoint = remote_subject(kind, site).open()
    endpoint.upload("raw", [b"in the way"], 10)
    endpoint.upload("other", [b"events"], 6)
    uses: list[Callable[[StorageEndpoint], object]] = [
        lambda endpoint: endpoint.upload(path, [b"events"], 6),
        lambda endpoint: endpoint.rename("other", path),
    ]
    for use in uses:
        with pytest.raises(ForeignFileError) as caught:
            use(endpoint)
        assert "raw" in caught.value.message
    assert b"".join(endpoint.read("raw")) == b"in the way"
    assert b"".join(endpoint.read("other")) == b"events"


def test_a_server_that_was_said_to_compute_checksums_and_does_not(site: Site) -> None:
    base_url = remote_subject(PLAIN, site).base_url
    plain, believed = site.endpoint(PLAIN, base_url), site.endpoint("davs", base_url)
    plain.upload("a", [b"events"], 6)
    with pytest.raises(StorageError) as caught:
        adler32_of(believed, "a")
    assert caught.value.permanent
    assert "checksums = []" in caught.value.hint
