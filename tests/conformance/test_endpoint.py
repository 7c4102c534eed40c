"""What the StorageEndpoint port promises, held against every adapter and, where installed, real servers."""

import secrets
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from hashlib import md5

import pytest

from mover.errors import (
    FileExistsAtEndpointError,
    FileMissingError,
    ForeignFileError,
    StorageError,
    UnsafeNameError,
)
from mover.model import ChecksumKind
from mover.ports import StorageEndpoint
from tests.conformance.subjects import Subject, adler32_of

PATH = "raw/00100/00123.tar"
EVERY_CHARACTER = "azAZ09._+=@,-"


class ProducerError(Exception):
    """What the tests' producers raise."""


def put(endpoint: StorageEndpoint, path: str, data: bytes) -> None:
    endpoint.upload(path, [data], len(data))


def some_bytes(size: int) -> bytes:
    """Bytes in which everything that is cut out, swapped or repeated shows in a checksum."""
    return secrets.token_bytes(size)


def adler32(data: bytes) -> str:
    return f"{zlib.adler32(data):08x}"


def failing_after(*chunks: bytes) -> Iterator[bytes]:
    yield from chunks
    raise ProducerError


def nothing_left(endpoint: StorageEndpoint, path: str) -> bool:
    """No file under `path`, nor one of another name beside it."""
    return endpoint.stat(path) is None and endpoint.list(path.rpartition("/")[0]) == []


def test_what_is_not_there(endpoint: StorageEndpoint) -> None:
    assert endpoint.stat(PATH) is None
    assert endpoint.list("raw") == []
    with pytest.raises(FileMissingError):
        endpoint.checksum(PATH, ChecksumKind.ADLER32)
    endpoint.remove(PATH)


@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param([], id="no chunk"),
        pytest.param([0, 0], id="empty chunks"),
        pytest.param([1], id="one byte"),
        pytest.param([4 << 20], id="one piece"),
        pytest.param([(4 << 20) - 1, 1, 1, 0, 9 << 20], id="uneven"),
        pytest.param([512] * 5000, id="small chunks"),
        pytest.param([4 << 20] * 12, id="more than a window"),
    ],
)
def test_upload_stores_what_was_sent(endpoint: StorageEndpoint, sizes: list[int]) -> None:
    chunks = [some_bytes(size) for size in sizes]
    data = b"".join(chunks)
    before = datetime.now(UTC)
    endpoint.upload(PATH, iter(chunks), len(data))
    stored = endpoint.stat(PATH)
    assert stored is not None
    assert (stored.path, stored.size_bytes) == (PATH, len(data))
    assert abs(stored.modified - before) < timedelta(hours=1)
    assert adler32_of(endpoint, PATH) == adler32(data)


def test_checksum_has_its_full_width(endpoint: StorageEndpoint) -> None:
    put(endpoint, PATH, b"")
    assert adler32_of(endpoint, PATH) == "00000001"
    put(endpoint, "raw/zero", b"\0\0")
    assert adler32_of(endpoint, "raw/zero") == "00020001"


def test_every_declared_checksum_is_right(endpoint: StorageEndpoint) -> None:
    put(endpoint, PATH, b"events")
    expected = {
        ChecksumKind.ADLER32: adler32(b"events"),
        ChecksumKind.MD5: md5(b"events", usedforsecurity=False).hexdigest(),
    }
    for kind in endpoint.capabilities.checksums:
        assert endpoint.checksum(PATH, kind) == expected[kind]
    if not endpoint.capabilities.checksums:
        with pytest.raises(StorageError, match=r"computes no|not supported"):
            endpoint.checksum(PATH, ChecksumKind.ADLER32)


def test_stat_is_fresh(subject: Subject) -> None:
    reader, writer = subject.open(), subject.open()
    assert reader.stat(PATH) is None
    put(writer, PATH, b"first")
    assert reader.stat(PATH) is not None
    assert adler32_of(reader, PATH) == adler32(b"first")
    writer.remove(PATH)
    assert reader.stat(PATH) is None
    put(writer, PATH, b"second time")
    again = reader.stat(PATH)
    assert again is not None
    assert again.size_bytes == 11
    assert adler32_of(reader, PATH) == adler32(b"second time")


def test_upload_leaves_an_existing_file_alone(endpoint: StorageEndpoint) -> None:
    put(endpoint, PATH, b"theirs")
    with pytest.raises(FileExistsAtEndpointError):
        put(endpoint, PATH, b"ours, and longer")
    with pytest.raises(FileExistsAtEndpointError):
        put(endpoint, PATH, b"")
    assert adler32_of(endpoint, PATH) == adler32(b"theirs")


