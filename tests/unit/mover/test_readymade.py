"""A ready-made file as a bundle: what was taken of it is what goes out, or nothing does."""

import os
import zlib
from pathlib import Path

import pytest

from mover.bundle.readymade import FileReader, digest_file
from mover.bundle.stream import CHUNK_BYTES
from mover.errors import RunChangedError, StoppedError


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Two chunks and a bit."""
    path = tmp_path / "04742_offline.tar"
    path.write_bytes(os.urandom(2 * CHUNK_BYTES + 1000))
    return path


def test_a_file_is_its_own_only_member(output: Path) -> None:
    digest = digest_file(output)
    assert (digest.size_bytes, digest.adler32) == (
        2 * CHUNK_BYTES + 1000,
        f"{zlib.adler32(output.read_bytes()):08x}",
    )
    (member,) = digest.members
    assert (member.name, member.size_bytes, [name for name, _ in member.digests]) == (
        output.name,
        digest.size_bytes,
        ["sha256", "md5"],
    )


def test_who_waits_for_its_digests_hears_of_each_chunk_and_may_stop_it(output: Path) -> None:
    heard: list[str] = []
    digest_file(output, alive=lambda: heard.append("a chunk"))
    assert len(heard) == 3

    def stop() -> None:
        raise StoppedError("stopped", hint="start again")

    with pytest.raises(StoppedError):
        digest_file(output, alive=stop)


def test_it_is_read_in_chunks_and_is_then_known_to_be_the_same(output: Path) -> None:
    digest = digest_file(output)
    reader = FileReader(output, expected=digest)
    assert b"".join(reader.chunks()) == output.read_bytes()
    assert reader.digest == digest


@pytest.mark.parametrize("change", ["a byte", "longer", "shorter", "gone"])
def test_a_file_that_was_changed_never_goes_out_whole(output: Path, change: str) -> None:
    digest = digest_file(output)
    content = output.read_bytes()
    if change == "gone":
        output.unlink()
    else:
        changed = {"a byte": content[:-1] + bytes([content[-1] ^ 1]), "longer": content + b"x", "shorter": content[:-1]}
        output.write_bytes(changed[change])
    reader, sent = FileReader(output, expected=digest), list[bytes]()
    with pytest.raises(RunChangedError):
        sent.extend(reader.chunks())
    assert sum(map(len, sent)) < digest.size_bytes
    with pytest.raises(RuntimeError):
        _ = reader.digest


def test_links_and_pipes_are_no_files(output: Path) -> None:
    link, pipe = output.with_name("link"), output.with_name("pipe")
    link.symlink_to(output)
    os.mkfifo(pipe)
    for path in (link, pipe, output.parent):
        with pytest.raises(RunChangedError):
            digest_file(path)


def test_an_empty_file_is_one_too(output: Path) -> None:
    output.write_bytes(b"")
    digest = digest_file(output)
    assert (digest.size_bytes, digest.adler32) == (0, "00000001")
    assert list(FileReader(output, expected=digest).chunks()) == []
