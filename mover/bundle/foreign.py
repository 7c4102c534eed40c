"""Read a bundle that others made: a tar of a run's files, with `<run>.md5` among them and no manifest."""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mover.bundle.bytestream import ByteStream
from mover.bundle.findings import Findings
from mover.bundle.inspect import Inspection, compare_digests
from mover.bundle.untar import TarFormatError, TarHeader, members
from mover.model import BundleDigest, MemberDigest

#: What is computed of every member, the listing included: such a bundle cannot be made again.
ALGORITHMS = ("sha256", "md5")

_MOST_LISTING_BYTES = 16 << 20
# md5sum(1): the digest, a blank, a blank or an asterisk, the name.
_LINE = re.compile(r"([0-9a-f]{32}) [ *](?:\./)?([^\\/]+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class ForeignBundle:
    """What one complete reading found. `digest` is None where the tar cannot be read to its end."""

    digest: BundleDigest | None
    sha256: str | None
    findings: tuple[str, ...]


def read_foreign(chunks: Iterable[bytes], listing_name: str) -> ForeignBundle:
    """Read such a bundle and check every member against the listing: nothing differs, is missing, or is not listed.

    What the chunks raise goes through.
    """
    stream, findings = ByteStream(chunks, whole_sha256=True), Findings()
    found: list[MemberDigest] = []
    listing: bytes | None = None
    try:
        for header in members(stream):
            if header.name == listing_name:
                listing = _take_listing(stream, header)
                found.append(_digest(header.name, listing))
            else:
                found.append(stream.member(header.name, header.size_bytes, ALGORITHMS))
    except TarFormatError as error:
        return ForeignBundle(None, None, (str(error),))
    if listing is None:
        findings.add(f"it has no {listing_name}, so that nothing says what its members should be")
    else:
        _compare(listing, [one for one in found if one.name != listing_name], findings)
    digest = BundleDigest(stream.offset, stream.adler32, tuple(found))
    return ForeignBundle(digest, stream.sha256, findings.texts())


def inspect_foreign(chunks: Iterable[bytes], listing_name: str, expected: BundleDigest) -> Inspection:
    """Read such a bundle and hold it against its own listing and against what is known of it.

    What the chunks raise goes through.
    """
    counted = _Counted(chunks)
    found = read_foreign(counted, listing_name)
    findings = Findings()
    for text in found.findings:
        findings.add(text)
    if found.digest is None:
        return Inspection(counted.size_bytes, "", findings.texts())
    names = [one.name for one in found.digest.members]
    known = [one.name for one in expected.members]
    if names != known:
        findings.add(_other_members(names, known))
    there = {one.name: one for one in found.digest.members}
    for member in expected.members:
        if member.name in there:
            compare_digests(member, there[member.name], findings)
    if not findings and found.digest.adler32 != expected.adler32:
        findings.add(
            f"adler32 is {found.digest.adler32} instead of {expected.adler32}, though every member is right: "
            "a tar header or the end of the archive was changed"
        )
    return Inspection(found.digest.size_bytes, found.digest.adler32, findings.texts())


class _Counted:
    """The chunks, and how many bytes they were, however the reading ends."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chunks
        self.size_bytes = 0

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self.size_bytes += len(chunk)
            yield chunk


def _other_members(names: list[str], known: list[str]) -> str:
    if sorted(names) == sorted(known):
        return "its members are in another order"
    gone, new = sorted(set(known) - set(names)), sorted(set(names) - set(known))
    texts = [f"{gone[0]} is not in it" if len(gone) == 1 else f"{len(gone)} members are not in it"] if gone else []
    texts += [f"{new[0]} was not in it" if len(new) == 1 else f"{len(new)} members were not in it"] if new else []
    return ", ".join(texts)


def _take_listing(stream: ByteStream, header: TarHeader) -> bytes:
    if header.size_bytes > _MOST_LISTING_BYTES:
        raise TarFormatError(f"{header.name} has {header.size_bytes} bytes, which no listing needs")
    return stream.take(header.size_bytes)


def _digest(name: str, content: bytes) -> MemberDigest:
    digests = ((one, hashlib.new(one, content, usedforsecurity=False).hexdigest()) for one in ALGORITHMS)
    return MemberDigest(name, len(content), tuple(digests))


def _compare(listing: bytes, found: list[MemberDigest], findings: Findings) -> None:
    listed: dict[str, str] = {}
    lines = listing.decode("utf-8", "backslashreplace").removesuffix("\n").split("\n")
    for number, line in enumerate(lines, start=1):
        entry = _LINE.fullmatch(line)
        if entry is None:
            findings.add(f"line {number} of the md5 listing is not one that md5sum writes")
        elif listed.setdefault(entry[2], entry[1]) != entry[1]:
            findings.add(f"the md5 listing has two digests for {entry[2]!r}")
    for member in found:
        md5 = dict(member.digests)["md5"]
        if member.name not in listed:
            findings.add(f"{member.name} is not in the md5 listing")
        elif listed[member.name] != md5:
            findings.add(f"{member.name}: md5 is {md5}, the listing says {listed[member.name]}")
    for name in sorted(listed.keys() - {one.name for one in found}):
        findings.add(f"{name!r} is in the md5 listing, but not in the bundle")
