"""The bundle is a pure function of its plan and parts: size known beforehand, same bytes every time, read once."""

import hashlib
import io
import json
import os
import subprocess
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mover.bundle import tar
from mover.bundle.plan import BundlePlan, plan_bundle
from mover.bundle.prefetch import Prefetch
from mover.bundle.scan import ScannedRun
from mover.bundle.stream import CHUNK_BYTES, BundleReader
from mover.errors import RunChangedError
from mover.model import BundleDigest, Part

MTIME = 1_400_000_000


def _parts(directory: Path, contents: list[bytes]) -> tuple[Part, ...]:
    parts = []
    for number, content in enumerate(contents):
        path = directory / f"00007.{number:03d}"
        path.write_bytes(content)
        os.utime(path, ns=(0, (MTIME + number) * 10**9 + 123))
        parts.append(Part(number, path.name, len(content), path.stat().st_mtime_ns))
    return tuple(parts)


def _plan(directory: Path, contents: list[bytes], digests: tuple[str, ...] = ("sha256", "md5")) -> BundlePlan:
    scanned = ScannedRun(7, _parts(directory, contents), None, ())
    return plan_bundle(scanned, experiment="MICE", lfn="MICE/00000/00007.tar", digests=digests, force=False)


def _read(plan: BundlePlan, directory: Path, expected: BundleDigest | None = None) -> tuple[bytes, BundleDigest]:
    reader = BundleReader(plan, directory, expected=expected)
    with Prefetch(reader.chunks()) as chunks:
        data = b"".join(chunks)
    return data, reader.digest


def test_the_bytes_of_format_version_1_never_change(tmp_path: Path) -> None:
    """What was written years ago must come out again: these figures may only change with the format version."""
    plan = _plan(tmp_path, [b"first part", b"", b"x" * 1000])
    data, digest = _read(plan, tmp_path)
    assert plan.format_version == 1
    assert (len(data), digest.adler32) == (10240, "4ae11829")
    assert hashlib.sha256(data).hexdigest() == "c91339a832f74048b616c71964d4d782e33811bfb80ea697e544d30ec0cddcbe"


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(
        st.one_of(
            st.integers(0, 2000), st.sampled_from([511, 512, 513, CHUNK_BYTES - 512, CHUNK_BYTES, CHUNK_BYTES + 1])
        ),
        min_size=1,
        max_size=5,
    ),
    digests=st.sampled_from([("sha256",), ("sha256", "md5"), ("md5", "sha256")]),
)
def test_planned_size_and_digests_are_those_of_the_bytes(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], digests: tuple[str, ...]
) -> None:
    directory = tmp_path_factory.mktemp("run")
    contents = [os.urandom(size) for size in sizes]
    plan = _plan(directory, contents, digests)
    data, digest = _read(plan, directory)
    assert len(data) == plan.size_bytes == digest.size_bytes
    assert digest.adler32 == f"{zlib.adler32(data):08x}"
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        names = archive.getnames()
        unpacked = [archive.extractfile(name) for name in names]
        read = [file.read() for file in unpacked if file]
    assert names == [part.name for part in plan.parts] + ["manifest.json"] + ["00007.md5"] * ("md5" in digests)
    assert read[: len(contents)] == contents
    for content, member in zip(contents, digest.members, strict=True):
        assert dict(member.digests) == {name: hashlib.new(name, content).hexdigest() for name in digests}
    assert _read(plan, directory, expected=digest) == (data, digest)


def test_md5sum_accepts_what_plain_tar_unpacks(tmp_path: Path) -> None:
    plan = _plan(tmp_path, [b"a" * 70_000, b"b"])
    data, _ = _read(plan, tmp_path)
    out = tmp_path / "unpacked"
    out.mkdir()
    subprocess.run(["tar", "-x", "-C", out], input=data, check=True, timeout=60)
    checked = subprocess.run(
        ["md5sum", "--strict", "-c", "00007.md5"], cwd=out, capture_output=True, text=True, check=False, timeout=60
    )
    assert checked.returncode == 0, checked.stdout
    assert checked.stdout.count(": OK") == 3
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["run"] == 7
    assert manifest["complete"] is True
    assert [part["mtime"] for part in manifest["parts"]] == [MTIME, MTIME + 1]
    assert (out / "00007.000").stat().st_mtime == MTIME
    assert (out / "manifest.json").stat().st_mtime == MTIME + 1


