"""A stored bundle is held against its plan byte for byte: whatever was changed in it is found, and where."""

import io
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mover.bundle import tar
from mover.bundle.inspect import inspect_planned
from mover.bundle.plan import BundlePlan, plan_bundle
from mover.bundle.scan import ScannedRun
from mover.bundle.stream import BundleReader
from mover.model import BundleDigest, Part


@dataclass(frozen=True, slots=True)
class Sample:
    """A bundle of two parts, and all that is known of it."""

    plan: BundlePlan
    digest: BundleDigest
    data: bytes


def _sample(directory: Path) -> Sample:
    parts = []
    for number, content in enumerate((b"first part" * 200, b"the second")):
        path = directory / f"00007.{number:03d}"
        path.write_bytes(content)
        os.utime(path, ns=(0, (1_400_000_000 + number) * 10**9))
        parts.append(Part(number, path.name, len(content), path.stat().st_mtime_ns))
    scanned = ScannedRun(7, tuple(parts), None, ())
    plan = plan_bundle(scanned, experiment="MICE", lfn="MICE/00007.tar", digests=("sha256", "md5"), force=False)
    reader = BundleReader(plan, directory)
    data = b"".join(reader.chunks())
    return Sample(plan, reader.digest, data)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """One for all tests: nothing changes it."""
    return _sample(tmp_path_factory.mktemp("run"))


def _findings(sample: Sample, data: bytes, *, chunk_bytes: int = 1000) -> tuple[str, ...]:
    chunks = (data[start : start + chunk_bytes] for start in range(0, len(data), chunk_bytes))
    return inspect_planned(chunks, sample.plan, sample.digest).findings


@pytest.mark.parametrize("chunk_bytes", [1, 511, 512, 4096, 1 << 20])
def test_a_right_bundle_has_no_findings(sample: Sample, chunk_bytes: int) -> None:
    found = inspect_planned(
        (sample.data[start : start + chunk_bytes] for start in range(0, len(sample.data), chunk_bytes)),
        sample.plan,
        sample.digest,
    )
    assert found.findings == ()
    assert (found.size_bytes, found.adler32) == (len(sample.data), sample.digest.adler32)


@settings(max_examples=200, deadline=None)
@given(place=st.integers(0, 10239), bit=st.integers(0, 7))
def test_any_flipped_bit_is_found(sample: Sample, place: int, bit: int) -> None:
    spoilt = bytearray(sample.data)
    spoilt[place] ^= 1 << bit
    assert len(_findings(sample, bytes(spoilt))) >= 1


def test_a_flipped_byte_in_a_member_is_told_by_its_name_and_both_digests(sample: Sample) -> None:
    spoilt = sample.data.replace(b"the second", b"the Second")
    sha256, md5 = _findings(sample, spoilt)
    assert sha256.startswith("00007.001: sha256 is ")
    assert md5.startswith("00007.001: md5 is ")


def test_a_changed_time_in_a_header_that_is_a_right_header_is_found(sample: Sample) -> None:
    spoilt = tar.header("00007.000", 2000, 1_500_000_000) + sample.data[512:]
    (finding,) = _findings(sample, spoilt)
    assert finding.startswith("the tar header of 00007.000 differs at byte 137 of the bundle: ")
    assert finding.endswith("the header of '00007.000' of 2000 bytes is there")


def test_a_header_that_is_none_is_said_to_be_none(sample: Sample) -> None:
    spoilt = bytes(512) + sample.data[512:]
    assert _findings(sample, spoilt) == (
        "the tar header of 00007.000 differs at byte 0 of the bundle: no tar header is there",
    )


def test_members_in_another_order_are_found(sample: Sample) -> None:
    first, second = sample.data[: 512 + 2048], sample.data[512 + 2048 : 512 + 2048 + 1024]
    spoilt = second + first + sample.data[len(first) + len(second) :]
    with tarfile.open(fileobj=io.BytesIO(spoilt)) as archive:
        assert archive.getnames()[:2] == ["00007.001", "00007.000"]
    findings = _findings(sample, spoilt)
    assert "the header of '00007.001' of 10 bytes is there" in findings[0]
    assert any(text.startswith("00007.000: sha256") for text in findings)


@pytest.mark.parametrize("cut", [1, 512, 9000, 10240])
def test_a_bundle_that_ends_early_is_found(sample: Sample, cut: int) -> None:
    found = _findings(sample, sample.data[: len(sample.data) - cut])
    assert found[-1] == f"ends after {len(sample.data) - cut} of 10240 bytes"


def test_an_extra_byte_at_the_end_is_found(sample: Sample) -> None:
    assert _findings(sample, sample.data + b"\0") == ("has bytes after its end at byte 10240",)


def test_an_endless_bundle_is_not_read_for_ever(sample: Sample) -> None:
    def endless() -> Iterator[bytes]:
        yield sample.data
        while True:
            yield bytes(512)

    assert inspect_planned(endless(), sample.plan, sample.digest).findings == ("has bytes after its end at byte 10240",)


def test_what_is_wrong_everywhere_is_said_in_a_few_lines(tmp_path: Path) -> None:
    parts = tuple(Part(number, f"00007.{number:04d}", 10, 0) for number in range(500))
    for part in parts:
        (tmp_path / part.name).write_bytes(b"0123456789")
        os.utime(tmp_path / part.name, ns=(0, 0))
    plan = plan_bundle(
        ScannedRun(7, parts, None, ()), experiment="MICE", lfn="00007.tar", digests=("sha256", "md5"), force=False
    )
    reader = BundleReader(plan, tmp_path)
    data = b"".join(reader.chunks())
    found = inspect_planned([data.replace(b"0123456789", b"9876543210")], plan, reader.digest).findings
    assert len(found) == 21
    assert found[-1] == "and 980 more of this kind"
