"""Write the parts of the documentation that come from the code: exit codes, state tables and their diagrams.

``python docs/generate.py`` rewrites them; ``--check`` says which are out of date and exits with 1 (a test runs it).
"""

import sys
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

from mover import errors as mover_errors
from mover.states import CAMPAIGN_TABLE, JOB_TABLE, REPLICA_TABLE, RUN_TABLE, Row
from proxyagent import errors as proxyagent_errors

DOCS = Path(__file__).parent


def _classes(base: type[Exception]) -> Iterator[Any]:
    for one in sorted(base.__subclasses__(), key=lambda each: (each.exit_code, each.__name__)):  # type: ignore[attr-defined] # our bases have it
        yield one
        yield from _classes(one)


def exit_codes() -> str:
    """docs/exit-codes.md, from the error classes."""
    lines = ["# Exit codes", "", "Made by `make docs` from the error classes; do not edit.", ""]
    for program, base in (("mover", mover_errors.MoverError), ("proxyagent", proxyagent_errors.ProxyAgentError)):
        lines += [f"## {program}", "", "| code | error | what it means |", "|---|---|---|"]
        rows: list[tuple[int, str, str]] = [(0, "", "Done."), (2, "", "The command line is wrong; see `--help`.")]
        rows += [
            (one.exit_code, f"`{one.__name__}`", (one.__doc__ or "").strip().splitlines()[0])
            for one in (base, *_classes(base))
        ]
        lines += [f"| {code} | {name} | {text} |" for code, name, text in sorted(rows)]
        lines.append("")
    lines += [
        "`proxyagent status` ends with 16 if a person is needed soon, with 17 if proxies are not issued, or not all.",
        "`proxyagent exec` ends with the exit code of the command that it runs; 127 if there is no such command.",
        "Ctrl-C ends with 130.",
        "",
    ]
    return "\n".join(lines)


def state_table(table: Iterable[Row[Any, Any]]) -> str:
    """A Mermaid diagram of the allowed rows, then the table with the forbidden ones too."""
    rows = tuple(table)
    lines = ["```mermaid", "stateDiagram-v2"]
    lines += [f"    {row.before} --> {row.after}: {row.event}" for row in rows if row.after]
    lines += ["```", "", "| state | event | next state | effect, or why not |", "|---|---|---|---|"]
    lines += [f"| {row.before} | {row.event} | {_or_forbidden(row.after)} | {row.note} |" for row in rows]
    return "\n".join(lines)


def _or_forbidden(state: StrEnum | None) -> str:
    return str(state) if state else "**forbidden**"


def with_section(text: str, name: str, content: str) -> str:
    """The text with what stands between the markers of `name` replaced."""
    begin, end = f"<!-- begin generated: {name} -->\n", f"<!-- end generated: {name} -->"
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}{content}\n{end}{after}"


def generated() -> dict[Path, str]:
    """What each file with generated parts should be."""
    architecture = DOCS / "architecture.md"
    text = architecture.read_text(encoding="utf-8")
    text = with_section(text, "run states", state_table(RUN_TABLE))
    text = with_section(text, "replica states", state_table(REPLICA_TABLE))
    text = with_section(text, "job states", state_table(JOB_TABLE))
    text = with_section(text, "campaign states", state_table(CAMPAIGN_TABLE))
    return {DOCS / "exit-codes.md": exit_codes(), architecture: text}


def main(*, check: bool) -> int:
    """Write or check; the exit status."""
    old = [path for path, text in generated().items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in old:
        if check:
            sys.stderr.write(f"{path} is out of date: run `make docs`\n")
        else:
            path.write_text(generated()[path], encoding="utf-8")
    return 1 if check and old else 0


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))
