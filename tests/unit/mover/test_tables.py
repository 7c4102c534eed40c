"""What people read is what was meant, whatever foreign text is in it."""

import io

import pytest
from rich.console import Console

from mover.cli.tables import printable, size, table


def _shown(text: str) -> str:
    out = Console(file=io.StringIO(), width=100, markup=False, highlight=False)
    out.print(table(("problem",), [(text,)]))
    file = out.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


@pytest.mark.parametrize("text", ["[/x]", "\\[/x]", "[bold red]alarm[/]", "[link=http://x]y[/link]", ":warning:"])
def test_a_servers_words_are_never_markup(text: str) -> None:
    assert text in _shown(text)


def test_control_characters_do_not_reach_the_terminal() -> None:
    shown = _shown("a\x1b[2Jb\x07c\rd\u202ee")
    assert not any(char in shown for char in "\x1b\x07\r\u202e")
    assert printable("line\nline") == "line\nline"
    assert printable("a\x1b[2J\x9b\r\udcff\u202e") == "a\\x1b[2J\\x9b\\r\\udcff\\u202e"


@pytest.mark.parametrize(
    ("size_bytes", "said"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (12_590_080, "12.6 MB"), (6 * 10**15, "6000.0 TB")],
)
def test_sizes_are_decimal(size_bytes: int, said: str) -> None:
    assert size(size_bytes) == said


@pytest.mark.parametrize("width", [80, 200])
def test_no_column_vanishes_and_nothing_is_cut_off_where_a_long_text_is(width: int) -> None:
    out = Console(file=io.StringIO(), width=width, markup=False, highlight=False)
    row = ("4742", "  brunel-disk: wrong", "sha256 is " + "f" * 300, "ask the site")
    out.print(table(("run", "outcome", "found", "what to do"), [row]))
    file = out.file
    assert isinstance(file, io.StringIO)
    shown = file.getvalue()
    assert all(text in shown for text in ("run", "4742", "brunel-disk: wrong", "what to do", "ask the site"))
    assert shown.count("f") >= 300
