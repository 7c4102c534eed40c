"""What the port promises of tape, held against every adapter: never migrated, evicted and lost are three things."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mover.errors import FileExistsAtEndpointError, FileMissingError, NotOnlineError, StorageError
from mover.model import ChecksumKind, Locality
from mover.ports import StorageEndpoint
from mover.sandbox.tape import Drive
from mover.storage.memory import MemoryEndpoint
from tests.conformance.subjects import LOCAL, REMOTE, Site, Subject, eventually, local_subject, remote_subject

PATH = "raw/00100/00123.tar"
DATA = b"run" * 1000
ADLER32 = "5dcb3454"
TAPES = ("memory-tape", "root-tape", "davs-tape")
DISKS = tuple(kind for kind in (*LOCAL, *REMOTE) if kind not in TAPES)


@dataclass(frozen=True)
class Library:
    """A tape endpoint, and what can happen to its tapes."""

    endpoint: StorageEndpoint
    set_busy: Callable[[bool], None]
    evict: Callable[[str], None]
    lose: Callable[[str], None]

    def put(self, path: str) -> None:
        """Store the tests' file."""
        self.endpoint.upload(path, [DATA], len(DATA))

    def archive(self, path: str) -> None:
        """Store it, and wait until it is on tape."""
        self.put(path)
        self.wait_for(path, Locality.DISK_AND_TAPE)

    def wait_for(self, path: str, locality: Locality) -> None:
        assert eventually(lambda: self.endpoint.locality(path) is locality), self.endpoint.locality(path)


def _in_memory(subject: Subject) -> Library:
    endpoint = subject.open()
    assert isinstance(endpoint, MemoryEndpoint)
    lost: set[str] = set()
    archived: set[str] = set()
    busy = [False]

    def migrated(path: str) -> bool:
        if not busy[0]:
            archived.add(path)
        return path in archived and path not in lost

    endpoint.migrated = migrated
    return Library(endpoint, lambda on: busy.__setitem__(0, on), endpoint.evicted.add, lost.add)


def _at_site(subject: Subject, site: Site) -> Library:
    folder = subject.base_url.rpartition("/")[2]
    return Library(
        subject.open(),
        lambda on: site.tape.set_drive(Drive.BUSY if on else Drive.READY),
        lambda path: site.tape.evict(f"{folder}/{path}"),
        lambda path: site.tape.lose(f"{folder}/{path}"),
    )


@pytest.fixture(params=TAPES)
def library(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Library]:
    """Each tape endpoint in turn."""
    kind: str = request.param
    if kind in LOCAL:
        yield _in_memory(local_subject(kind, tmp_path))
        return
    site: Site = request.getfixturevalue("site")
    subject = remote_subject(kind, site)
    with subject.closing:
        yield _at_site(subject, site)
        site.tape.set_drive(Drive.READY)


