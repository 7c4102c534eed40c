"""What the HTML pages of reports have in common: each needs nothing but itself. What comes from outside is escaped."""

import re
from collections.abc import Iterable
from datetime import datetime
from html import escape

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --good: #1a7f37; --wrong: #cf222e; --unknown: #9a6700; }
@media (prefers-color-scheme: dark) { :root { --good: #56d364; --wrong: #ff7b72; --unknown: #e3b341; } }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: .2rem; } h2 { margin-top: 2.2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; }
th, td { text-align: left; vertical-align: top; padding: .35rem .7rem .35rem 0; border-bottom: 1px solid var(--line); }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
td.number:not(:first-child), th.number:not(:first-child) { padding-left: 2rem; }
td.text { overflow-wrap: anywhere; }
td.bundle { min-width: 11rem; } td.found { min-width: 20rem; }
td p { margin: 0 0 .3rem; }
code { font-size: .95em; overflow-wrap: anywhere; }
ul { margin: 0; padding-left: 1.1rem; }
.remedy { opacity: .8; }
.good { color: var(--good); } .wrong { color: var(--wrong); } .unknown { color: var(--unknown); }
.verdict { font-size: 1.25rem; font-weight: 600; }
summary { cursor: pointer; }
""".strip()

_COMMAND = re.compile(r"`([^`]+)`")


def render_document(title: str, body: Iterable[str]) -> str:
    """The whole page. `title` is text, `body` HTML."""
    head = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        # Nothing is fetched, and nothing is run, whatever a name may have in it.
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        f"<title>{escape(title)}</title>\n<style>\n{_STYLE}\n</style>\n</head>\n<body>",
    ]
    return "\n".join([*head, *body, "</body>\n</html>"]) + "\n"


def remedy(text: str) -> str:
    """What to do, with the commands in it as such."""
    shown = _COMMAND.sub(r"<code>\1</code>", escape(text))
    return f' <span class="remedy">({shown})</span>' if text else ""


def breakable(path: str) -> str:
    """A path that may be broken after its slashes."""
    return escape(path).replace("/", "/<wbr>")


def moment(at: datetime) -> str:
    """A time to the second, in UTC."""
    return f'<time datetime="{at.isoformat()}">{at:%Y-%m-%d %H:%M:%SZ}</time>'
