"""Find the manifest at the end of a stored bundle, and make the plan and the digests of its members from it.

The bytes are foreign until they are proven to be ours: a manifest counts only if the plan made from it gives these very
bytes again, the md5 listing too, and the size of the whole.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mover.bundle import tar
from mover.bundle.inspect import generated_members
from mover.bundle.plan import FORMAT_VERSION, HEX_DIGITS, MANIFEST_NAME, BundlePlan
from mover.bundle.untar import TarFormatError, parse_header
from mover.errors import UnsafeNameError
from mover.model import MemberDigest, Part, check_name, check_path

_FIRST_TAIL_BYTES = 256 << 10
_MOST_TAIL_BYTES = 64 << 20
_MOST_BYTES = 1 << 60
_LATEST = 1 << 40  # seconds since 1970, and before
_NS = 1_000_000_000


class ManifestError(Exception):
    """The bundle's end is not what a bundle of the mover's has; the text says why."""


@dataclass(frozen=True, slots=True)
class StoredPlan:
    """What a stored bundle says of itself. The plan's mtimes are in whole seconds: a manifest has no finer ones."""

    plan: BundlePlan
    members: tuple[MemberDigest, ...]


def read_stored_plan(
    read: Callable[[int, int], bytes], size_bytes: int, *, lfn: str, number_of: Callable[[int, str], int | None]
) -> StoredPlan | None:
    """The plan of a stored bundle of `size_bytes`, from its end; None if it has no manifest, as those of others.

    Args:
        read: gives the bytes at an offset, so many.
        number_of: the number of the part of that run and name, if it has one.

    Raises:
        ManifestError: there is a manifest, but it is not that of this bundle.
    """
    tail_bytes = _FIRST_TAIL_BYTES
    while True:
        # On whole blocks from the start, where headers are.
        offset = max(0, size_bytes - tail_bytes) // tar.BLOCK_BYTES * tar.BLOCK_BYTES
        tail = read(offset, size_bytes - offset)
        if len(tail) != size_bytes - offset:
            raise ManifestError(f"only {offset + len(tail)} of {size_bytes} bytes can be read")
        at = _find_header(tail)
        if at is not None:
            break
        if offset == 0 or tail_bytes >= _MOST_TAIL_BYTES:
            return None
        tail_bytes *= 4
    content = _content(tail, at)
    stored = _parse(content, lfn, number_of)
    if stored.plan.size_bytes != size_bytes:
        raise ManifestError(f"its manifest makes it {stored.plan.size_bytes} bytes, but it has {size_bytes}")
    end = _rendered_end(stored)
    # An extended header of the manifest may stand before what was found.
    if len(end) > len(tail):
        tail = read(size_bytes - len(end), len(end))
    if not tail.endswith(end):
        raise ManifestError("its end is not what its manifest makes it")
    return stored


def _find_header(tail: bytes) -> int | None:
    """Where the last header of a manifest begins. What a part may have inside comes before it."""
    for at in range(len(tail) - len(tail) % tar.BLOCK_BYTES - tar.BLOCK_BYTES, -1, -tar.BLOCK_BYTES):
        if not tail.startswith(MANIFEST_NAME.encode("ascii") + b"\0", at):
            continue
        try:
            parse_header(tail[at : at + tar.BLOCK_BYTES])
        except TarFormatError:
            continue
        return at
    return None


def _content(tail: bytes, at: int) -> bytes:
    size_bytes = parse_header(tail[at : at + tar.BLOCK_BYTES]).size_bytes
    begin = at + tar.BLOCK_BYTES
    if begin + size_bytes > len(tail):
        raise ManifestError("its manifest goes past its end")
    return tail[begin : begin + size_bytes]


def _rendered_end(stored: StoredPlan) -> bytes:
    plan = stored.plan
    end = b""
    for name, content in generated_members(plan, stored.members):
        end += tar.header(name, len(content), plan.generated_mtime) + content + tar.padding(len(content))
    written = sum(tar.member_bytes(part.name, part.size_bytes, part.mtime_ns // _NS) for part in plan.parts) + len(end)
    return end + tar.trailer(written)


def _parse(content: bytes, lfn: str, number_of: Callable[[int, str], int | None]) -> StoredPlan:
    """Whatever is not looked at here shows when the manifest is rendered again."""
    try:
        raw = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ManifestError("its manifest is no JSON") from error
    if not isinstance(raw, dict):
        raise ManifestError("its manifest is no JSON object")
    if raw.get("bundle_format") != FORMAT_VERSION:
        raise ManifestError(f"its manifest has format {str(raw.get('bundle_format'))[:20]!r}, not {FORMAT_VERSION}")
    try:
        digests = tuple(_one_of(HEX_DIGITS, name) for name in _list(raw["digests"]))
        run = _number(raw["run"])
        entries = [_entry(one, digests) for one in _list(raw["parts"])]
        parts = tuple(
            Part(_or(number_of(run, name), position), name, size, mtime * _NS)
            for position, (name, size, mtime, _) in enumerate(entries)
        )
        date = raw["date"]
        plan = BundlePlan(
            experiment=_text(raw["experiment"]),
            run=run,
            lfn=check_path(_text(raw["lfn"])),
            parts=parts,
            digests=digests,
            summary=None if date is None else _object(date),
            findings=tuple(_text(one) for one in _list(raw["findings"])),
        )
    except (KeyError, TypeError, ValueError, UnsafeNameError) as error:
        raise ManifestError(f"its manifest is not one of the mover's: {error}") from error
    if not parts or "sha256" not in digests:
        raise ManifestError("its manifest has no part, or no sha256")
    if plan.lfn != lfn:
        raise ManifestError(f"its manifest says that it is {plan.lfn}")
    return StoredPlan(plan, tuple(MemberDigest(name, size, found) for name, size, _, found in entries))


def _entry(raw: Any, digests: tuple[str, ...]) -> tuple[str, int, int, tuple[tuple[str, str], ...]]:
    entry = _object(raw)
    found = tuple((name, _hexadecimal(entry[name], HEX_DIGITS[name])) for name in digests)
    mtime = entry["mtime"]
    if type(mtime) is not int or abs(mtime) > _LATEST:
        raise TypeError("a time of modification that is none")
    return check_name(_text(entry["name"])), _number(entry["size_bytes"]), mtime, found


def _or(number: int | None, default: int) -> int:
    return default if number is None else number


def _number(raw: Any) -> int:
    # bool is an int too.
    if type(raw) is not int or not 0 <= raw <= _MOST_BYTES:
        raise TypeError("a number that is none")
    return raw


def _text(raw: Any) -> str:
    if not isinstance(raw, str):
        raise TypeError("a text that is none")
    return raw


def _list(raw: Any) -> list[Any]:
    if not isinstance(raw, list):
        raise TypeError("a list that is none")
    return raw


def _object(raw: Any) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise TypeError("an object that is none")
    return raw


def _one_of(known: dict[str, int], raw: Any) -> str:
    if raw not in known:
        raise ValueError(f"unknown digest {str(raw)[:20]!r}")
    return _text(raw)


def _hexadecimal(raw: Any, digits: int) -> str:
    if not isinstance(raw, str) or not re.fullmatch(rf"[0-9a-f]{{{digits}}}", raw):
        raise ValueError("a digest that is none")
    return raw
