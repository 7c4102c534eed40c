"""Trees are counted only where every basket can be read: on a real file of MAUS's, and on what is left of it."""

import contextlib
import random
import struct
from pathlib import Path

import numpy as np
import pytest
import uproot
from hypothesis import given, settings
from hypothesis import strategies as st

from mover.reco.rootfile import RootFileError, tree_entries
from tests.real_data import real_file
from tests.unit.mover.reco.outputs import CONTRACT, check, good, root_file


@pytest.fixture(scope="module")
def maus() -> bytes:
    """Real output of MAUS."""
    return real_file("maus_spill.root").read_bytes()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file as uproot writes it."""
    return root_file(tmp_path_factory.mktemp("root") / "small.root")


@pytest.fixture
def count(tmp_path: Path) -> "Count":
    """Counts entries in bytes."""
    return Count(tmp_path / "file.root")


class Count:
    """Counts the entries of `Spill` in bytes that it is given."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, content: bytes | bytearray) -> int:
        self._path.write_bytes(content)
        return tree_entries(self._path, "Spill")


def test_real_output_of_maus_keeps_the_contract(maus: bytes, tmp_path: Path) -> None:
    contract = {**CONTRACT, "tree": [{"member": "*.root", "tree": "Spill", "minimum_entries": 101}]}
    proof = check(good(maus), tmp_path, contract)
    assert proof.holds
    assert [one.entries for one in proof.trees] == [101]


def test_real_output_that_was_cut_does_not(maus: bytes, tmp_path: Path) -> None:
    (finding,) = check(good(maus[:-1]), tmp_path).findings
    assert finding == f"04742_recon.root is cut short: it has {len(maus) - 1} of {len(maus)} bytes"


def test_no_cut_of_it_is_counted(maus: bytes, count: Count) -> None:
    noise = random.Random(4742)  # noqa: S311
    for cut in [*range(0, 400, 7), *(noise.randrange(len(maus)) for _ in range(40)), len(maus) - 1]:
        with pytest.raises(RootFileError):
            count(maus[:cut])


def test_a_cut_is_noticed_even_where_the_header_was_mended(maus: bytes, count: Count) -> None:
    """As a job leaves it that crashed after the trees were written, but whose baskets never reached the disk."""
    hole = bytearray(maus)
    hole[1_300_000:1_360_000] = bytes(60_000)
    with pytest.raises(RootFileError, match=r"basket .* is damaged|has .* of 101 entries"):
        count(hole)


def test_no_flipped_bit_in_the_key_of_the_tree_is_counted(maus: bytes, count: Count) -> None:
    with uproot.open(real_file("maus_spill.root")) as file:
        key = file.key("Spill")
    # fNbytes, fObjlen, fKeylen; then fSeekKey and fSeekPdir, which uproot takes from the list; the names after them.
    fields = [*range(4), *range(6, 10), *range(14, 16)]
    for at in [key.fSeekKey + one for one in fields] + [key.fSeekKey + key.fKeylen + one for one in (3, 60, 400)]:
        flipped = bytearray(maus)
        flipped[at] ^= 0x10
        with pytest.raises(RootFileError):
            count(flipped)


def test_no_flipped_bit_in_the_list_of_keys_is_counted(maus: bytes, count: Count) -> None:
    """The directory's copy of the tree's key: whatever it says instead, it is not this tree."""
    with uproot.open(real_file("maus_spill.root")) as file:
        key = file.key("Spill")
    at = maus.rindex(maus[key.fSeekKey : key.fSeekKey + key.fKeylen])
    assert at != key.fSeekKey
    names = maus.index(b"\x05TTree\x05Spill", at) - at
    for offset in [*range(4), *range(6, 10), *range(14, 16), *range(18, 22), *range(names, names + 12)]:
        flipped = bytearray(maus)
        flipped[at + offset] ^= 0x10
        with pytest.raises(RootFileError):
            count(flipped)


def test_damage_in_any_basket_is_noticed(small: bytes, count: Count) -> None:
    assert count(small) == 40
    begins = [at for at in range(len(small)) if small.startswith(b"ZL", at)]
    assert len(begins) >= 2
    for at in begins:
        flipped = bytearray(small)
        flipped[at + 14] ^= 0xFF
        with pytest.raises(RootFileError):
            count(flipped)


def test_entries_without_baskets_do_not_count(count: Count, tmp_path: Path) -> None:
    """A tree whose header promises more than was ever written."""
    with uproot.recreate(tmp_path / "plain.root", compression=None) as file:
        file.mktree("Spill", {"event": np.int32}).extend({"event": np.arange(4242, dtype=np.int32)})
    content = (tmp_path / "plain.root").read_bytes()
    assert count(content) == 4242
    entries, more = struct.pack(">q", 4242), struct.pack(">q", 4243)
    with pytest.raises(RootFileError, match="has 4242 of 4243 entries"):
        count(content.replace(entries, more))


def test_the_newest_cycle_of_a_tree_counts(tmp_path: Path) -> None:
    with uproot.recreate(tmp_path / "cycles.root") as file:
        for entries in (5, 3):
            file.mktree("Spill", {"event": np.int64}).extend({"event": np.arange(entries)})
    assert tree_entries(tmp_path / "cycles.root", "Spill") == 3


def test_what_is_no_tree_is_not_counted(tmp_path: Path) -> None:
    with uproot.recreate(tmp_path / "histogram.root") as file:
        file["Spill"] = np.histogram([1.0, 2.0])
    with pytest.raises(RootFileError, match="is no tree but a"):
        tree_entries(tmp_path / "histogram.root", "Spill")


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 1 << 16), change=st.binary(min_size=1, max_size=8))
def test_foreign_bytes_raise_nothing_else(place: int, change: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("foreign")
    content = bytearray(root_file(directory / "good.root", 4))
    at = place % len(content)
    content[at : at + len(change)] = change
    (directory / "file.root").write_bytes(content)
    with contextlib.suppress(RootFileError):
        assert tree_entries(directory / "file.root", "Spill") >= 0
