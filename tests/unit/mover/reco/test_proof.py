"""The output contract against outputs that keep it, and against all the ways in which they do not."""

import bz2
import gzip
import hashlib
import io
import lzma
import os
import resource
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uproot
from pydantic import ValidationError

from mover.errors import EndpointUnavailableError, OutputUncheckedError
from mover.reco.contract import OutputContract, TreeContract
from mover.reco.limits import Limits
from mover.reco.proof import Expectation, TreeFound, check_output
from tests.unit.mover.reco.outputs import CONTRACT, LOG, check, good, root_file, tar

RECON = "04742_recon.root"
MEMBERS_ONLY: dict[str, Any] = {"members": ["*"]}


@pytest.fixture(scope="module")
def recon(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A good ROOT file of 40 entries."""
    return root_file(tmp_path_factory.mktemp("root") / "recon.root")


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    directory = tmp_path / "scratch"
    directory.mkdir()
    return directory


def test_a_good_output_holds_and_all_of_it_is_said(recon: bytes, scratch: Path) -> None:
    stored = good(recon)
    proof = check(stored, scratch)
    assert proof.findings == ()
    assert proof.holds
    assert proof.trees == (TreeFound(RECON, "Spill", 40),)
    assert (proof.digest.size_bytes, proof.digest.adler32) == (len(stored), f"{zlib.adler32(stored):08x}")
    assert proof.sha256 == hashlib.sha256(stored).hexdigest()
    assert [(one.name, one.size_bytes, dict(one.digests)) for one in proof.digest.members] == [
        (RECON, len(recon), {"sha256": hashlib.sha256(recon).hexdigest()}),
        ("reco.log", len(LOG), {"sha256": hashlib.sha256(LOG).hexdigest()}),
    ]


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress], ids=["tar", "gz", "bz2", "xz"])
@pytest.mark.parametrize("chunk_bytes", [1, 1 << 20])
def test_the_tar_may_be_packed_in_any_way(pack: Any, chunk_bytes: int, scratch: Path) -> None:
    stored = pack(tar(("a", b"x" * 3000), ("b", os.urandom(3000))))
    proof = check(stored, scratch, MEMBERS_ONLY, chunk_bytes=chunk_bytes)
    assert proof.holds
    assert [one.name for one in proof.digest.members] == ["a", "b"]


def test_packed_streams_may_follow_each_other(scratch: Path) -> None:
    plain = tar(("a", os.urandom(5000)))
    assert check(gzip.compress(plain[:3000]) + gzip.compress(plain[3000:]), scratch, MEMBERS_ONLY).holds


def test_what_is_not_there_is_said(recon: bytes, scratch: Path) -> None:
    proof = check(gzip.compress(tar(("reco.log", LOG))), scratch)
    assert proof.findings == ("has no 04742_recon.root",)
    proof = check(gzip.compress(tar((RECON, recon), ("04742_recon.root.bak", recon))), scratch)
    assert proof.findings == ("has no reco.log",)


def test_an_output_of_2012_that_holds_nothing_is_caught(scratch: Path) -> None:
    for nothing in (b"", gzip.compress(b""), gzip.compress(tar()), tar()):
        assert not check(nothing, scratch).holds
        assert any("has no 04742_recon.root" in one for one in check(nothing, scratch).findings)


def test_iteration_and_wildcards(scratch: Path) -> None:
    contract = {"members": ["{run}_v{iteration:02d}.root", "[ab]?.log"]}
    assert check(tar(("4742_v01.root", b"x"), ("b7.log", b"")), scratch, contract).holds
    assert check(tar(("4742_v02.root", b"x"), ("c7.log", b"")), scratch, contract).findings == (
        "has no 4742_v01.root",
        "has no [ab]?.log",
    )


def test_a_size_below_the_minimum_is_said(scratch: Path) -> None:
    stored = tar(("a", b""))
    assert check(stored, scratch, {"members": ["a"], "minimum_bytes": len(stored)}).holds
    assert check(stored, scratch, {"members": ["a"], "minimum_bytes": len(stored) + 1}).findings == (
        f"has {len(stored)} bytes; at least {len(stored) + 1} are wanted",
    )


def test_what_is_stored_is_held_against_what_was_uploaded(scratch: Path) -> None:
    stored = tar(("a", b""))
    adler32 = f"{zlib.adler32(stored):08x}"
    assert check(stored, scratch, MEMBERS_ONLY, uploaded=(len(stored), adler32)).holds
    assert check(stored, scratch, MEMBERS_ONLY, uploaded=(len(stored) + 1, adler32)).findings == (
        f"has {len(stored)} bytes as it is stored, but {len(stored) + 1} were uploaded",
    )
    assert check(stored, scratch, MEMBERS_ONLY, uploaded=(len(stored), "00000001")).findings == (
        f"has adler32 {adler32} as it is stored, but 00000001 was uploaded",
    )


@pytest.mark.parametrize("entries", [0, 39, 40, 41])
def test_trees_need_their_entries(entries: int, scratch: Path, tmp_path: Path) -> None:
    contract = {**CONTRACT, "tree": [{"member": RECON, "tree": "Spill", "minimum_entries": 40}]}
    proof = check(good(root_file(tmp_path / "made.root", entries)), scratch, contract)
    assert proof.trees == (TreeFound(RECON, "Spill", entries),)
    assert proof.holds == (entries >= 40)
    if not proof.holds:
        assert proof.findings == (f"{RECON}: its tree 'Spill' has {entries} entries; at least 40 are wanted",)


def test_entries_are_held_against_the_events_of_the_raw_data(recon: bytes, scratch: Path) -> None:
    tree = {"member": RECON, "tree": "Spill", "entries_from": "physics-events", "minimum_fraction": 0.8}
    contract = {**CONTRACT, "tree": [tree]}
    assert check(good(recon), scratch, contract, physics_events=50).holds
    assert check(good(recon), scratch, contract, physics_events=51).findings == (
        f"{RECON}: its tree 'Spill' has 40 entries; at least 41 are wanted for the 51 physics events of the raw data",
    )
    assert "nobody knows how many events" in check(good(recon), scratch, contract).findings[0]


def test_fractions_are_those_of_people_and_not_of_binary_numbers() -> None:
    seven = TreeContract(member="a", tree="t", entries_from="physics-events", minimum_fraction=0.07)
    assert seven.entries_wanted(100) == 7
    assert seven.entries_wanted(101) == 8
    assert seven.entries_wanted(0) == 1


def test_every_root_file_that_the_pattern_means_must_have_the_tree(recon: bytes, scratch: Path, tmp_path: Path) -> None:
    contract = {"members": ["*"], "tree": [{"member": "*.root", "tree": "Spill"}]}
    other = root_file(tmp_path / "other.root", tree="Hits")
    proof = check(tar(("a.root", recon), ("b.root", other), ("c.root", b"")), scratch, contract)
    assert proof.findings == ("b.root has no tree 'Spill'", "c.root is no ROOT file")


@pytest.mark.parametrize("cut", [0, 1, 63, 64, 100, 500, -1000, -200, -1])
def test_a_root_file_that_was_cut_does_not_hold(cut: int, recon: bytes, scratch: Path) -> None:
    (finding,) = check(good(recon[:cut]), scratch).findings
    assert finding.startswith(f"{RECON} is ")


def test_logs_must_and_must_not_say_things(recon: bytes, scratch: Path) -> None:
    assert check(good(recon, b"ERROR\n" * 1000 + LOG), scratch).holds
    log = b"Traceback (most recent call last):\n  \xff\x1b[2J unprocessed 40 spills\n"
    assert check(good(recon, log), scratch).findings == (
        "reco.log has no line that matches '^processed [0-9]+ spills'",
        "reco.log has a line that matches 'Traceback': 'Traceback (most recent call last):'",
    )


def test_what_a_log_says_reaches_no_terminal_unquoted(recon: bytes, scratch: Path) -> None:
    (finding,) = check(good(recon, LOG + b"\x1b[2J Traceback \xff\n"), scratch).findings
    assert finding.isprintable()


def test_only_the_beginning_of_a_long_line_counts(recon: bytes, scratch: Path) -> None:
    log = LOG + b"x" * 5000 + b"Traceback\nTraceback\n"
    assert not check(good(recon, log), scratch, limits=Limits(log_line_bytes=1000)).holds
    assert check(good(recon, log.removesuffix(b"Traceback\n")), scratch, limits=Limits(log_line_bytes=1000)).holds


def test_an_expression_without_end_ends(recon: bytes, scratch: Path) -> None:
    log = {"member": "reco.log", "must_not_match": ["(a|aa)+$"]}
    proof = check(
        good(recon, b"a" * 200 + b"!\n"), scratch, {"members": ["*"], "log": [log]}, limits=Limits(cpu_seconds=1)
    )
    assert proof.findings == ("reco.log takes over 1 s of processor time to be read",)


def test_a_machine_that_is_too_slow_says_nothing_of_the_output(recon: bytes, scratch: Path) -> None:
    with pytest.raises(OutputUncheckedError, match="took over"):
        check(good(recon), scratch, limits=Limits(wall_seconds=0.001))


def test_a_root_file_may_not_take_all_memory(scratch: Path, tmp_path: Path) -> None:
    with uproot.recreate(tmp_path / "large.root") as file:
        file.mktree("Spill", {"event": np.int8}).extend({"event": np.zeros(100_000_000, np.int8)})
    stored = tar((RECON, (tmp_path / "large.root").read_bytes()))
    contract = {**CONTRACT, "members": ["*.root"], "log": []}
    assert check(stored, scratch, contract).holds
    assert check(stored, scratch, contract, limits=Limits(memory_bytes=200 << 20)).findings == (
        f"{RECON} needs more than 200 MiB of memory to be read",
    )


def _odd(name: str, kind: bytes, link: str = "") -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        header = tarfile.TarInfo(name)
        header.type, header.linkname = kind, link
        archive.addfile(header)
    return content.getvalue()


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        (tar(("/etc/passwd", b"x")), "unsafe file name '/etc/passwd'"),
        (tar(("../up", b"x")), "unsafe file name '../up'"),
        (tar(("a\x1b[2J", b"x")), "unsafe file name"),
        (tar(("a", b"x"), ("a", b"y")), "a is there twice"),
        (_odd("a", tarfile.SYMTYPE, "/etc/passwd"), "is no plain file"),
        (_odd("a", tarfile.LNKTYPE, "b"), "is no plain file"),
        (_odd("a", tarfile.FIFOTYPE), "is no plain file"),
        (_odd("a", tarfile.DIRTYPE), "is no plain file"),
        (tar(("a", b"x"))[:700], "ends in"),
        (tar(("a", b"x" * 5000))[:3000], "ends in the middle of a"),
        (tar(("a", b"x")) + b"more", "bytes after the end"),
        (gzip.compress(tar(("a", b"x")), mtime=0) + b"more", "is damaged"),
        (gzip.compress(tar(("a", b"x")), mtime=0)[:-1], "is cut short"),
        (gzip.compress(tar(("a", b"x")), mtime=0)[:-8] + bytes(8), "is damaged"),
        (bz2.compress(tar(("a", b"x")))[:-1], "is cut short"),
        (lzma.compress(tar(("a", b"x")))[:-1], "is cut short"),
        (b"\x1f\x8b" + b"nonsense", "is damaged"),
        (b"<html>404</html>", "ends after 16 bytes"),
        (gzip.compress(b"x" * 600, mtime=0), "no tar header is there"),
    ],
)
def test_what_is_no_tar_of_plain_files_is_refused_and_summed_up_all_the_same(
    stored: bytes, words: str, scratch: Path
) -> None:
    proof = check(stored, scratch, {"members": ["*"]})
    assert words in proof.findings[0]
    assert not proof.holds
    assert proof.findings[0].isprintable()
    assert (proof.digest.size_bytes, proof.digest.adler32) == (len(stored), f"{zlib.adler32(stored):08x}")
    assert proof.sha256 == hashlib.sha256(stored).hexdigest()


def test_a_bomb_goes_off_in_bounds(scratch: Path) -> None:
    zeros = bytes(1 << 20)
    packer = zlib.compressobj(9, wbits=31)
    header = tarfile.TarInfo("a")
    header.size = 200 << 20
    bomb = packer.compress(header.tobuf()) + b"".join(packer.compress(zeros) for _ in range(200)) + packer.flush()
    assert "unpacks to over 300 times its size" in check(bomb, scratch, MEMBERS_ONLY).findings[0]
    proof = check(bomb, scratch, MEMBERS_ONLY, limits=Limits(unpacked_bytes=1 << 20))
    assert "has more than 1048576 bytes" in proof.findings[0]


def test_a_member_that_is_too_large_is_not_spooled(recon: bytes, scratch: Path) -> None:
    proof = check(good(recon), scratch, limits=Limits(spooled_bytes=len(recon) - 1))
    assert proof.findings == (f"{RECON} has {len(recon)} bytes: too much to be looked into",)
    assert proof.trees == ()
    assert len(proof.digest.members) == 2


def test_a_scratch_area_that_cannot_be_written_says_nothing_of_the_output(recon: bytes, scratch: Path) -> None:
    with pytest.raises(OutputUncheckedError, match="cannot write to the scratch directory") as caught:
        check_output([good(recon)], OutputContract.model_validate(CONTRACT), Expectation(4742, 1), scratch / "none")
    assert not caught.value.permanent


def test_a_scratch_area_that_is_full_says_nothing_of_the_output(recon: bytes, scratch: Path) -> None:
    """The system refuses to make a file larger, as on a disk that is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    stored, contract = [good(recon)], OutputContract.model_validate(CONTRACT)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(recon) // 2, limits[1]))
    try:
        with pytest.raises(OutputUncheckedError, match="File too large"):
            check_output(stored, contract, Expectation(4742, 1), scratch)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(scratch.iterdir())


def test_what_the_storage_raises_goes_through(recon: bytes, scratch: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield good(recon)[:1000]
        raise EndpointUnavailableError("gone", hint="wait")

    with pytest.raises(EndpointUnavailableError):
        check_output(chunks(), OutputContract.model_validate(CONTRACT), Expectation(4742, 1), scratch)
    assert not list(scratch.iterdir())


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"members": []}, "at least 1 item"),
        ({"members": ["a/b"]}, "at top level"),
        ({"members": ["{lfn}"]}, "unknown field"),
        ({"members": ["a"], "log": [{"member": "a", "must_match": ["("]}]}, "no regular expression"),
        ({"members": ["a"], "tree": [{"member": "a", "tree": "t", "minimum_fraction": 1.1}]}, "less than or equal"),
        ({"members": ["a"], "tree": [{"member": "a", "tree": "t", "entries_from": "x"}]}, "physics-events"),
        ({"members": ["a"], "other": 1}, "not permitted"),
        ({"members": ["a"], "minimum_bytes": True}, "minimum_bytes must be a number"),
        ({"members": ["a"], "tree": [{"member": "a", "tree": "t", "minimum_entries": True}]}, "must be a number"),
        ({"members": ["a"], "tree": [{"member": "a", "tree": "t", "minimum_fraction": "1"}]}, "must be a number"),
    ],
)
def test_a_contract_that_means_nothing_is_refused(table: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        OutputContract.model_validate(table)