@pytest.mark.parametrize("size", [1, 5 << 20, 40 << 20])
@pytest.mark.parametrize("declared", ["one too few", "one too many", "none"])
def test_wrong_size_leaves_nothing(endpoint: StorageEndpoint, size: int, declared: str) -> None:
    size_bytes = {"one too few": size - 1, "one too many": size + 1, "none": 0}[declared]
    with pytest.raises(StorageError):
        endpoint.upload(PATH, iter([bytes(1 << 20)] * (size >> 20) or [b"x"]), size_bytes)
    assert nothing_left(endpoint, PATH)


@pytest.mark.parametrize("sent", [0, 1, 9 << 20, 40 << 20])
def test_error_of_the_producer_comes_through(endpoint: StorageEndpoint, sent: int) -> None:
    chunks = [bytes(1 << 20)] * (sent >> 20) or [bytes(sent)]
    with pytest.raises(ProducerError):
        endpoint.upload(PATH, failing_after(*chunks), 50 << 20)
    assert nothing_left(endpoint, PATH)
    put(endpoint, PATH, b"the next attempt")
    assert adler32_of(endpoint, PATH) == adler32(b"the next attempt")


def test_producer_that_fails_at_its_end_leaves_nothing(endpoint: StorageEndpoint) -> None:
    """A bundle finds out only after its last byte that a file of the run has changed."""
    with pytest.raises(ProducerError):
        endpoint.upload(PATH, failing_after(b"all", b"there"), 8)
    assert nothing_left(endpoint, PATH)


