"""Read a tar that others made, as a stream: ustar, GNU and PAX. Nothing in it is believed, and nothing is unpacked.

POSIX.1-2017, pax, and the GNU tar manual, 'Basic Tar Format'. Only what a bundle may have is accepted: plain files with
safe names at top level, each name once. Everything else is an error, not a warning.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from mover.bundle.bytestream import ByteStream
from mover.bundle.tar import BLOCK_BYTES
from mover.errors import UnsafeNameError
from mover.model import check_name

_ZEROS = bytes(BLOCK_BYTES)
_FILE, _DIRECTORY, _GNU_NAME, _PAX, _PAX_GLOBAL = b"0", b"5", b"L", b"x", b"g"
_POSIX, _GNU = b"ustar\x0000", b"ustar  \x00"
_MOST_EXTENDED_BYTES = 64 << 10
_MOST_MEMBERS = 100_000
# GNU tar fills up to a record, 20 blocks unless somebody asked for more.
_MOST_TRAILER_BYTES = 1 << 20
_REFUSED_RECORDS = ("GNU.sparse.", "linkpath")


class TarFormatError(Exception):
    """The bytes are not a tar that a bundle may be; the text says where and why."""


@dataclass(frozen=True, slots=True)
class TarHeader:
    """A header block as it stands there: the name is not checked, `kind` is the type flag."""

    name: str
    size_bytes: int
    kind: bytes


def parse_header(block: bytes) -> TarHeader:
    """Take a header block apart.

    Raises:
        TarFormatError: it is none.
    """
    if len(block) != BLOCK_BYTES:
        raise TarFormatError(f"a header block of {len(block)} bytes")
    if block[257:265] not in {_POSIX, _GNU}:
        raise TarFormatError("no tar header is there")
    if _number(block[148:156], "checksum") != sum(block[:148]) + 8 * 0x20 + sum(block[156:]):
        raise TarFormatError("the header's own checksum is wrong")
    name = _until_nul(block[:100])
    if block[257:265] == _POSIX and (prefix := _until_nul(block[345:500])):
        name = prefix + b"/" + name
    kind = _FILE if block[156:157] == b"\0" else block[156:157]
    return TarHeader(_text(name), _number(block[124:136], "size"), kind)


def members(stream: ByteStream) -> Iterator[TarHeader]:
    """The plain files of an archive, in order. Each one's content must be taken from `stream` before the next is asked.

    The stream has been read to its end when this ends.

    Raises:
        TarFormatError: something in it is not what a bundle may have.
    """
    seen: set[str] = set()
    while (block := _next_block(stream)) != _ZEROS:
        header = _extended(stream, parse_header(block))
        if header.kind == _DIRECTORY and header.name.rstrip("/") == "." and not header.size_bytes:
            continue
        header = _safe(header, stream.offset)
        if header.name in seen:
            raise TarFormatError(f"{header.name} is there twice")
        if len(seen) >= _MOST_MEMBERS:
            raise TarFormatError(f"it has over {_MOST_MEMBERS} members")
        seen.add(header.name)
        end = stream.offset + header.size_bytes
        yield header
        if stream.offset != end:
            raise TarFormatError(f"ends in the middle of {header.name}, after {stream.offset} bytes")
        _zeros(stream, -header.size_bytes % BLOCK_BYTES, f"the padding of {header.name}")
    _trailer(stream)


def _extended(stream: ByteStream, header: TarHeader) -> TarHeader:
    """The header of the file itself, with what GNU's long name or PAX records before it say."""
    name: str | None = None
    size: int | None = None
    for _ in range(4):  # a global and a local PAX header, a GNU name, and the file
        if header.kind not in {_GNU_NAME, _PAX, _PAX_GLOBAL}:
            said_name = header.name if name is None else name
            return TarHeader(said_name, header.size_bytes if size is None else size, header.kind)
        content = _content(stream, header)
        if header.kind == _GNU_NAME:
            name = _text(content.rstrip(b"\0"))
        else:
            records = dict(_records(content))
            if header.kind == _PAX_GLOBAL and records.keys() & {"path", "size"}:
                raise TarFormatError("a global header gives every member the same name or size")
            name = records.get("path", name)
            size = _decimal(records["size"]) if "size" in records else size
        header = parse_header(_next_block(stream))
    raise TarFormatError(f"too many extended headers before byte {stream.offset}")


def _safe(header: TarHeader, offset: int) -> TarHeader:
    name = header.name.removeprefix("./")
    if header.kind != _FILE:
        kind = header.kind.decode("latin-1")
        raise TarFormatError(f"{name!r} before byte {offset} is no plain file (type {kind!r})")
    try:
        check_name(name)
    except UnsafeNameError as error:
        raise TarFormatError(f"{error.message} before byte {offset}") from error
    return TarHeader(name, header.size_bytes, header.kind)


def _content(stream: ByteStream, header: TarHeader) -> bytes:
    if header.size_bytes > _MOST_EXTENDED_BYTES:
        raise TarFormatError(f"an extended header of {header.size_bytes} bytes")
    content = stream.take(header.size_bytes)
    if len(content) != header.size_bytes:
        raise TarFormatError(f"ends in an extended header, after {stream.offset} bytes")
    _zeros(stream, -header.size_bytes % BLOCK_BYTES, "the padding of an extended header")
    return content


def _records(content: bytes) -> Iterator[tuple[str, str]]:
    """PAX records: '<length> <key>=<value>' and a newline, the length counting all of it."""
    while content:
        digits, _, _ = content[:8].partition(b" ")
        length = _decimal(_text(digits))
        record = content[:length]
        key, equals, value = record[len(digits) + 1 : -1].partition(b"=")
        if length > len(content) or not record.endswith(b"\n") or not equals:
            raise TarFormatError("a PAX record that is none")
        if _text(key).startswith(_REFUSED_RECORDS):
            raise TarFormatError(f"a PAX record {_text(key)!r}, which no bundle needs")
        yield _text(key), _text(value)
        content = content[length:]


def _trailer(stream: ByteStream) -> None:
    # The first of the two blocks of zeros is taken already.
    begun = stream.offset
    _zeros(stream, BLOCK_BYTES, "the end of the archive")
    for piece in stream.pieces(_MOST_TRAILER_BYTES):
        if any(piece):
            raise TarFormatError(f"there are bytes after the end of the archive, before byte {stream.offset}")
    if (stream.offset - begun) % BLOCK_BYTES:
        raise TarFormatError(f"its {stream.offset} bytes are not a whole number of blocks")
    if not stream.ended():
        raise TarFormatError(f"over {_MOST_TRAILER_BYTES} bytes of zeros after the end of the archive")


def _next_block(stream: ByteStream) -> bytes:
    block = stream.take(BLOCK_BYTES)
    if len(block) != BLOCK_BYTES:
        raise TarFormatError(f"ends after {stream.offset} bytes, without an end of archive")
    return block


def _zeros(stream: ByteStream, size_bytes: int, what: str) -> None:
    found = stream.take(size_bytes)
    if len(found) != size_bytes:
        raise TarFormatError(f"ends in {what}, after {stream.offset} bytes")
    if any(found):
        raise TarFormatError(f"{what} before byte {stream.offset} is not zeros")


def _number(field: bytes, what: str) -> int:
    """Octal digits that end with a NUL or a blank, or, in GNU's way, a binary number marked by the first bit."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if not digits or digits.strip(b"01234567"):
        raise TarFormatError(f"a header whose {what} is no number")
    return int(digits, 8)


def _decimal(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise TarFormatError("a PAX record with a length or size that is no number")
    return int(text)


def _until_nul(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")
