"""Bundles that others made are read strictly: what a bundle may not have is refused, and nothing hurts the reader."""

import hashlib
import io
import shutil
import subprocess
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mover.bundle.bytestream import ByteStream
from mover.bundle.foreign import ForeignBundle, inspect_foreign, read_foreign
from mover.bundle.untar import TarFormatError, members

LISTING = "04742.md5"
PARTS = {"04742.000": b"raw data" * 1000, "04742.001": b"", "04742.002": b"x" * 513}


def _listing(parts: dict[str, bytes]) -> bytes:
    lines = (f"{hashlib.md5(data, usedforsecurity=False).hexdigest()}  {name}\n" for name, data in parts.items())
    return "".join(lines).encode()


def _archive(
    contents: dict[str, bytes],
    *,
    format_: int = tarfile.GNU_FORMAT,
    change: Callable[[tarfile.TarInfo], None] = lambda _: None,
) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=format_) as archive:
        for name, data in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            change(info)
            archive.addfile(info, io.BytesIO(data))
    return made.getvalue()


def _bundle(contents: dict[str, bytes] = PARTS, **options: int) -> bytes:
    return _archive({**contents, LISTING: _listing(contents)}, format_=options.get("format_", tarfile.GNU_FORMAT))


def _read(data: bytes, *, chunk_bytes: int = 1000) -> ForeignBundle:
    return read_foreign((data[start : start + chunk_bytes] for start in range(0, len(data), chunk_bytes)), LISTING)


@pytest.mark.parametrize("chunk_bytes", [1, 512, 1000, 1 << 20])
@pytest.mark.parametrize("format_", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_bundle_of_others_is_read_whole(format_: int, chunk_bytes: int) -> None:
    data = _bundle(format_=format_)
    found = _read(data, chunk_bytes=chunk_bytes)
    assert found.findings == ()
    assert found.sha256 == hashlib.sha256(data).hexdigest()
    assert found.digest is not None
    assert (found.digest.size_bytes, found.digest.adler32) == (len(data), f"{zlib.adler32(data):08x}")
    assert [one.name for one in found.digest.members] == [*PARTS, LISTING]
    assert dict(found.digest.members[0].digests)["sha256"] == hashlib.sha256(PARTS["04742.000"]).hexdigest()


def test_what_gnu_tar_and_md5sum_make_is_read(tmp_path: Path) -> None:
    if shutil.which("tar") is None:
        pytest.skip("apt install tar")
    long_name = f"04742.{'9' * 150}"  # GNU's way for long names
    for name, data in {**PARTS, long_name: b"long"}.items():
        (tmp_path / name).write_bytes(data)
    with (tmp_path / LISTING).open("wb") as listing:
        subprocess.run(
            ["md5sum", "-b", "--", *sorted(PARTS), long_name], cwd=tmp_path, stdout=listing, check=True, timeout=60
        )
    for arguments in (["--format=gnu", "--", *sorted(PARTS), long_name, LISTING], ["--format=posix", "."]):
        subprocess.run(["tar", "-cf", "../made.tar", *arguments], cwd=tmp_path, check=True, timeout=60)
        found = _read((tmp_path.parent / "made.tar").read_bytes())
        assert found.findings == ()
        assert found.digest is not None
        assert {one.name for one in found.digest.members} == {*PARTS, long_name, LISTING}


def test_sizes_of_8_gib_and_more_are_understood() -> None:
    large = 9 << 30
    for format_ in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        info = tarfile.TarInfo("04742.000")
        info.size = large
        stream = ByteStream([info.tobuf(format_)])
        assert next(members(stream)).size_bytes == large


def _other_listing(change: Callable[[dict[str, bytes]], object]) -> bytes:
    listed = dict(PARTS)
    change(listed)
    return _archive({**PARTS, LISTING: _listing(listed)})


@pytest.mark.parametrize(
    ("data", "finding"),
    [
        (_archive(PARTS), "it has no 04742.md5, so that nothing says what its members should be"),
        (_other_listing(lambda one: one.pop("04742.001")), "04742.001 is not in the md5 listing"),
        (_other_listing(lambda one: one.update({"04742.003": b""})), "'04742.003' is in the md5 listing, but not"),
        (_other_listing(lambda one: one.update({"04742.000": b""})), "04742.000: md5 is "),
        (_archive({**PARTS, LISTING: b"hello\n"}), "line 1 of the md5 listing is not one that md5sum writes"),
        (
            _archive({**PARTS, LISTING: _listing(PARTS) + b"0" * 32 + b"  04742.000\n"}),
            "the md5 listing has two digests",
        ),
    ],
    ids=["no listing", "not listed", "not there", "other bytes", "no listing's line", "two digests"],
)
def test_members_and_listing_must_be_the_same(data: bytes, finding: str) -> None:
    found = _read(data)
    assert any(text.startswith(finding) for text in found.findings), found.findings


def _kind(flag: bytes) -> Callable[[tarfile.TarInfo], None]:
    def change(info: tarfile.TarInfo) -> None:
        info.type = flag
        info.linkname = "/etc/passwd"

    return change


def _pax(**records: str) -> Callable[[tarfile.TarInfo], None]:
    def change(info: tarfile.TarInfo) -> None:
        info.pax_headers = records

    return change


_ONE = {"04742.000": b"x"}


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (_archive({"../04742.000": b"x"}), "unsafe file name"),
        (_archive({"/etc/passwd": b"x"}), "unsafe file name"),
        (_archive({"deeper/04742.000": b"x"}), "unsafe file name"),
        (_archive({"04742 000": b"x"}), "unsafe file name"),
        (_archive({"\x1b[31m": b"x"}), "unsafe file name"),
        (_archive(_ONE, change=_kind(tarfile.SYMTYPE)), "is no plain file"),
        (_archive(_ONE, change=_kind(tarfile.LNKTYPE)), "is no plain file"),
        (_archive(_ONE, change=_kind(tarfile.CHRTYPE)), "is no plain file"),
        (_archive(_ONE, change=_kind(tarfile.GNUTYPE_SPARSE)), "is no plain file"),
        (_archive({"sub": b""}, change=_kind(tarfile.DIRTYPE)), "is no plain file"),
        (_archive(_ONE, format_=tarfile.PAX_FORMAT, change=_pax(path="../x")), "unsafe file name"),
        (_archive(_ONE, format_=tarfile.PAX_FORMAT, change=_pax(**{"GNU.sparse.major": "1"})), "no bundle needs"),
        (_archive(_ONE, format_=tarfile.PAX_FORMAT, change=_pax(comment="x" * 70_000)), "an extended header of"),
        (_archive(_ONE)[:-1], "not a whole number of blocks"),
        (_archive(_ONE) + b"\0", "not a whole number of blocks"),
        (_archive(_ONE) + b"x" * 512, "bytes after the end of the archive"),
        (_archive(_ONE) + bytes(2 << 20), "bytes of zeros after the end"),
        (_archive(_ONE)[:1024], "without an end of archive"),
        (_archive({"04742.000": b"x" * 600})[:700], "ends in the middle of 04742.000"),
        (_archive(_ONE) [:513] + b"!" + _archive(_ONE)[514:], "the padding of 04742.000"),
        (_archive(_ONE)[:1024] + _archive(_ONE), "04742.000 is there twice"),
        (b"", "without an end of archive"),
        (b"\x1f\x8b" + bytes(1000), "no tar header is there"),
    ],
)  # fmt: skip
def test_what_a_bundle_may_not_be_is_refused(data: bytes, why: str) -> None:
    found = _read(data)
    assert found.digest is None
    assert len(found.findings) == 1
    assert why in found.findings[0]


