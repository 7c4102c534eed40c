"""The manifest of a stored bundle gives its plan back; a hostile one gives an error of its own and nothing else."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mover.bundle import tar
from mover.bundle.inspect import generated_members
from mover.bundle.manifest import ManifestError, StoredPlan, read_stored_plan
from mover.bundle.plan import BundlePlan, plan_bundle, render_manifest
from mover.bundle.scan import ScannedRun
from mover.bundle.stream import BundleReader
from mover.model import MemberDigest, Part
from tests.unit.mover.test_adopt import BUNDLE

LFN = "MICE/00007.tar"

Made = tuple[BundlePlan, bytes]
Change = Callable[[dict[str, Any]], object]


def make(
    directory: Path, contents: list[bytes], *, digests: tuple[str, ...] = ("sha256", "md5")
) -> tuple[BundlePlan, bytes]:
    """A bundle and its plan."""
    parts = []
    for number, content in enumerate(contents):
        path = directory / f"00007.{number:04d}"
        path.write_bytes(content)
        os.utime(path, ns=(0, (1_400_000_000 + number) * 10**9))
        parts.append(Part(number, path.name, len(content), (1_400_000_000 + number) * 10**9))
    scanned = ScannedRun(7, tuple(parts), None, ("a finding",))
    plan = plan_bundle(scanned, experiment="MICE", lfn=LFN, digests=digests, force=True)
    return plan, b"".join(BundleReader(plan, directory).chunks())


def read(data: bytes, *, lfn: str = LFN) -> StoredPlan | None:
    """The plan, read in pieces as from a storage element."""
    return read_stored_plan(
        lambda offset, size: data[offset : offset + size],
        len(data),
        lfn=lfn,
        number_of=lambda _run, name: int(name.rpartition(".")[2]),
    )


@pytest.mark.parametrize("digests", [("sha256", "md5"), ("sha256",), ("md5", "sha256")])
def test_a_stored_bundle_gives_its_plan_back(tmp_path: Path, digests: tuple[str, ...]) -> None:
    plan, data = make(tmp_path, [b"first", b"", b"x" * 70_000], digests=digests)
    found = read(data)
    assert found is not None
    assert found.plan == plan
    assert found.members == members_of(plan, tmp_path)


def members_of(plan: BundlePlan, directory: Path) -> tuple[MemberDigest, ...]:
    """Their digests, as read from the run's files."""
    reader = BundleReader(plan, directory)
    for _ in reader.chunks():
        pass
    return reader.digest.members


def test_two_thousand_parts_are_found_in_a_few_looks(tmp_path: Path) -> None:
    plan, data = make(tmp_path, [b"small"] * 2000)
    looks: list[int] = []

    def look(offset: int, size: int) -> bytes:
        looks.append(size)
        return data[offset : offset + size]

    found = read_stored_plan(look, len(data), lfn=LFN, number_of=lambda _run, _name: None)
    assert found is not None
    assert found.plan == plan
    assert len(looks) <= 3


def test_what_a_part_has_inside_is_not_taken_for_the_manifest(tmp_path: Path) -> None:
    _, inner = make(tmp_path, [b"inner"])
    plan, data = make(tmp_path, [inner, b"outer"])
    found = read(data)
    assert found is not None
    assert found.plan == plan


def test_a_bundle_of_others_has_none() -> None:
    assert read(BUNDLE) is None
    assert read(b"") is None


def test_a_whole_look_for_nothing_is_bounded() -> None:
    asked = 0

    def zeros(offset: int, size: int) -> bytes:
        nonlocal asked
        asked += size
        return bytes(size)

    assert read_stored_plan(zeros, 20 << 30, lfn=LFN, number_of=lambda _run, _name: None) is None
    assert asked <= 128 << 20


def _with_manifest(
    plan: BundlePlan, members: tuple[MemberDigest, ...], change: Callable[[dict[str, Any]], object]
) -> bytes:
    """An archive whose manifest says something else, and is otherwise well-formed."""
    manifest = json.loads(render_manifest(plan, members))
    change(manifest)
    content = json.dumps(manifest, indent=1).encode() + b"\n"
    body = tar.header("manifest.json", len(content), plan.generated_mtime) + content + tar.padding(len(content))
    data = bytes(1024) + body
    return data + tar.trailer(len(data))


