"""Hold the bytes of a stored bundle against what its plan and its digests say they are, in one pass.

A bundle is a pure function of both, so that every byte is known but for the parts' own, of which the digests are: tar
headers, padding, manifest, md5 listing and trailer are compared byte for byte.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mover.bundle import tar
from mover.bundle.bytestream import ByteStream
from mover.bundle.findings import Findings
from mover.bundle.plan import MANIFEST_NAME, BundlePlan, mtime_seconds, render_manifest, render_md5
from mover.bundle.untar import TarFormatError, parse_header
from mover.model import BundleDigest, MemberDigest


@dataclass(frozen=True, slots=True)
class Inspection:
    """What one complete reading found: how much was read, its adler32, and everything that is wrong."""

    size_bytes: int
    adler32: str
    findings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Framing:
    what: str
    data: bytes
    is_header: bool = False


def inspect_planned(chunks: Iterable[bytes], plan: BundlePlan, digest: BundleDigest) -> Inspection:
    """Read a bundle that was made by `plan` and hold it against that and against `digest`.

    Reads up to one chunk past the end. What the chunks raise goes through.
    """
    stream, findings = ByteStream(chunks), Findings()
    for expected in _expected(plan, digest):
        begun = stream.offset
        if isinstance(expected, MemberDigest):
            found = stream.member(expected.name, expected.size_bytes, dict(expected.digests))
            missing = expected.size_bytes - found.size_bytes
            if not missing:
                compare_digests(expected, found, findings)
        else:
            data = stream.take(len(expected.data))
            missing = len(expected.data) - len(data)
            if not missing and data != expected.data:
                findings.add(_difference(expected, data, begun))
        if missing:
            findings.add(f"ends after {stream.offset} of {digest.size_bytes} bytes")
            break
    if not stream.ended():
        findings.add(f"has bytes after its end at byte {digest.size_bytes}")
    elif not findings and stream.adler32 != digest.adler32:
        # Every byte is right, so that it is the known adler32 that is not.
        findings.add(f"adler32 is {stream.adler32} instead of {digest.adler32}")
    return Inspection(stream.offset, stream.adler32, findings.texts())


def compare_digests(expected: MemberDigest, found: MemberDigest, findings: Findings) -> None:
    """Say which digests of a member differ."""
    known = dict(found.digests)
    for algorithm, value in expected.digests:
        if known[algorithm] != value:
            findings.add(f"{expected.name}: {algorithm} is {known[algorithm]} instead of {value}")


def _expected(plan: BundlePlan, digest: BundleDigest) -> Iterator[_Framing | MemberDigest]:
    """The bundle piece by piece: bytes where they are known, digests where only these are."""
    written = 0
    for part, member in zip(plan.parts, digest.members, strict=True):
        head, tail = tar.header(part.name, part.size_bytes, mtime_seconds(part)), tar.padding(part.size_bytes)
        yield _Framing(f"the tar header of {part.name}", head, is_header=True)
        yield member
        yield _Framing(f"the padding of {part.name}", tail)
        written += len(head) + part.size_bytes + len(tail)
    for name, content in generated_members(plan, digest.members):
        head, tail = tar.header(name, len(content), plan.generated_mtime), tar.padding(len(content))
        yield _Framing(f"the tar header of {name}", head, is_header=True)
        yield _Framing(name, content)
        yield _Framing(f"the padding of {name}", tail)
        written += len(head) + len(content) + len(tail)
    yield _Framing("the end of the archive", tar.trailer(written))


def generated_members(plan: BundlePlan, members: tuple[MemberDigest, ...]) -> Iterator[tuple[str, bytes]]:
    """Name and content of the members that are made and not read: the manifest, and the md5 listing if there is one."""
    manifest = render_manifest(plan, members)
    yield MANIFEST_NAME, manifest
    if "md5" in plan.digests:
        yield plan.md5_name, render_md5(members, hashlib.md5(manifest, usedforsecurity=False).hexdigest())


def _difference(expected: _Framing, data: bytes, begun: int) -> str:
    at = next(place for place, (ours, theirs) in enumerate(zip(expected.data, data, strict=True)) if ours != theirs)
    text = f"{expected.what} differs at byte {begun + at} of the bundle"
    if not expected.is_header:
        return text
    try:
        there = parse_header(data[-tar.BLOCK_BYTES :])
    except TarFormatError as error:
        return f"{text}: {error}"
    return f"{text}: the header of {there.name!r} of {there.size_bytes} bytes is there"