def test_the_plan_survives_the_catalogue(tmp_path: Path) -> None:
    plan = _plan(tmp_path, [b"a"])
    assert BundlePlan.from_json(plan.to_json()) == plan


def test_size_is_exact_beyond_the_eight_gibibytes_of_plain_tar() -> None:
    for size in (8 << 30, (8 << 30) - 1):
        info = tarfile.TarInfo.frombuf(tar.header("x", size, MTIME)[-512:], "utf-8", "strict")
        assert info.name.endswith("x")
    assert len(tar.header("x", 8 << 30, MTIME)) == 3 * 512
    assert len(tar.header("x", (8 << 30) - 1, MTIME)) == 512


class Tampering(BundleReader):
    """Lets a test change the files after the first chunk has been read."""

    def meddle(self, what: object) -> Iterator[bytes]:
        """The chunks, with `what` called after the first."""
        assert callable(what)
        for number, chunk in enumerate(self.chunks()):
            if number == 0:
                what()
            yield chunk


def _grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def _shrink(path: Path) -> None:
    os.truncate(path, CHUNK_BYTES + 100)


def _touch(path: Path) -> None:
    os.utime(path)


def _rewrite_and_restore_mtime(path: Path) -> None:
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(3 * CHUNK_BYTES - 1)
        file.write(b"!")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _replace(path: Path) -> None:
    path.rename(path.with_name("old"))
    path.write_bytes(b"other")


def _remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("change", [_grow, _shrink, _touch, _rewrite_and_restore_mtime, _replace, _remove])
def test_a_file_that_changes_while_it_is_read_fails_the_bundle(tmp_path: Path, change: object) -> None:
    assert callable(change)
    plan = _plan(tmp_path, [bytes(3 * CHUNK_BYTES)])
    reader = Tampering(plan, tmp_path)
    with pytest.raises(RunChangedError, match=r"00007\.000"):
        for _ in reader.meddle(lambda: change(tmp_path / "00007.000")):
            pass


@pytest.mark.parametrize("change", [_grow, _touch, _replace, _remove])
def test_a_file_that_changed_since_the_plan_fails_the_bundle(tmp_path: Path, change: object) -> None:
    assert callable(change)
    plan = _plan(tmp_path, [b"content"])
    change(tmp_path / "00007.000")
    with pytest.raises(RunChangedError, match=r"00007\.000"):
        _read(plan, tmp_path)


def test_a_fifo_or_symlink_in_the_place_of_a_part_neither_hangs_nor_is_followed(tmp_path: Path) -> None:
    plan = _plan(tmp_path, [b"content"])
    part = tmp_path / "00007.000"
    part.rename(tmp_path / "elsewhere")
    part.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunChangedError):
        _read(plan, tmp_path)
    part.unlink()
    os.mkfifo(part)
    with pytest.raises(RunChangedError):
        _read(plan, tmp_path)


def test_bytes_that_differ_from_the_first_reading_are_noticed_although_size_and_time_agree(tmp_path: Path) -> None:
    plan = _plan(tmp_path, [b"content"])
    _, digest = _read(plan, tmp_path)
    part = tmp_path / "00007.000"
    before = part.stat()
    part.write_bytes(b"Content")
    os.utime(part, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(RunChangedError, match="other bytes"):
        _read(plan, tmp_path, expected=digest)


def test_leaving_prefetch_early_ends_the_reader() -> None:
    closed = []

    def endless() -> Iterator[bytes]:
        try:
            while True:
                yield b"x"
        finally:
            closed.append(True)

    generator = endless()
    assert hasattr(generator, "close")
    with Prefetch(generator) as chunks:  # type: ignore[arg-type] # it is a generator
        assert next(iter(chunks)) == b"x"
    assert closed == [True]