@pytest.mark.parametrize("kind", DISKS)
def test_a_disk_has_no_tape(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    local = kind in LOCAL
    subject = local_subject(kind, tmp_path) if local else remote_subject(kind, request.getfixturevalue("site"))
    with subject.closing:
        endpoint = subject.open()
        endpoint.upload(PATH, [DATA], len(DATA))
        assert not endpoint.capabilities.tape
        for ask in (endpoint.on_tape, endpoint.locality, endpoint.bring_online):
            with pytest.raises(StorageError):
                ask(PATH)
        with pytest.raises(StorageError):
            endpoint.bring_online_many([PATH])


def test_a_file_that_never_was(library: Library) -> None:
    endpoint = library.endpoint
    for ask in (endpoint.on_tape, endpoint.locality, endpoint.bring_online):
        with pytest.raises(FileMissingError):
            ask(PATH)
    library.put(PATH)
    for ask in (endpoint.on_tape, endpoint.locality, endpoint.bring_online):
        with pytest.raises(FileMissingError):
            ask(f"{PATH}.other")


def test_a_file_that_is_not_migrated_yet(library: Library) -> None:
    library.set_busy(True)
    library.put(PATH)
    assert library.endpoint.locality(PATH) is Locality.DISK
    assert not library.endpoint.on_tape(PATH)
    library.endpoint.bring_online(PATH)
    assert library.endpoint.locality(PATH) is Locality.DISK
    library.set_busy(False)
    library.wait_for(PATH, Locality.DISK_AND_TAPE)
    assert library.endpoint.on_tape(PATH)


def test_an_evicted_file_is_there_but_cannot_be_read(library: Library) -> None:
    library.archive(PATH)
    library.evict(PATH)
    endpoint = library.endpoint
    stored = endpoint.stat(PATH)
    assert stored is not None
    assert stored.size_bytes == len(DATA)
    assert endpoint.locality(PATH) is Locality.TAPE
    assert endpoint.on_tape(PATH)
    with pytest.raises(NotOnlineError):
        endpoint.checksum(PATH, ChecksumKind.ADLER32)
    with pytest.raises(NotOnlineError):
        b"".join(endpoint.read(PATH))
    with pytest.raises(FileExistsAtEndpointError):
        endpoint.upload(PATH, [b"other"], 5)
    assert endpoint.locality(PATH) is Locality.TAPE, "looking at it has staged it"


def test_an_evicted_file_comes_back(library: Library) -> None:
    library.archive(PATH)
    library.evict(PATH)
    library.endpoint.bring_online(PATH)
    library.wait_for(PATH, Locality.DISK_AND_TAPE)
    assert b"".join(library.endpoint.read(PATH)) == DATA
    assert library.endpoint.checksum(PATH, ChecksumKind.ADLER32) == ADLER32
    library.endpoint.bring_online(PATH)
    assert library.endpoint.locality(PATH) is Locality.DISK_AND_TAPE


def test_to_ask_again_while_it_comes_is_harmless(library: Library) -> None:
    library.archive(PATH)
    library.evict(PATH)
    library.set_busy(True)
    for _ in range(3):
        library.endpoint.bring_online(PATH)
    library.set_busy(False)
    library.wait_for(PATH, Locality.DISK_AND_TAPE)
    library.evict(PATH)
    library.endpoint.bring_online(PATH)
    library.wait_for(PATH, Locality.DISK_AND_TAPE)
    assert b"".join(library.endpoint.read(PATH)) == DATA


def test_many_files_come_back_by_one_request(library: Library) -> None:
    paths = [f"raw/00100/0012{number}.tar" for number in range(3)]
    for path in paths:
        library.archive(path)
    for path in paths[:2]:
        library.evict(path)
    assert library.endpoint.bring_online_many(paths) == {}
    for path in paths:
        library.wait_for(path, Locality.DISK_AND_TAPE)
        assert b"".join(library.endpoint.read(path)) == DATA
    assert library.endpoint.bring_online_many([]) == {}


def test_among_many_a_file_that_never_was_and_one_that_is_lost_keep_no_other_from_coming(library: Library) -> None:
    lost = f"{PATH}.lost"
    for path in (PATH, lost):
        library.archive(path)
        library.evict(path)
    library.lose(lost)
    refused = library.endpoint.bring_online_many([f"{PATH}.never", lost, PATH])
    assert PATH not in refused
    library.wait_for(PATH, Locality.DISK_AND_TAPE)
    assert library.endpoint.locality(lost) is Locality.LOST


def test_a_file_whose_tape_is_lost(library: Library) -> None:
    library.archive(PATH)
    library.evict(PATH)
    library.lose(PATH)
    endpoint = library.endpoint
    assert endpoint.locality(PATH) is Locality.LOST
    assert not endpoint.on_tape(PATH)
    with pytest.raises(FileMissingError):
        endpoint.checksum(PATH, ChecksumKind.ADLER32)
    with pytest.raises(FileMissingError):
        b"".join(endpoint.read(PATH))
    endpoint.bring_online(PATH)
    assert endpoint.locality(PATH) is Locality.LOST
    endpoint.remove(PATH)
    assert endpoint.stat(PATH) is None
    with pytest.raises(FileMissingError):
        endpoint.locality(PATH)


def test_a_file_whose_tape_is_lost_while_it_is_on_disk(library: Library) -> None:
    library.archive(PATH)
    library.lose(PATH)
    assert library.endpoint.locality(PATH) is Locality.DISK
    assert not library.endpoint.on_tape(PATH)
    assert b"".join(library.endpoint.read(PATH)) == DATA