def _part(**values: object) -> Change:
    return lambda manifest: manifest["parts"][0].update(values)


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest.update(run=True),
        lambda manifest: manifest.update(run=-1),
        lambda manifest: manifest.update(run=10**30),
        lambda manifest: manifest.update(lfn="../../etc/passwd"),
        lambda manifest: manifest.update(lfn="MICE/00008.tar"),
        lambda manifest: manifest.update(bundle_format=2),
        lambda manifest: manifest.update(digests=["crc32"]),
        lambda manifest: manifest.update(digests=[{}]),
        lambda manifest: manifest.update(digests=[]),
        lambda manifest: manifest.update(parts=[]),
        lambda manifest: manifest.update(parts={}),
        lambda manifest: manifest.update(parts=[1]),
        lambda manifest: manifest.update(date=[]),
        lambda manifest: manifest.update(findings="x"),
        lambda manifest: manifest.update(experiment=None),
        lambda manifest: manifest.pop("lfn"),
        lambda manifest: manifest.update(more=1),
        _part(name="../x"),
        _part(name=1),
        _part(size_bytes=-1),
        _part(size_bytes=1.5),
        _part(size_bytes=10**40),
        _part(mtime="now"),
        _part(mtime=10**40),
        _part(sha256="x" * 64),
        _part(sha256=None),
    ],
)
def test_a_manifest_that_says_something_else_is_refused(tmp_path: Path, change: Change) -> None:
    plan, data = make(tmp_path, [b"one"])
    found = read(data)
    assert found is not None
    with pytest.raises(ManifestError):
        read(_with_manifest(plan, found.members, change))


def test_a_bundle_that_has_more_in_it_than_its_manifest_says_is_refused(tmp_path: Path) -> None:
    _, data = make(tmp_path, [b"one"])
    with pytest.raises(ManifestError, match="its manifest makes it 10240 bytes, but it has 20480"):
        read(bytes(10240) + data)


def test_a_manifest_of_deep_nesting_is_refused() -> None:
    content = b"[" * 200_000
    body = tar.header("manifest.json", len(content), 0) + content + tar.padding(len(content))
    with pytest.raises(ManifestError, match="no JSON"):
        read(body + tar.trailer(len(body)))


def test_a_bundle_under_another_name_is_refused(tmp_path: Path) -> None:
    _, data = make(tmp_path, [b"one"])
    with pytest.raises(ManifestError, match="says that it is MICE/00007"):
        read(data, lfn="MICE/00008.tar")


@pytest.fixture(scope="module")
def two_parts(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A bundle for all examples: nothing changes it."""
    return make(tmp_path_factory.mktemp("run"), [b"one", b"two" * 100])


@settings(max_examples=200, deadline=None)
@given(place=st.integers(0, 10239), change=st.binary(min_size=1, max_size=30))
def test_a_changed_end_never_gives_another_plan(two_parts: Made, place: int, change: bytes) -> None:
    plan, data = two_parts
    try:
        found = read(data[:place] + change + data[place + len(change) :])
    except ManifestError:
        return
    assert found is None or found.plan == plan


@pytest.mark.parametrize("mtime", [-1, 0, 2**33])
def test_sizes_beyond_8_gib_and_odd_times_fit(tmp_path: Path, mtime: int) -> None:
    """Bundles with PAX headers; the end of the large one is made without its bytes."""
    plan, _ = make(tmp_path, [b"one"])
    large = replace(plan, parts=(Part(0, "00007.0000", 9 << 30, mtime * 10**9),))
    member = MemberDigest("00007.0000", 9 << 30, (("sha256", "0" * 64), ("md5", "0" * 32)))
    end = b"".join(
        tar.header(name, len(content), mtime) + content + tar.padding(len(content))
        for name, content in generated_members(large, (member,))
    )
    end += bytes(large.size_bytes - tar.member_bytes("00007.0000", 9 << 30, mtime) - len(end))
    found = read_stored_plan(
        lambda offset, wanted: (bytes(large.size_bytes - len(end) - offset) + end)[:wanted],
        large.size_bytes,
        lfn=LFN,
        number_of=lambda _run, _name: 0,
    )
    assert found is not None
    assert found.plan == large