@settings(max_examples=300, deadline=None)
@given(place=st.integers(0, 20479), change=st.binary(min_size=1, max_size=40))
def test_spoilt_bundles_are_found_and_do_no_harm(place: int, change: bytes) -> None:
    data = _bundle()
    spoilt = data[:place] + change + data[place + len(change) :]
    known = _read(data).digest
    assert known is not None
    found = inspect_foreign([spoilt], LISTING, known)
    assert (found.findings == ()) == (spoilt == data)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=3000))
def test_the_parser_answers_any_bytes_with_members_or_its_own_error(data: bytes) -> None:
    block = tarfile.TarInfo("04742.000").tobuf(tarfile.GNU_FORMAT)
    for content in (data, block[:124] + data[:380] + block[504:], block + data):
        stream = ByteStream([content])
        try:
            for header in members(stream):
                stream.take(header.size_bytes)
        except TarFormatError:
            pass


def test_the_same_members_in_another_order_are_another_bundle() -> None:
    known = _read(_bundle()).digest
    assert known is not None
    turned = _bundle(dict(reversed(PARTS.items())))
    assert inspect_foreign([turned], LISTING, known).findings[0] == "its members are in another order"


def test_a_member_that_came_or_went_is_named() -> None:
    known = _read(_bundle()).digest
    assert known is not None
    fewer = {name: data for name, data in PARTS.items() if name != "04742.001"}
    assert inspect_foreign([_bundle(fewer)], LISTING, known).findings[0] == "04742.001 is not in it"
    more = {**PARTS, "04742.003": b"new"}
    assert inspect_foreign([_bundle(more)], LISTING, known).findings[0] == "04742.003 was not in it"


def test_a_header_that_says_the_same_in_other_words_is_found_by_the_whole() -> None:
    known = _read(_bundle()).digest
    assert known is not None
    later = bytearray(_bundle())
    later[136:147] = b"14000000000"
    header = bytes(later[:148]) + b"        " + bytes(later[156:512])
    later[148:156] = b"%06o\0 " % sum(header)
    found = inspect_foreign([bytes(later)], LISTING, known)
    assert len(found.findings) == 1
    assert "though every member is right" in found.findings[0]
