"""Hold a stored file that is no tar of a run's parts against what is known of it as a whole: a job's output."""

from collections.abc import Iterable

from mover.bundle.bytestream import ByteStream
from mover.bundle.findings import Findings
from mover.bundle.inspect import Inspection, compare_digests
from mover.model import BundleDigest


def inspect_whole(chunks: Iterable[bytes], digest: BundleDigest) -> Inspection:
    """Read it all. Where the only member is the file itself, its digests are compared too.

    What the chunks raise goes through.
    """
    stream, findings = ByteStream(chunks), Findings()
    whole = [one for one in digest.members if one.size_bytes == digest.size_bytes and len(digest.members) == 1]
    algorithms = dict(whole[0].digests) if whole else {}
    found = stream.member("the file", digest.size_bytes, algorithms)
    if found.size_bytes < digest.size_bytes:
        findings.add(f"ends after {stream.offset} of {digest.size_bytes} bytes")
    elif not stream.ended():
        findings.add(f"has bytes after its end at byte {digest.size_bytes}")
    else:
        for one in whole:
            compare_digests(one, found, findings)
        if stream.adler32 != digest.adler32:
            findings.add(f"adler32 is {stream.adler32} instead of {digest.adler32}")
    return Inspection(stream.offset, stream.adler32, findings.texts())