def test_nothing_is_removed_without_leave(endpoint: StorageEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another engine may have taken the name over while we were uploading: `may_remove` is asked, and obeyed."""
    asked: list[bool] = []
    removed: list[str] = []

    def no() -> bool:
        asked.append(True)
        return False

    with monkeypatch.context() as patch:
        patch.setattr(endpoint, "remove", removed.append)
        with pytest.raises(ProducerError):
            endpoint.upload(PATH, failing_after(*[bytes(1 << 20)] * 40), 50 << 20, may_remove=no)
    assert asked == [True]
    assert removed == []
    endpoint.remove(PATH)


def test_interruption_is_an_error_like_others(endpoint: StorageEndpoint) -> None:
    def interrupted() -> Iterator[bytes]:
        yield bytes(5 << 20)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        endpoint.upload(PATH, interrupted(), 6 << 20)
    assert nothing_left(endpoint, PATH)


def test_rename(endpoint: StorageEndpoint) -> None:
    put(endpoint, f"{PATH}.part", b"run")
    endpoint.rename(f"{PATH}.part", PATH)
    assert endpoint.stat(f"{PATH}.part") is None
    assert adler32_of(endpoint, PATH) == adler32(b"run")


def test_rename_makes_directories(endpoint: StorageEndpoint) -> None:
    put(endpoint, "incoming/a", b"run")
    endpoint.rename("incoming/a", PATH)
    assert adler32_of(endpoint, PATH) == adler32(b"run")


def test_rename_refuses_to_replace(endpoint: StorageEndpoint) -> None:
    put(endpoint, "a", b"source")
    put(endpoint, "b", b"target")
    with pytest.raises(FileExistsAtEndpointError):
        endpoint.rename("a", "b")
    assert adler32_of(endpoint, "a") == adler32(b"source")
    assert adler32_of(endpoint, "b") == adler32(b"target")


def test_rename_of_nothing(endpoint: StorageEndpoint) -> None:
    with pytest.raises(FileMissingError):
        endpoint.rename("a", "b")
    assert endpoint.stat("b") is None


def test_remove(endpoint: StorageEndpoint) -> None:
    put(endpoint, PATH, b"run")
    endpoint.remove(PATH)
    assert endpoint.stat(PATH) is None
    endpoint.remove(PATH)


def test_list_has_files_only_and_by_name(endpoint: StorageEndpoint) -> None:
    for name in ("b", "c", "a", "deeper/d"):
        put(endpoint, f"raw/{name}", name.encode())
    put(endpoint, "rawer/x", b"")
    listed = endpoint.list("raw")
    assert [(file.path, file.size_bytes) for file in listed] == [("raw/a", 1), ("raw/b", 1), ("raw/c", 1)]
    assert listed[0] == endpoint.stat("raw/a")


def test_directories_are_listed_without_files_and_by_name(endpoint: StorageEndpoint) -> None:
    assert endpoint.directories("") == ()
    assert endpoint.directories("raw") == ()
    for path in ("raw/00200/b", "raw/00100/deeper/a", "raw/file", "other/c"):
        put(endpoint, path, b"run")
    assert endpoint.directories("") == ("other", "raw")
    assert endpoint.directories("raw") == ("00100", "00200")
    assert endpoint.directories("raw/00100") == ("deeper",)
    assert endpoint.directories("raw/00200") == ()
    assert endpoint.directories("raw/missing") == ()


def test_directory_is_no_file(endpoint: StorageEndpoint) -> None:
    put(endpoint, "raw/00100/x", b"run")
    with pytest.raises(ForeignFileError):
        endpoint.stat("raw")
    with pytest.raises(ForeignFileError):
        endpoint.remove("raw")
    with pytest.raises((ForeignFileError, FileExistsAtEndpointError)):
        put(endpoint, "raw", b"in the way")
    assert adler32_of(endpoint, "raw/00100/x") == adler32(b"run")


def test_every_allowed_character(endpoint: StorageEndpoint) -> None:
    path = f"{EVERY_CHARACTER}/{EVERY_CHARACTER}"
    put(endpoint, path, b"run")
    assert [file.path for file in endpoint.list(EVERY_CHARACTER)] == [path]
    endpoint.rename(path, f"{path}.tar")
    assert adler32_of(endpoint, f"{path}.tar") == adler32(b"run")
    endpoint.remove(f"{path}.tar")
    assert endpoint.list(EVERY_CHARACTER) == []


@pytest.mark.parametrize(
    "path", ["", "/a", "../a", "a/../b", "a//b", "a b", "a?xrd.gsiusrpxy=x", "a%2fb", "a#b", "a\nb"]
)
def test_unsafe_paths_are_refused(endpoint: StorageEndpoint, path: str) -> None:
    for use in (
        lambda: endpoint.stat(path),
        lambda: endpoint.url(path),
        lambda: endpoint.remove(path),
        lambda: endpoint.list(path),
        lambda: endpoint.directories(path or "/"),
        lambda: endpoint.upload(path, [b"x"], 1),
        lambda: endpoint.rename("a", path),
        lambda: endpoint.checksum(path, ChecksumKind.ADLER32),
    ):
        with pytest.raises((UnsafeNameError, FileMissingError)):
            use()


def test_url_has_no_credential(subject: Subject) -> None:
    endpoint = subject.open()
    put(endpoint, PATH, b"run")
    assert endpoint.url(PATH) == f"{subject.base_url}/{PATH}"


@pytest.mark.parametrize("size", [0, 1, (4 << 20) + 1, 9 << 20])
def test_read_gives_back_what_was_sent(endpoint: StorageEndpoint, size: int) -> None:
    data = some_bytes(size)
    put(endpoint, PATH, data)
    assert b"".join(endpoint.read(PATH)) == data


@pytest.mark.parametrize(
    ("offset", "size"), [(0, 10), (5, 1), (999, None), (1000, 1), (1000, None), (2000, None), (500, 5000), (0, 0)]
)
def test_read_a_piece(endpoint: StorageEndpoint, offset: int, size: int | None) -> None:
    data = some_bytes(1000)
    put(endpoint, PATH, data)
    end = None if size is None else offset + size
    assert b"".join(endpoint.read(PATH, offset=offset, size_bytes=size)) == data[offset:end]


def test_read_can_be_ended_early(endpoint: StorageEndpoint) -> None:
    put(endpoint, PATH, some_bytes(20 << 20))
    for _ in range(20):
        with closing(endpoint.read(PATH)) as chunks:
            next(chunks)
    endpoint.remove(PATH)
    assert nothing_left(endpoint, PATH)


def test_read_what_is_not_there(endpoint: StorageEndpoint) -> None:
    with pytest.raises(FileMissingError):
        b"".join(endpoint.read(PATH))


def test_two_endpoints_in_two_threads(subject: Subject) -> None:
    data = [some_bytes(12 << 20) for _ in range(2)]

    def use(number: int) -> str:
        endpoint = subject.open()
        for attempt in range(3):
            path = f"thread{number}/{attempt}"
            endpoint.upload(
                path, (data[number][start : start + 100_000] for start in range(0, 12 << 20, 100_000)), 12 << 20
            )
        return adler32_of(endpoint, f"thread{number}/2")

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(use, range(2))) == [adler32(part) for part in data]
