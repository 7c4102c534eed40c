"""`--json`: the one way in which commands print for programs. docs/cli-json.md has every document's keys."""

import json
from datetime import datetime
from typing import Any

import click

json_option = click.option("--json", "as_json", is_flag=True, help="For programs: JSON, as docs/cli-json.md has it.")


def print_json(document: Any) -> None:
    """Print a document of plain values to standard output. Foreign bytes are escaped: it is all ASCII."""
    click.echo(json.dumps(document, indent=1, ensure_ascii=True))


def time_or_none(at: datetime | None) -> str | None:
    """A time as documents have it: ISO 8601, in UTC."""
    return None if at is None else at.isoformat()
