"""Which expressions a log's lines match, in bounded memory.

How long an expression takes is up to it, and to the line: this is run as a program, see `look`.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from mover.reco.look_process import serve

_MOST_SHOWN = 200


def answer(path: Path, request: dict[str, Any]) -> dict[str, Any]:
    """What `look` asks for."""
    return {"lines": scan_log(path, request["expressions"], request["line_bytes"])}


def scan_log(path: Path, expressions: Sequence[str], line_bytes: int) -> list[str | None]:
    """For each expression the first line that it is found in, or None.

    Args:
        line_bytes: what a line has beyond is not looked at.
    """
    left = {number: re.compile(text) for number, text in enumerate(expressions)}
    found: list[str | None] = [None] * len(expressions)
    with path.open("rb") as file:
        for line in _lines(file, line_bytes):
            for number in [one for one, expression in left.items() if expression.search(line)]:
                found[number] = line[:_MOST_SHOWN]
                del left[number]
            if not left:
                break
    return found


def _lines(file: BinaryIO, line_bytes: int) -> Iterator[str]:
    begins = True
    while raw := file.readline(line_bytes):
        if begins:
            yield raw.rstrip(b"\r\n").decode("utf-8", "replace")
        begins = raw.endswith(b"\n")


if __name__ == "__main__":
    serve(answer)
