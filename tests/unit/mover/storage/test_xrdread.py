"""Reading ahead: pieces in order, however the answers come, and nothing short is taken for the end."""

import random
import secrets
from collections.abc import Callable
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import pytest

from mover.errors import EndpointUnavailableError
from mover.storage.xrdread import Reader

OK = SimpleNamespace(ok=True)
PIECE = 4 << 20


class DoubleOfXrdClFile:
    """Stands for XrdCl's file: answers only when it has been asked for as much as it may, and in any order."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.under_way: list[tuple[int, int, Callable[..., None]]] = []
        self.most_under_way = 0

    def read(self, offset: int, size: int, _timeout: int, callback: Callable[..., None]) -> Any:
        self.under_way.append((offset, size, callback))
        self.most_under_way = max(self.most_under_way, len(self.under_way))
        if len(self.under_way) == 4 or offset + size == 10 * PIECE:
            random.shuffle(self.under_way)
            for where, length, answer in self.under_way:
                answer(OK, self.data[where : where + length], None)
            self.under_way.clear()
        return OK


def test_answers_in_any_order() -> None:
    data = secrets.token_bytes(10 * PIECE)
    file = DoubleOfXrdClFile(data)
    assert b"".join(Reader(file, "root://here//a", 5).read(0, len(data))) == data
    assert file.most_under_way <= 4


@pytest.mark.parametrize("stored", [0, 1, 10 * PIECE - 1, 5 * PIECE])
def test_short_answer_is_no_end(stored: int) -> None:
    reader = Reader(DoubleOfXrdClFile(bytes(stored)), "root://here//a", 5)
    with closing(reader.read(0, 10 * PIECE)) as pieces, pytest.raises(EndpointUnavailableError, match="ends after"):
        b"".join(pieces)
